//! Training steps and forecasts of every network at three widths, and each kernel against the same in
//! candle's own operations.
#![allow(clippy::unwrap_used)]

use std::{hint::black_box, slice::from_ref, time::Duration};

use candle_core::{Device, Result, Tensor, Var};
use criterion::{BenchmarkGroup, Criterion, criterion_group, criterion_main, measurement::WallTime};
use longcast::{
    data::{Calendar, Series},
    forecaster::{BuildContext, Forecaster, Params},
    models::neural::{
        Activation, Loss, Network, Neural, NeuralParams, Pass, Sink, Trainer, Weights,
        itransformer::ITransformer,
        kernels::{
            activation::{self, activate},
            attention::{self, self_attention},
            linear::{self, linear},
            moving_average::{self, moving_average},
            norm::{self, add_norm},
        },
        linear::{DLinear, Linear, NLinear},
        olinear::{OLinear, OLinearC},
    },
    windows::{Order, WindowShape, Windows},
};
use ndarray::Array2;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Lookback, horizon and batch of the papers.
const SIZES: (usize, usize, usize) = (96, 96, 32);

fn series(variates: usize) -> Series {
    let rows = SIZES.0 + SIZES.1 + SIZES.2;
    let value = |(row, variate): (usize, usize)| ((row * 31 + variate * 17) as f64 * 0.37).sin();
    let hours = (0..rows as i64).map(|row| chrono::DateTime::UNIX_EPOCH.naive_utc() + chrono::TimeDelta::hours(row));
    let names = (0..variates).map(|variate| format!("v{variate}")).collect();
    let values = Array2::from_shape_fn((rows, variates), value);
    Series::new("generated", hours.collect(), names, values).unwrap().with_calendar(Calendar::Hourly)
}

/// The sizes that papers train with: wider for more variates.
fn params<N: Network>(variates: usize) -> NeuralParams<N::Params> {
    let mut params = Params::default();
    let width = if variates < 10 { 256 } else { 512 };
    for (key, value) in [("d_model", width), ("d_ff", width), ("layers", if variates < 10 { 2 } else { 3 })] {
        let mut with = params.clone();
        with.set(&format!("network.{key}={value}")).unwrap();
        if with.read::<NeuralParams<N::Params>>(N::NAME).is_ok() {
            params = with;
        }
    }
    params.read(N::NAME).unwrap()
}

fn network<N: Network>(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group(N::NAME);
    group.sample_size(10).warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(3));
    for variates in [7, 21, 321] {
        let series = series(variates);
        let shape = WindowShape::of(&series, SIZES.0, SIZES.1).unwrap();
        let windows = Windows::new(from_ref(&series), &[0..series.len()], shape).unwrap();
        step::<N>(&mut group, variates, &windows);
        let mut model = Neural::<N>::new(params::<N>(variates), &BuildContext::new(shape)).unwrap();
        model.take_as_fitted(&windows).unwrap();
        for size in [1, 32] {
            let mut batches = windows.batches(size, Order::InTime);
            let lookback = &batches.next_batch().unwrap().lookback;
            group.bench_function(format!("forecast of {size}, {variates} variates"), |bencher| {
                bencher.iter(|| model.predict(black_box(lookback)).unwrap());
            });
        }
    }
    group.finish();
}

fn step<N: Network>(group: &mut BenchmarkGroup<'_, WallTime>, variates: usize, windows: &Windows<'_>) {
    let weights = Weights::new(0, Device::Cpu);
    let params = params::<N>(variates);
    let mut network = N::build(&params.network, windows.shape(), &weights).unwrap();
    network.calibrate(windows, None).unwrap();
    let mut trainer = Trainer::new(&weights, &params.training, 0);
    let size = if variates < 100 { SIZES.2 } else { SIZES.2 / 2 };
    let batch: Vec<usize> = (0..size).collect();
    group.bench_function(format!("training step, {variates} variates, batch {size}"), |bencher| {
        bencher.iter(|| trainer.step(&network, windows, &batch, 1e-4).unwrap());
    });
}

fn networks(criterion: &mut Criterion) {
    longcast::cli::prepare();
    network::<Linear>(criterion);
    network::<NLinear>(criterion);
    network::<DLinear>(criterion);
    network::<ITransformer>(criterion);
    network::<OLinear>(criterion);
    network::<OLinearC>(criterion);
}

fn random(dims: &[usize]) -> Var {
    let values: Vec<f32> = (0..dims.iter().product()).map(|index: usize| (index as f32 * 0.37).sin()).collect();
    Var::from_vec(values, dims, &Device::Cpu).unwrap()
}

/// Forward and backward, fused and plain.
fn compare(
    criterion: &mut Criterion,
    name: &str,
    fused: impl Fn(&Pass) -> Result<Tensor>,
    plain: impl Fn(&Pass) -> Result<Tensor>,
) {
    let mut group = criterion.benchmark_group(format!("kernel {name}"));
    group.sample_size(20).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    let run = |of: &dyn Fn(&Pass) -> Result<Tensor>| {
        let pass = Pass::training(Sink::default(), 0, 0);
        let out = of(&pass).unwrap();
        let target = out.zeros_like().unwrap();
        Loss::Mse.on_tape(&out, &target, out.elem_count(), &pass).unwrap().backward().unwrap()
    };
    group.bench_function("fused", |bencher| bencher.iter(|| run(&fused)));
    group.bench_function("plain", |bencher| bencher.iter(|| run(&plain)));
    group.finish();
}

fn kernels(criterion: &mut Criterion) {
    let weights = Weights::new(0, Device::Cpu);
    let (x, branch) = (random(&[8, 64, 512]), random(&[8, 64, 512]));
    let maps = [weights.linear("map", 512, 512).unwrap()];
    let affine = weights.affine("norm", 512).unwrap();
    compare(criterion, "linear", |pass| linear(&x, &maps, pass), |pass| linear::plain(&x, &maps, pass));
    compare(
        criterion,
        "residual and layer norm",
        |pass| add_norm(&x, &branch, &affine, None, pass),
        |pass| norm::plain(&(x.as_tensor() + branch.as_tensor())?, &affine, pass),
    );
    compare(
        criterion,
        "gelu",
        |pass| activate(&x, Activation::Gelu, None, pass),
        |_| activation::plain(&x, Activation::Gelu, None),
    );
    for tokens in [11, 325] {
        let qkv = random(&[4, tokens, 3 * 512]);
        compare(
            criterion,
            &format!("attention of {tokens} tokens"),
            |pass| self_attention(&qkv, 8, None, pass),
            |_| attention::plain(&qkv.narrow(2, 0, 512)?, &qkv.narrow(2, 512, 1024)?, 8, None),
        );
    }
    compare(criterion, "moving average", |pass| moving_average(&x, 25, pass), |_| moving_average::plain(&x, 25));
}

criterion_group!(benches, networks, kernels);
criterion_main!(benches);
