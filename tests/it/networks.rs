//! What holds for every forecaster that is trained by descent.

use std::slice::from_ref;

use candle_core::Device;
use longcast::{
    Result,
    data::{Calendar, Series},
    forecaster::{BuildContext, EpochReport, FitObserver, FitProgress, Forecaster},
    models::{
        self,
        neural::{
            Input, Loss, Network, Neural, NeuralParams, Pass, Sink, Trainer, Training, Weights,
            autoformer::{Autoformer, AutoformerParams},
            gpht::{Gpht, GphtParams},
            gradients,
            informer::{Informer, InformerParams, Variant},
            itransformer::{ITransformer, ITransformerParams},
            linear::{DLinear, DLinearParams, Linear, LinearParams, NLinear},
            olinear::{OLinear, OLinearC, OLinearParams},
        },
    },
    windows::{Order, Part, SplitRule, WindowShape, Windows},
};
use ndarray::Array2;

fn waves(rows: usize, variates: usize) -> Series {
    let value = |row: usize, variate: usize| {
        let angle = (row + 3 * variate) as f64 / 12.0 * std::f64::consts::TAU;
        angle.sin() + 0.1 * ((row * 7919 + variate * 104_729) % 101) as f64 / 101.0
    };
    let start = chrono::DateTime::UNIX_EPOCH.naive_utc();
    let timestamps = (0..rows).map(|row| start + chrono::TimeDelta::hours(row as i64)).collect();
    let names = (0..variates).map(|variate| format!("v{variate}")).collect();
    let values = Array2::from_shape_fn((rows, variates), |(row, variate)| value(row, variate));
    Series::new("waves", timestamps, names, values).unwrap().with_calendar(Calendar::Hourly)
}

const NETWORKS: [&str; 9] =
    ["linear", "nlinear", "dlinear", "autoformer", "gpht", "informer", "itransformer", "olinear", "olinear-c"];

fn count<N: Network>(params: &N::Params, lookback: usize, horizon: usize, variates: usize) -> usize {
    let weights = Weights::new(0, Device::Cpu);
    N::build(params, WindowShape { lookback, horizon, variates, time_features: 4 }, &weights).unwrap();
    weights.count()
}

// Counted in the reference implementations.
#[test]
fn networks_have_as_many_parameters_as_their_references() {
    let itransformer = |d_model| ITransformerParams { d_model, d_ff: d_model, layers: 2, ..Default::default() };
    assert_eq!(count::<ITransformer>(&itransformer(256), 96, 96, 7), 841_568);
    assert_eq!(count::<ITransformer>(&itransformer(512), 96, 336, 7), 3_379_024);
    assert_eq!(count::<ITransformer>(&itransformer(128), 96, 96, 7), 224_224);
    assert_eq!(count::<ITransformer>(&ITransformerParams { layers: 3, ..itransformer(512) }, 96, 96, 321), 4_833_888);
    for (lookback, horizon) in [(96, 96), (96, 720)] {
        assert_eq!(count::<Autoformer>(&AutoformerParams::default(), lookback, horizon, 7), 10_535_943);
    }
    let informer = InformerParams::default();
    assert_eq!(count::<Informer>(&informer, 96, 720, 7), 11_330_055);
    let larger = InformerParams { encoder_layers: 3, decoder_layers: 2, ..informer.clone() };
    assert_eq!(count::<Informer>(&larger, 336, 168, 7), 19_474_439);
    assert_eq!(count::<Informer>(&InformerParams { variant: Variant::Library, ..informer }, 96, 96, 7), 11_328_007);
    assert_eq!(count::<Gpht>(&GphtParams::default(), 336, 720, 1), 37_977_280);
    assert_eq!(count::<Gpht>(&gpht(), 24, 6, 7), count::<Gpht>(&gpht(), 48, 720, 1));
    let olinear = OLinearParams::default();
    assert_eq!(count::<OLinear>(&olinear, 96, 96, 7), 4_518_944);
    assert_eq!(count::<OLinear>(&olinear, 96, 720, 7), 15_077_024);
    assert_eq!(count::<OLinearC>(&olinear, 96, 96, 7), 4_518_846);
    assert_eq!(count::<DLinear>(&DLinearParams::default(), 96, 96, 7), 18_624);
    assert_eq!(count::<DLinear>(&DLinearParams { individual: true, ..Default::default() }, 336, 96, 7), 452_928);
    assert_eq!(count::<Linear>(&LinearParams::default(), 336, 96, 7), 32_352);
    assert_eq!(count::<NLinear>(&LinearParams { individual: true }, 336, 96, 7), 226_464);
}

