//! How long closed-form fits take, and forecasts from them.

use std::{hint::black_box, time::Duration};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use longcast::{
    data::Series,
    forecaster::{BuildContext, Forecaster, Params},
    models,
    windows::{Order, WindowShape, Windows},
};
use ndarray::Array2;

/// A season of 24 steps with deterministic noise.
fn series(rows: usize, variates: usize) -> Series {
    let value = |row: usize, variate: usize| {
        let angle = (row + 3 * variate) as f64 / 24.0 * std::f64::consts::TAU;
        let noise = (row * 7919 + variate * 104_729).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40;
        angle.sin() + noise as f64 / f64::from(1 << 24)
    };
    let values = Array2::from_shape_fn((rows, variates), |(row, variate)| value(row, variate));
    let names = (0..variates).map(|variate| format!("v{variate}")).collect();
    Series::new("generated", vec![], names, values).expect("the values are finite")
}

fn ridge(shape: WindowShape, level: &str) -> Box<dyn Forecaster> {
    let mut params = Params::default();
    params.set(&format!("level={level}")).expect("level is a key");
    models::builtin().build("ridge", &params, &BuildContext::new(shape)).expect("the params are valid")
}

/// Fits with the penalty chosen on a validation split of a third of the training rows.
fn fit(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("fit ridge");
    group.sample_size(10).warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(4));
    let sizes = [(8640, 7, 96), (8640, 7, 720), (34_560, 7, 720), (18_412, 321, 720)];
    for (rows, variates, horizon) in sizes {
        // Lag products are remembered by content: each fit gets rows that were not seen before.
        let mut fresh = 0;
        let whole = series(rows + rows / 3 + 1000, variates);
        for level in ["none", "standardise"] {
            let name = format!("{level}, {rows} x {variates}, 336 to {horizon}");
            group.bench_function(BenchmarkId::from_parameter(name), |bencher| {
                bencher.iter(|| {
                    fresh = (fresh + 1) % 1000;
                    let cut = std::slice::from_ref(&whole);
                    let shape = WindowShape::of(&whole, 336, horizon).expect("the sizes are positive");
                    let train = fresh..fresh + rows;
                    let valid = train.end..train.end + rows / 3;
                    let windows = |rows| Windows::new(cut, &[rows], shape).expect("there are enough rows");
                    let mut model = ridge(shape, level);
                    model.fit(&windows(train), &windows(valid), &mut ()).expect("there is something to learn");
                    model
                });
            });
        }
    }
    group.finish();
}

fn predict(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("predict ridge");
    for (variates, batch) in [(7, 32), (321, 16)] {
        let series = series(2200, variates);
        let shape = WindowShape::of(&series, 336, 720).expect("the sizes are positive");
        let windows = Windows::new(std::slice::from_ref(&series), &[0..2200], shape).expect("there are enough rows");
        let mut model = ridge(shape, "standardise");
        model.fit(&windows, &windows, &mut ()).expect("there is something to learn");
        let mut batches = windows.batches(batch, Order::InTime);
        let lookback = &batches.next_batch().expect("there is a batch").lookback;
        group.throughput(Throughput::Elements(batch as u64));
        group.bench_function(BenchmarkId::from_parameter(format!("{batch} windows of {variates}")), |bencher| {
            bencher.iter(|| model.predict(black_box(lookback)));
        });
    }
    group.finish();
}

criterion_group!(benches, fit, predict);
criterion_main!(benches);
