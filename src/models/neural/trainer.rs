//! The one training loop.
//!
//! A batch is cut into shards; threads take shards, each with tapes of its own over the shared weights,
//! and the gradients are added in the order of shards. A shard of many variates goes over the tape a few
//! windows at a time, which keeps memory small and what is hot in the cache. The same seed gives the same
//! bits for any number of threads.

use std::time::Instant;

use candle_core::{Device, Tensor, Var, backprop::GradStore};
use rand::{SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use super::{
    Input, Network, Pass, Sink, Training, Weight, Weights,
    awake::all_awake,
    checkpoint::{self, Counts, Reached, Unusable},
    kernels::{dropout::mix, loss::Loss, tape::with_gradient},
    optimizer::Optimizer,
    pass::Gradients,
    tensor_error,
};
use crate::{
    Error, Result,
    forecaster::{Checkpoint, EpochReport, FitObserver, FitProgress},
    windows::Windows,
};

/// Windows whose validation errors are added up together; the sums are added in order.
const BLOCK: usize = 64;

/// Trains the weights of `network` and leaves them at the epoch that was best on `valid`; its number, from 1.
pub fn train<N: Network>(
    network: &mut N,
    weights: &Weights,
    plan: &Training,
    seed: u64,
    train: &Windows<'_>,
    valid: &Windows<'_>,
    observer: &mut dyn FitObserver,
) -> Result<usize> {
    let mut trainer = Trainer::start(weights, plan, seed)?;
    let checkpoint = observer.checkpoint().filter(|_| !trainer.plain);
    let mut counts = Counts::default();
    let mut best: Option<Vec<Vec<f32>>> = None;
    let reached = checkpoint.as_ref().and_then(|checkpoint| {
        trainer.read(checkpoint).unwrap_or_else(|why| {
            observer.warn(&format!("{why}: training starts anew"));
            None
        })
    });
    if let Some(reached) = reached {
        trainer.take(&reached)?;
        observer.resumed(&reached.counts.curve);
        (counts, best) = (reached.counts, Some(reached.best));
    }
    let before: f64 = counts.curve.iter().map(|report| report.seconds).sum();
    let started = Instant::now();
    for epoch in counts.curve.len() + 1..=plan.epochs {
        if counts.without_improvement == plan.patience {
            break;
        }
        let start = Instant::now();
        let Epoch { train_loss, learning_rate, steps } = trainer.epoch(network, train, epoch, plan.epochs, observer)?;
        network.fold()?;
        let valid_loss = mean_loss(network, weights, &valid.for_epoch(epoch), plan)?;
        if !valid_loss.is_finite() {
            return Err(Error::Diverged { epoch, step: steps, learning_rate });
        }
        let seconds = start.elapsed().as_secs_f64();
        let report = EpochReport { epoch, train_loss, valid_loss, learning_rate, seconds };
        counts.curve.push(report);
        counts.steps = trainer.steps;
        // As in the published code, a tie is an improvement.
        if best.is_none() || valid_loss <= counts.best_loss {
            best = Some(trainer.values()?);
            counts.best_loss = valid_loss;
            counts.without_improvement = 0;
        } else {
            counts.without_improvement += 1;
        }
        if let (Some(checkpoint), Some(best)) = (&checkpoint, &best)
            && before + started.elapsed().as_secs_f64() >= checkpoint.after.as_secs_f64()
        {
            // Training itself needs no disk.
            trainer.write(checkpoint, &counts, best).unwrap_or_else(|error| {
                observer.warn(&format!("{error}: training goes on, and could not be gone on with from here"));
            });
        }
        if observer.epoch(&report).is_break() {
            return Err(Error::Interrupted);
        }
    }
    let values = best.expect("there is at least one epoch");
    trainer.state.iter().zip(&values).try_for_each(|(weight, values)| weight.set(values))?;
    Ok(counts.curve.len() - counts.without_improvement)
}

/// The same for so many `epochs` and with nothing to choose by: on the windows that [`train`] had, it comes to the
/// bits that [`train`] came to if that chose the last of them.
pub fn train_for<N: Network>(
    network: &mut N,
    weights: &Weights,
    plan: &Training,
    seed: u64,
    train: &Windows<'_>,
    epochs: usize,
    observer: &mut dyn FitObserver,
) -> Result<()> {
    let mut trainer = Trainer::start(weights, plan, seed)?;
    (1..=epochs).try_for_each(|epoch| trainer.epoch(network, train, epoch, epochs, observer).map(|_| ()))
}

/// What came of an epoch.
struct Epoch {
    train_loss: f64,
    /// Of the last step.
    learning_rate: f64,
    steps: usize,
}

/// The numbers of the `seen` windows of an epoch, in the order in which it sees them.
fn order(windows: &Windows<'_>, seen: usize, balanced: bool, key: u64) -> Vec<usize> {
    let mut random = ChaCha8Rng::seed_from_u64(key);
    let mut order: Vec<usize> = (0..windows.len()).collect();
    if balanced {
        let sets = windows.by_name();
        let mut chosen = Vec::with_capacity(seen);
        for (index, set) in sets.iter().enumerate() {
            // What cannot be shared out evenly goes to the first.
            let mut left = seen / sets.len() + usize::from(index < seen % sets.len());
            let mut own: Vec<usize> = set.clone().collect();
            while left > 0 {
                own.shuffle(&mut random);
                chosen.extend(&own[..left.min(own.len())]);
                left = left.saturating_sub(own.len());
            }
        }
        order = chosen;
    }
    order.shuffle(&mut random);
    order.truncate(seen);
    order
}

/// What is kept between the steps of one run.
pub struct Trainer {
    plan: Training,
    seed: u64,
    weights: Vec<(String, Weight)>,
    /// What changes in training: the weights, and what is kept beside them.
    state: Vec<Weight>,
    device: Device,
    optimizer: Optimizer,
    /// The gradients of each shard, and of what is derived from the weights.
    sinks: Vec<Sink>,
    derived: Sink,
    /// How many numbers the network has.
    numbers: usize,
    steps: usize,
    plain: bool,
}

impl Trainer {
    /// Trains `weights`, or those of them that [`Weights::train_only`] left, as `plan` says; all that is
    /// drawn follows from `seed`.
    pub fn new(weights: &Weights, plan: &Training, seed: u64) -> Self {
        Self {
            plan: plan.clone(),
            seed,
            weights: weights.changing(),
            state: weights.changing().into_iter().chain(weights.buffers()).map(|(_, weight)| weight).collect(),
            device: weights.device(),
            optimizer: Optimizer::new(weights, plan),
            sinks: (0..plan.shards.min(plan.batch_size).max(Training::MOST_SHARDS)).map(|_| Sink::default()).collect(),
            derived: Sink::default(),
            numbers: weights.count(),
            steps: 0,
            plain: !weights.device().is_cpu(),
        }
    }

    /// For a run from its first step.
    fn start(weights: &Weights, plan: &Training, seed: u64) -> Result<Self> {
        weights.lay_out(false)?;
        Ok(Self::new(weights, plan, seed))
    }

    /// The updates of `epoch`, counted from 1, in a run that is to have `epochs` of them.
    fn epoch<N: Network>(
        &mut self,
        network: &N,
        train: &Windows<'_>,
        epoch: usize,
        epochs: usize,
        observer: &mut dyn FitObserver,
    ) -> Result<Epoch> {
        let Training { batch_size, drop_last, epoch_windows, balanced, .. } = self.plan;
        let seen = if epoch_windows == 0 { train.len() } else { epoch_windows.min(train.len()) };
        let steps = match seen / batch_size {
            whole if whole > 0 && drop_last => whole,
            _ => seen.div_ceil(batch_size),
        };
        let order = order(train, seen, balanced, key(self.seed, Purpose::Order, epoch));
        let (mut sum, mut learning_rate) = (0.0, 0.0);
        for (index, batch) in order.chunks(batch_size).take(steps).enumerate() {
            let done = (epoch - 1) * steps + index;
            let part = done as f64 / (steps * self.plan.epochs) as f64;
            learning_rate = self.plan.schedule.rate(self.plan.learning_rate, epoch, self.plan.epochs, part);
            let loss = self.step(network, train, batch, learning_rate)?;
            if !loss.is_finite() {
                return Err(Error::Diverged { epoch, step: index + 1, learning_rate });
            }
            sum += loss;
            let progress = FitProgress { done: done + 1, total: steps * epochs, unit: "step", loss: Some(loss) };
            if observer.progress(progress).is_break() {
                return Err(Error::Interrupted);
            }
        }
        Ok(Epoch { train_loss: sum / steps as f64, learning_rate, steps })
    }

    /// The same in candle's own operations, as on devices that the fused ones are not written for.
    pub fn plain(self) -> Self {
        Self { plain: true, ..self }
    }

    /// One update of the weights of `network` by the windows with the numbers `batch`; the mean loss
    /// before it. If that is not finite, nothing is updated.
    ///
    /// # Errors
    /// If the forward or the backward pass fails.
    pub fn step<N: Network>(&mut self, network: &N, windows: &Windows<'_>, batch: &[usize], rate: f64) -> Result<f64> {
        if self.plain {
            return self.plain_step(network, windows, batch, rate);
        }
        let rows = network.rows(windows.shape().variates);
        let parts = if network.whole_batch() { 1 } else { self.plan.parts(batch.len(), rows, self.numbers) };
        all_awake(parts, || self.fused_step(network, windows, batch, rate, parts))
    }

    /// The same in parts, in fused operations.
    fn fused_step<N: Network>(
        &mut self,
        network: &N,
        windows: &Windows<'_>,
        batch: &[usize],
        rate: f64,
        parts: usize,
    ) -> Result<f64> {
        let shape = windows.shape();
        let count = batch.len() * shape.variates * shape.horizon;
        let key = |purpose| key(self.seed, purpose, self.steps);
        let derivation = Derivation::new(network, batch.len(), &self.derived, key(Purpose::Derived))?;
        let key = key(Purpose::Dropout);
        self.steps += 1;
        let whole = network.whole_batch();
        let rows = network.rows(shape.variates);
        let size = batch.len().div_ceil(parts);
        let shards: Vec<(usize, &[usize])> = batch.chunks(size).enumerate().collect();
        let at_once = if whole { size } else { super::windows_at_once(rows, &self.device) };
        let losses = shards.par_iter().map(|(index, numbers)| {
            let sink = &self.sinks[*index];
            sink.lock().clear();
            let mut sum = 0.0;
            for (part, numbers) in numbers.chunks(at_once).enumerate() {
                let (input, target) = Input::gather(windows, numbers, &self.device)?;
                let pass = Pass::training(sink.clone(), key, index * size + part * at_once);
                let pass = pass.with_derived(derivation.leaves());
                let pass = if whole { pass.on_all_threads() } else { pass };
                sum += gradients(network, &self.weights, &input, &target, self.plan.loss, count, &pass)?;
            }
            Ok(sum)
        });
        let losses: Vec<f64> = losses.collect::<candle_core::Result<_>>().map_err(tensor_error)?;
        let loss: f64 = losses.iter().sum();
        if loss.is_finite() {
            derivation.backward(&self.weights, &self.sinks[..shards.len()], &self.derived).map_err(tensor_error)?;
            let sinks: Vec<Sink> = self.sinks[..shards.len()].iter().chain([&self.derived]).cloned().collect();
            self.optimizer.step(&sinks, rate)?;
        }
        Ok(loss)
    }

    /// The whole batch on one tape. Masks are those of the fused operations, so that both go the same
    /// way but for rounding.
    fn plain_step<N: Network>(
        &mut self,
        network: &N,
        windows: &Windows<'_>,
        batch: &[usize],
        rate: f64,
    ) -> Result<f64> {
        let sink = Sink::default();
        let pass = |purpose| Pass::training(sink.clone(), key(self.seed, purpose, self.steps), 0).plain();
        let forward = || -> candle_core::Result<(f64, GradStore)> {
            let derived = network.derive(batch.len(), &pass(Purpose::Derived))?;
            let (input, target) = Input::gather(windows, batch, &self.device)?;
            let pass = pass(Purpose::Dropout).with_derived(derived);
            let loss = network.loss(&input, &target, self.plan.loss, target.elem_count(), &pass)?;
            Ok((f64::from(loss.to_scalar::<f32>()?), loss.backward()?))
        };
        let (loss, gradients) = forward().map_err(tensor_error)?;
        self.steps += 1;
        if loss.is_finite() {
            self.optimizer.plain_step(&gradients, rate)?;
            sink.lock().noted().iter().try_for_each(|(buffer, values)| buffer.set(values))?;
        }
        Ok(loss)
    }

    fn values(&self) -> Result<Vec<Vec<f32>>> {
        self.state.iter().map(Weight::values).collect()
    }

    /// Writes how far the run has come.
    fn write(&self, checkpoint: &Checkpoint, counts: &Counts, best: &[Vec<f32>]) -> Result<()> {
        let moments = self.optimizer.moments();
        checkpoint::write(checkpoint, counts, &self.values()?, best, moments.iter().map(|moments| &**moments))
    }

    /// How far an earlier run of the same has come.
    fn read(&self, checkpoint: &Checkpoint) -> Result<Option<Reached>, Unusable> {
        let state: Vec<usize> = self.state.iter().map(Weight::len).collect();
        Reached::read(checkpoint, &state, &self.optimizer.lengths())
    }

    /// Goes on from there.
    fn take(&mut self, reached: &Reached) -> Result<()> {
        // Each step of a run that goes on updated the weights.
        self.steps = reached.counts.steps;
        self.optimizer.go_on(&reached.moments, self.steps);
        self.state.iter().zip(&reached.state).try_for_each(|(weight, values)| weight.set(values))
    }
}

/// The loss of `input`; its gradients are added to those in the sink of `pass`.
///
/// # Errors
/// If the forward or the backward pass fails.
///
/// # Panics
/// If the pass is not for training.
pub fn gradients<N: Network>(
    network: &N,
    weights: &[(String, Weight)],
    input: &Input,
    target: &Tensor,
    loss: Loss,
    count: usize,
    pass: &Pass,
) -> candle_core::Result<f64> {
    let sink = pass.sink().expect("the pass is for training");
    let loss = network.loss(input, target, loss, count, pass)?;
    let store = loss.backward()?;
    let mut into = sink.lock();
    let left = into.take_left();
    collect(weights, |tensor| store.get(tensor), &mut into)?;
    collect(weights, |tensor| left.get(&tensor.id()), &mut into)?;
    for (index, leaf) in pass.derived().unwrap_or_default().iter().enumerate() {
        for gradient in [store.get(leaf), left.get(&leaf.id())].into_iter().flatten() {
            into.add_derived(index, &gradient.flatten_all()?.to_vec1()?);
        }
    }
    Ok(f64::from(loss.to_scalar::<f32>()?))
}

/// Adds what reached the weights over the tape to what was written straight into the sink.
fn collect<'a>(
    weights: &[(String, Weight)],
    gradient: impl Fn(&Tensor) -> Option<&'a Tensor>,
    into: &mut Gradients,
) -> candle_core::Result<()> {
    for (_, weight) in weights {
        if let Some(gradient) = gradient(weight.tensor()) {
            into.add(weight, &gradient.flatten_all()?.to_vec1()?);
        }
    }
    Ok(())
}