/// The names of weights that get no gradient to speak of in a training step.
fn without_gradient<N: Network>(params: &N::Params) -> Vec<String> {
    let series = waves(200, 3);
    let shape = WindowShape::of(&series, 24, 6).unwrap();
    let windows = Windows::new(from_ref(&series), &[0..200], shape).unwrap();
    let weights = Weights::new(3, Device::Cpu);
    let mut network = N::build(params, shape, &weights).unwrap();
    network.calibrate(&windows, None).unwrap();
    let all = weights.all();
    let numbers: Vec<usize> = (0..16).collect();
    let (input, target) = Input::gather(&windows, &numbers, &Device::Cpu).unwrap();
    let sink = Sink::default();
    let pass = Pass::training(sink.clone(), 1, 0);
    gradients(&network, &all, &input, &target, Loss::Mse, target.elem_count(), &pass).unwrap();
    let sink = sink.lock();
    let largest = |gradient: &[f32]| gradient.iter().fold(0f32, |largest, value| largest.max(value.abs()));
    let none = all.iter().filter(|(_, weight)| sink.get(weight).is_none_or(|gradient| largest(gradient) < 1e-7));
    none.map(|(name, _)| name.clone()).collect()
}

#[test]
fn every_trained_weight_gets_a_gradient() {
    let itransformer = ITransformerParams { d_model: 16, d_ff: 16, heads: 2, ..Default::default() };
    // A softmax does not see what is added to all its scores.
    let keys: Vec<String> =
        (0..2).map(|layer| format!("encoder.attn_layers.{layer}.attention.key_projection.bias")).collect();
    assert_eq!(without_gradient::<ITransformer>(&itransformer), keys);
    let keys: Vec<String> =
        (0..3).map(|stage| format!("encoders.{stage}.encoder.attn_layers.0.attention.key_projection.bias")).collect();
    assert_eq!(without_gradient::<Gpht>(&GphtParams { layers: 1, ..gpht() }), keys);
    let keys = |of: &[&str]| of.iter().map(|name| format!("{name}.key_projection.bias")).collect::<Vec<_>>();
    let decoder = ["decoder.layers.0.cross_attention", "decoder.layers.0.self_attention"];
    let encoder = ["encoder.attn_layers.0.attention", "encoder.attn_layers.1.attention"];
    let informer = InformerParams { d_model: 16, d_ff: 16, heads: 2, encoder_layers: 2, ..Default::default() };
    // A shift of all channels before a batch normalisation is taken away by it.
    let mut none = keys(&[decoder, encoder].concat());
    none.extend(["encoder.attn_layers.0.norm2.bias", "encoder.conv_layers.0.downConv.bias"].map(String::from));
    none.sort();
    let found = without_gradient::<Informer>(&informer);
    assert_eq!(found, none);
    // With fewer rows than d_model and with more: the way back step by step, and folded.
    for d_model in [64, 16] {
        let olinear = OLinearParams { embed_size: 3, d_model, d_ff: 16, ..Default::default() };
        assert_eq!(without_gradient::<OLinear>(&olinear), [""; 0]);
        assert_eq!(without_gradient::<OLinearC>(&olinear), [""; 0]);
    }
    assert_eq!(without_gradient::<Linear>(&LinearParams::default()), [""; 0]);
    assert_eq!(without_gradient::<NLinear>(&LinearParams { individual: true }), [""; 0]);
    assert_eq!(without_gradient::<DLinear>(&DLinearParams::default()), [""; 0]);
}

