//! Views, batches and scores of sliding windows, at the shape of Electricity's test rows.

use std::{hint::black_box, ops::ControlFlow, slice::from_ref};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use longcast::{
    data::Series,
    evaluator::{BATCH, Yardstick, evaluate},
    forecaster::{BuildContext, Params},
    models,
    windows::{Order, Part, Scaler, SplitRule, WindowShape, Windows},
};
use ndarray::Array2;

fn series(rows: usize, variates: usize) -> Series {
    let values = Array2::from_shape_fn((rows, variates), |(row, variate)| {
        ((row + 7 * variate) as f64 / 24.0).sin() + ((row * 31 + variate * 17) % 97) as f64 / 97.0
    });
    let names = (0..variates).map(|variate| variate.to_string()).collect();
    Series::new("generated", vec![], names, values).expect("generated values are finite")
}

fn views_and_batches(criterion: &mut Criterion) {
    let series = series(26_304, 321);
    let shape = WindowShape::of(&series, 96, 96).expect("sizes are above 0");
    let windows = Windows::new(from_ref(&series), &[0..26_304], shape).expect("there are windows");
    let mut group = criterion.benchmark_group("windows of 26304 x 321");
    group.sample_size(20).throughput(Throughput::Elements(windows.len() as u64));
    group.bench_function("all as views", |bencher| {
        bencher.iter(|| windows.iter().map(|window| black_box(window).row).sum::<usize>());
    });
    group.throughput(Throughput::Elements(16));
    group.bench_function("a shuffled batch of 16", |bencher| {
        let mut batches = windows.batches(16, Order::Shuffled { seed: 1 });
        bencher.iter(|| {
            if batches.next_batch().is_none() {
                batches = windows.batches(16, Order::Shuffled { seed: 1 });
            }
        });
    });
    group.finish();
}

fn scores(criterion: &mut Criterion) {
    let raw = series(52_696, 21);
    let split = SplitRule::Ratio([0.7, 0.1, 0.2]).split(raw.len()).expect("shares of all rows");
    let scaler = Scaler::fit(&raw, &split);
    let scaled = scaler.transform(&raw).expect("the same variates");
    let yardstick = Yardstick::new(&raw, split.train.clone(), 144, scaler);
    let shape = WindowShape::of(&scaled, 96, 96).expect("sizes are above 0");
    let windows = Windows::new(from_ref(&scaled), &[split.targets(Part::Test, 96)], shape).expect("there are windows");
    let repeat = models::builtin()
        .build("repeat", &Params::default(), &BuildContext::new(shape))
        .expect("repeat can always be built");
    let mut group = criterion.benchmark_group("repeat on 10444 windows of 21 variates, 96 to 96");
    group.sample_size(10).throughput(Throughput::Elements(windows.len() as u64));
    group.bench_function("evaluate", |bencher| {
        bencher.iter(|| {
            let go_on = &mut |_| ControlFlow::Continue(());
            evaluate(&*repeat, None, &windows, from_ref(&raw), from_ref(&yardstick), BATCH, go_on)
        });
    });
    group.finish();
}

criterion_group!(benches, views_and_batches, scores);
criterion_main!(benches);