/// What a network derives from its weights in one step: on a tape of its own, and as leaves of the
/// tapes of all shards.
struct Derivation {
    tensors: Vec<Tensor>,
    leaves: Vec<Var>,
}

impl Derivation {
    fn new<N: Network>(network: &N, windows: usize, sink: &Sink, key: u64) -> Result<Self> {
        sink.lock().clear();
        let derive = || -> candle_core::Result<Self> {
            let tensors = network.derive(windows, &Pass::training(sink.clone(), key, 0))?;
            let leaves = tensors.iter().map(|tensor| Var::from_tensor(&tensor.detach()));
            Ok(Self { leaves: leaves.collect::<candle_core::Result<_>>()?, tensors })
        };
        derive().map_err(tensor_error)
    }

    fn leaves(&self) -> Vec<Tensor> {
        self.leaves.iter().map(|leaf| leaf.as_tensor().clone()).collect()
    }

    /// The gradients of the leaves, added in the order of shards, go on to the weights.
    fn backward(&self, weights: &[(String, Weight)], shards: &[Sink], sink: &Sink) -> candle_core::Result<()> {
        let mut whole: Option<Tensor> = None;
        for (index, tensor) in self.tensors.iter().enumerate() {
            let mut sum: Vec<f32> = Vec::new();
            for shard in shards {
                match (shard.lock().get_derived(index), sum.is_empty()) {
                    (None, _) => {}
                    (Some(part), true) => sum = part.to_vec(),
                    (Some(part), false) => sum.iter_mut().zip(part).for_each(|(sum, value)| *sum += value),
                }
            }
            if !sum.is_empty() && tensor.track_op() {
                let part = with_gradient(tensor, sum)?;
                whole = Some(whole.map_or_else(|| Ok(part.clone()), |whole| whole + &part)?);
            }
        }
        let Some(whole) = whole else { return Ok(()) };
        let store = whole.backward()?;
        collect(weights, |tensor| store.get(tensor), &mut sink.lock())
    }
}