/// Each weight by name, after a few steps.
type Trained = Vec<(String, Vec<f32>)>;

fn trained<N: Network>(network: &N::Params, threads: usize) -> Trained {
    trained_with::<N>(network, threads, &Training::default(), |trainer| trainer)
}

fn trained_with<N: Network>(
    network: &N::Params,
    threads: usize,
    plan: &Training,
    change: impl Fn(Trainer) -> Trainer,
) -> Trained {
    let series = waves(300, 3);
    let shape = WindowShape::of(&series, 24, 6).unwrap();
    let windows = Windows::new(from_ref(&series), &[0..300], shape).unwrap();
    let weights = Weights::new(3, Device::Cpu);
    let mut built = N::build(network, shape, &weights).unwrap();
    built.calibrate(&windows, None).unwrap();
    let mut trainer = change(Trainer::new(&weights, plan, 3));
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    pool.install(|| {
        for step in 0..5 {
            let batch: Vec<usize> = (step..step + 30).collect();
            trainer.step(&built, &windows, &batch, 1e-3).unwrap();
        }
    });
    weights.all().into_iter().map(|(name, weight)| (name, weight.values().unwrap())).collect()
}

fn autoformer() -> AutoformerParams {
    AutoformerParams { d_model: 16, d_ff: 16, label: 12, dropout: 0.2, ..Default::default() }
}

fn informer(variant: Variant) -> InformerParams {
    let small = InformerParams { d_model: 16, d_ff: 16, heads: 2, label: 12, dropout: 0.2, ..Default::default() };
    InformerParams { variant, ..small }
}

fn gpht() -> GphtParams {
    GphtParams { token: 6, pooling: vec![3, 2, 1], d_model: 16, d_ff: 16, heads: 2, layers: 2, dropout: 0.2 }
}

#[test]
fn weights_are_the_same_bits_for_any_number_of_threads() {
    let itransformer = ITransformerParams { d_model: 16, d_ff: 16, heads: 2, dropout: 0.2, ..Default::default() };
    let olinear = OLinearParams { embed_size: 3, d_model: 16, d_ff: 16, dropout: 0.2, ..Default::default() };
    for threads in [1, 2, 5] {
        assert_eq!(trained::<ITransformer>(&itransformer, 1), trained::<ITransformer>(&itransformer, threads));
        assert_eq!(trained::<OLinear>(&olinear, 1), trained::<OLinear>(&olinear, threads));
        assert_eq!(trained::<DLinear>(&Default::default(), 1), trained::<DLinear>(&Default::default(), threads));
        assert_eq!(trained::<Autoformer>(&autoformer(), 1), trained::<Autoformer>(&autoformer(), threads));
        let informer = informer(Variant::Original);
        assert_eq!(trained::<Informer>(&informer, 1), trained::<Informer>(&informer, threads));
        assert_eq!(trained::<Gpht>(&gpht(), 1), trained::<Gpht>(&gpht(), threads));
    }
    let again = ITransformerParams { dropout: 0.3, ..itransformer.clone() };
    assert_ne!(trained::<ITransformer>(&itransformer, 1), trained::<ITransformer>(&again, 1));
}

// What a device without fused operations does, on the CPU: the same masks, the same updates.
#[test]
fn candles_own_operations_train_the_same_weights() {
    fn agree<N: Network>(network: &N::Params) {
        let plan = Training { loss: Loss::WeightedL1, weight_decay: 0.1, clip: 0.5, ..Default::default() };
        let fused = trained_with::<N>(network, 2, &plan, |trainer| trainer);
        let plain = trained_with::<N>(network, 2, &plan, Trainer::plain);
        assert_ne!(fused, plain, "{}: they are not the same operations", N::NAME);
        for ((name, fused), (_, plain)) in fused.iter().zip(&plain) {
            // Their true gradient is zero, and Adam makes whole steps of what is rounding.
            let unmoved = ["key_projection.bias", "downConv.bias", "attn_layers.0.norm2.bias"];
            if !unmoved.iter().any(|end| name.ends_with(end)) {
                let apart = fused.iter().zip(plain).map(|(fused, plain)| (fused - plain).abs()).fold(0.0, f32::max);
                // Five steps of at most 1e-3 each; one in the other direction would be 2e-3 away.
                assert!(apart < 2e-4, "{}: {name} is {apart} apart", N::NAME);
            }
        }
    }
    let network = ITransformerParams { d_model: 16, d_ff: 16, heads: 2, dropout: 0.2, ..Default::default() };
    agree::<ITransformer>(&network);
    let network = OLinearParams { embed_size: 3, d_model: 16, d_ff: 16, dropout: 0.2, ..Default::default() };
    agree::<OLinear>(&network);
    agree::<OLinearC>(&network);
    agree::<DLinear>(&Default::default());
    agree::<NLinear>(&Default::default());
    agree::<Autoformer>(&autoformer());
    agree::<Informer>(&informer(Variant::Original));
    agree::<Informer>(&informer(Variant::Library));
    agree::<Gpht>(&gpht());
}

// The loss of GPHT is over more values than its targets: parts have to know of how many they are a part.
#[test]
fn a_batch_in_parts_has_the_loss_and_the_gradients_of_the_whole() {
    let series = waves(200, 3);
    let shape = WindowShape::of(&series, 24, 6).unwrap();
    let windows = Windows::new(from_ref(&series), &[0..200], shape).unwrap();
    let weights = Weights::new(3, Device::Cpu);
    let network = Gpht::build(&gpht(), shape, &weights).unwrap();
    let all = weights.all();
    let numbers: Vec<usize> = (10..22).collect();
    let run = |sizes: &[usize]| {
        let sink = Sink::default();
        let (mut first, mut sum) = (0, 0.0);
        for size in sizes {
            let (input, target) = Input::gather(&windows, &numbers[first..first + size], &Device::Cpu).unwrap();
            let pass = Pass::training(sink.clone(), 9, first);
            let count = numbers.len() * 3 * 6;
            sum += gradients(&network, &all, &input, &target, Loss::Mse, count, &pass).unwrap();
            first += size;
        }
        let sink = sink.lock();
        let gradients = all.iter().flat_map(|(_, weight)| sink.get(weight).expect("it has a gradient").to_vec());
        (sum, gradients.collect::<Vec<f32>>())
    };
    let (loss, gradients) = run(&[12]);
    let (loss_of_parts, gradients_of_parts) = run(&[5, 1, 6]);
    assert!((loss - loss_of_parts).abs() < 1e-6, "{loss} and {loss_of_parts}");
    let apart = gradients.iter().zip(&gradients_of_parts).map(|(one, other)| (one - other).abs());
    assert!(apart.fold(0.0, f32::max) < 1e-5);
    // It is the mean over all positions, and they are about as far off as the variance of the data.
    assert!((0.2..5.0).contains(&loss), "{loss}");
}

#[test]
fn only_the_weights_that_are_named_are_trained() -> Result<()> {
    let series = waves(300, 2);
    let shape = WindowShape::of(&series, 24, 12)?;
    let windows = |targets| Windows::new(from_ref(&series), &[targets], shape);
    let network = GphtParams { pooling: vec![6, 3, 2, 1], ..gpht() };
    let training = Training { epochs: 1, only: vec!["forecast_head".into()], ..Default::default() };
    let mut model = Neural::<Gpht>::new(NeuralParams { network, training }, &BuildContext::new(shape))?;
    let values = |model: &Neural<Gpht>| -> Vec<(String, Vec<f32>)> {
        model.weights().all().into_iter().map(|(name, weight)| (name, weight.values().unwrap())).collect()
    };
    let before = values(&model);
    model.fit(&windows(0..200)?, &windows(200..300)?, &mut Listener::default())?;
    let after = values(&model);
    let changed = before.iter().zip(&after).filter(|(before, after)| before.1 != after.1);
    let changed: Vec<&str> = changed.map(|((name, _), _)| name.as_str()).collect();
    let heads =
        (0..4).flat_map(|stage| ["bias", "weight"].map(|part| format!("encoders.{stage}.forecast_head.{part}")));
    assert_eq!(changed, heads.collect::<Vec<_>>());
    Ok(())
}