/// The mean error over all windows, each once, or over as many of them as `plan` says; every element weighs
/// the same.
fn mean_loss<N: Network>(network: &N, weights: &Weights, windows: &Windows<'_>, plan: &Training) -> Result<f64> {
    let shape = windows.shape();
    let device = weights.device();
    let at_once = super::windows_at_once(network.rows(shape.variates), &device).min(BLOCK);
    let count = if plan.valid_windows == 0 { windows.len() } else { plan.valid_windows.min(windows.len()) };
    let numbers: Vec<usize> = (0..count).map(|index| index * windows.len() / count).collect();
    let block = |numbers: &[usize]| -> candle_core::Result<f64> {
        let parts = numbers.chunks(at_once).map(|numbers| {
            let (input, target) = Input::gather(windows, numbers, &device)?;
            let forecast = network.forward(&input, &Pass::inference())?.flatten_all()?.to_vec1()?;
            Ok(plan.loss.sum(&forecast, &target.flatten_all()?.to_vec1()?, shape.horizon))
        });
        parts.sum()
    };
    let blocks: Vec<f64> =
        numbers.par_chunks(BLOCK).map(block).collect::<candle_core::Result<_>>().map_err(tensor_error)?;
    Ok(blocks.iter().sum::<f64>() / (count * shape.variates * shape.horizon) as f64)
}