// A frozen weight is as if it were data: the others get what they got.
#[test]
fn freezing_some_weights_leaves_the_gradients_of_others() {
    fn run<N: Network>(params: &N::Params, only: &[String], plain: bool) -> Trained {
        let series = waves(200, 3);
        let shape = WindowShape::of(&series, 24, 6).unwrap();
        let windows = Windows::new(from_ref(&series), &[0..200], shape).unwrap();
        let weights = Weights::new(3, Device::Cpu);
        let mut network = N::build(params, shape, &weights).unwrap();
        network.calibrate(&windows, None).unwrap();
        weights.train_only(only).unwrap();
        let trainer = Trainer::new(&weights, &Training { shards: 2, ..Default::default() }, 3);
        let mut trainer = if plain { trainer.plain() } else { trainer };
        trainer.step(&network, &windows, &(0..16).collect::<Vec<_>>(), 1e-3).unwrap();
        weights.all().into_iter().map(|(name, weight)| (name, weight.values().unwrap())).collect()
    }
    fn check<N: Network>(params: &N::Params, part: &str) {
        for plain in [false, true] {
            let all = run::<N>(params, &[], plain);
            let some = run::<N>(params, &[part.to_string()], plain);
            let drawn = {
                let weights = Weights::new(3, Device::Cpu);
                let shape = WindowShape { lookback: 24, horizon: 6, variates: 3, time_features: 4 };
                N::build(params, shape, &weights).unwrap();
                weights.all()
            };
            for ((name, all), ((_, some), (_, drawn))) in all.iter().zip(some.iter().zip(&drawn)) {
                let expected = if name.contains(part) { all.clone() } else { drawn.values().unwrap() };
                assert_eq!(some, &expected, "{}: {name} with only {part}, plain: {plain}", N::NAME);
            }
        }
    }
    let itransformer = ITransformerParams { d_model: 16, d_ff: 16, heads: 2, ..Default::default() };
    for part in ["norm", "bias", "query_projection", "enc_embedding"] {
        check::<ITransformer>(&itransformer, part);
    }
    for part in ["encoders.1", "value_embedding", "norm2"] {
        check::<Gpht>(&gpht(), part);
    }
    let olinear = OLinearParams { embed_size: 3, d_model: 16, d_ff: 16, ..Default::default() };
    for part in ["delta", "weight_mat"] {
        check::<OLinear>(&olinear, part);
    }
    check::<Autoformer>(&autoformer(), "layers.0.projection");
}

// Alone a forecast has all threads, on a thread of a pool only that one.
#[test]
fn a_forecast_is_the_same_bits_whoever_works_on_it() -> Result<()> {
    let series = waves(80, 400);
    let shape = WindowShape::of(&series, 48, 12)?;
    let windows = Windows::new(from_ref(&series), &[0..80], shape)?;
    let network = ITransformerParams { d_model: 64, d_ff: 64, heads: 2, ..Default::default() };
    let params = NeuralParams { network, training: Training::default() };
    let mut model = Neural::<ITransformer>::new(params, &BuildContext::new(shape))?;
    model.take_as_fitted(&windows)?;
    let mut batches = windows.batches(1, Order::InTime);
    let lookback = &batches.next_batch().expect("there is a window").lookback;
    let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().expect("threads can be made");
    assert_eq!(model.predict(lookback)?, pool.install(|| model.predict(lookback))?);
    Ok(())
}

#[derive(Default)]
struct Listener {
    steps: Vec<FitProgress>,
    epochs: Vec<EpochReport>,
    stop_after: Option<usize>,
}

impl FitObserver for Listener {
    fn progress(&mut self, progress: FitProgress) -> std::ops::ControlFlow<()> {
        self.steps.push(progress);
        match self.stop_after {
            Some(steps) if self.steps.len() >= steps => std::ops::ControlFlow::Break(()),
            _ => std::ops::ControlFlow::Continue(()),
        }
    }

    fn epoch(&mut self, report: &EpochReport) -> std::ops::ControlFlow<()> {
        self.epochs.push(*report);
        std::ops::ControlFlow::Continue(())
    }
}

fn fit(model: &str, assignments: &[&str], listener: &mut Listener) -> Result<f64> {
    let series = waves(600, 2);
    let shape = WindowShape::of(&series, 24, 12)?;
    let split = SplitRule::Ratio([0.6, 0.2, 0.2]).split(600)?;
    let windows = |part| Windows::new(from_ref(&series), &[split.targets(part, 24)], shape);
    let mut params = crate::small(model);
    for assignment in assignments {
        params.set(assignment)?;
    }
    let mut forecaster = models::builtin().build(model, &params, &BuildContext::new(shape))?;
    forecaster.fit(&windows(Part::Train)?, &windows(Part::Valid)?, listener)?;
    let test = windows(Part::Test)?;
    let mut batches = test.batches(test.len(), longcast::windows::Order::InTime);
    let batch = batches.next_batch().unwrap();
    let error = &forecaster.predict(&batch.lookback)? - &batch.target;
    Ok(error.iter().map(|error| f64::from(error * error)).sum::<f64>() / error.len() as f64)
}

// A season of 12 with a little noise: its variance is 0.5, and the last value repeated is worse than
// that.
#[test]
fn every_network_learns_a_season() -> Result<()> {
    for model in NETWORKS {
        let set = ["training.epochs=15", "training.learning_rate=3e-3", "training.schedule=constant"];
        let error = fit(model, &set, &mut Listener::default())?;
        assert!(error < 0.05, "{model}: {error}");
    }
    Ok(())
}

#[test]
fn an_observer_hears_every_step_and_epoch() -> Result<()> {
    let mut listener = Listener::default();
    fit("dlinear", &["training.epochs=3", "training.patience=3"], &mut listener)?;
    let epochs: Vec<usize> = listener.epochs.iter().map(|report| report.epoch).collect();
    assert_eq!(epochs, [1, 2, 3]);
    // 360 training rows make 325 windows, 11 batches.
    assert_eq!((listener.steps.len(), listener.steps[0].total), (33, 33));
    assert!(listener.steps.iter().all(|step| step.loss.is_some_and(|loss| loss > 0.0)));
    assert!(listener.epochs[2].train_loss < listener.epochs[0].train_loss);
    let rates: Vec<f64> = listener.epochs.iter().map(|report| report.learning_rate).collect();
    assert_eq!(rates, [1e-3, 1e-3, 5e-4]);
    Ok(())
}

#[test]
fn an_observer_can_stop_between_steps() {
    let mut listener = Listener { stop_after: Some(4), ..Listener::default() };
    let error = fit("dlinear", &[], &mut listener).unwrap_err();
    assert!(matches!(error, longcast::Error::Interrupted));
    assert_eq!(listener.steps.len(), 4);
}

#[test]
fn training_that_diverges_says_when_and_with_what_rate() {
    let set = ["training.learning_rate=1e30", "training.schedule=constant"];
    let error = fit("dlinear", &set, &mut Listener::default()).unwrap_err();
    assert!(matches!(error, longcast::Error::Diverged { epoch: 1, .. }), "{error}");
    assert!(error.to_string().contains("with learning rate 1000000000000000000000000000000"), "{error}");
}