#[derive(Clone, Copy)]
enum Purpose {
    Order,
    Dropout,
    Derived,
}

/// A key for one purpose and number of a run.
fn key(seed: u64, purpose: Purpose, number: usize) -> u64 {
    mix(mix(mix(seed) ^ purpose as u64) ^ number as u64)
}

#[cfg(test)]
mod tests {
    use ndarray::Array2;

    use super::*;
    use crate::{data::Series, windows::WindowShape};

    fn series(name: &str, rows: usize) -> Series {
        Series::new(name, vec![], vec!["v".into()], Array2::zeros((rows, 1))).unwrap()
    }

    // Two sets, of 2 × 91 and of 6 windows.
    fn check(test: impl Fn(&Windows<'_>)) {
        let all = [series("long", 100), series("long", 100), series("short", 15)];
        let shape = WindowShape { lookback: 6, horizon: 4, variates: 1, time_features: 0 };
        test(&Windows::new(&all, &[0..100, 0..100, 0..15], shape).unwrap());
    }

    #[test]
    fn an_epoch_sees_every_window_once() {
        check(|windows| {
            let mut all = order(windows, windows.len(), false, 1);
            assert_ne!(all, order(windows, windows.len(), false, 2));
            all.sort_unstable();
            assert_eq!(all, (0..188).collect::<Vec<_>>());
        });
    }

    #[test]
    fn a_short_epoch_sees_windows_of_everywhere_once() {
        check(|windows| {
            let mut some = order(windows, 50, false, 1);
            some.sort_unstable();
            some.dedup();
            assert_eq!(some.len(), 50);
            assert!(some[0] < 30 && some[49] > 150);
        });
    }

    #[test]
    fn a_balanced_epoch_sees_as_much_of_a_small_set_as_of_a_large_one() {
        check(|windows| {
            let all = order(windows, 41, true, 1);
            let of_small = all.iter().filter(|number| **number >= 182).count();
            assert_eq!((all.len(), of_small), (41, 20));
            // Each of its six windows three times, and two of them once more.
            let times = |number: usize| all.iter().filter(|other| **other == number).count();
            assert!((182..188).all(|number| (3..=4).contains(&times(number))));
        });
    }
}