#[test]
fn training_stops_when_validation_no_longer_improves() -> Result<()> {
    let mut listener = Listener::default();
    let set =
        ["training.epochs=200", "training.patience=2", "training.learning_rate=0.05", "training.schedule=constant"];
    fit("dlinear", &set, &mut listener)?;
    let best = listener.epochs.iter().map(|report| report.valid_loss).fold(f64::INFINITY, f64::min);
    let last_best = listener.epochs.iter().rposition(|report| report.valid_loss == best).unwrap();
    assert!(listener.epochs.len() < 200);
    assert_eq!(listener.epochs.len(), last_best + 1 + 2);
    Ok(())
}

#[test]
fn clipping_and_decay_change_the_weights() -> Result<()> {
    let plain = fit("nlinear", &[], &mut Listener::default())?;
    for set in ["training.clip=1e-3", "training.weight_decay=0.5"] {
        assert_ne!(fit("nlinear", &[set], &mut Listener::default())?, plain, "{set}");
    }
    Ok(())
}

#[test]
fn params_that_cannot_be_used_are_refused() {
    let error = |model: &str, set: &str| fit(model, &[set], &mut Listener::default()).unwrap_err().to_string();
    assert_eq!(error("dlinear", "network.moving_average=24"), "dlinear: moving_average must be odd, not 24");
    assert_eq!(
        error("itransformer", "network.dropout=1.0"),
        "itransformer: dropout must be at least 0 and below 1, not 1"
    );
    assert!(error("itransformer", "network.heads=3").contains("heads (3) divide d_model"));
    assert_eq!(
        error("gpht", "network.token=7"),
        "gpht: the lookback (24) must be a multiple of token (7): look back 21 or 28 rows, or set network.token"
    );
    assert_eq!(
        error("gpht", "training.only=[\"forcast_head\"]"),
        "gpht: training.only: no weight named 'forcast_head'; did you mean 'forecast_head'?"
    );
    assert_eq!(error("autoformer", "network.label=25"), "autoformer: label must be at most the lookback (24), not 25");
    assert_eq!(error("olinear", "training.batch_size=0"), "olinear: training.batch_size must be at least 1");
    assert!(error("linear", "training.learning_rate=-1.0").contains("learning_rate must be above 0"));
    assert!(error("nlinear", "network.individul=true").contains("did you mean 'individual'"));
}

#[test]
fn a_refit_has_the_epochs_that_were_chosen() -> Result<()> {
    let series = waves(400, 2);
    let split = SplitRule::Ratio([0.6, 0.2, 0.2]).split(series.len())?;
    let shape = WindowShape::of(&series, 24, 6)?;
    let windows = |part| Windows::new(from_ref(&series), &[split.targets(part, 24)], shape);
    let (train, valid, test) = (windows(Part::Train)?, windows(Part::Valid)?, windows(Part::Test)?);
    let mut batches = test.batches(8, Order::InTime);
    let lookback = &batches.next_batch().unwrap().lookback;
    // A rate so large that the second epoch is worse than the first.
    let mut params = NeuralParams { network: DLinearParams::default(), ..Default::default() };
    params.training = Training { learning_rate: 0.3, epochs: 2, ..Training::default() };
    let mut model = Neural::<DLinear>::new(params, &BuildContext::new(shape))?;
    let mut heard = Listener::default();
    model.fit(&train, &valid, &mut heard)?;
    let losses: Vec<f64> = heard.epochs.iter().map(|report| report.valid_loss).collect();
    assert!(losses[0] < losses[1], "{losses:?}");
    let fitted = model.predict(lookback)?;
    // The same windows for as many epochs: the same weights.
    assert!(model.refit(&train, &mut ())?);
    assert_eq!(model.predict(lookback)?, fitted);
    // More windows: others.
    let all = Windows::new(from_ref(&series), &[0..400], shape)?;
    assert!(model.refit(&all, &mut ())?);
    assert_ne!(model.predict(lookback)?, fitted);
    // What comes from a file has no epoch that was chosen.
    let folder = tempfile::tempdir().unwrap();
    model.save(folder.path())?;
    model.load(folder.path())?;
    assert!(!model.refit(&all, &mut ())?);
    Ok(())
}
