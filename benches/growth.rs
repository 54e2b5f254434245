//! How the cost of a Transformer's attention grows with the length of a series: each token to all others,
//! the few of ProbSparse, and the lags of auto-correlation.
#![allow(clippy::unwrap_used)]

use std::{hint::black_box, time::Duration};

use candle_core::{Device, Result, Tensor};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use longcast::models::neural::{
    Lags, Pass,
    kernels::{
        attention::self_attention,
        auto_correlation::auto_correlation,
        prob_sparse::{ProbSparse, Samples},
    },
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const D_MODEL: usize = 64;
const HEADS: usize = 8;
/// Keys, queries and lags for each unit of the logarithm of the length, as Informer and Autoformer have them.
const FACTOR: (usize, usize) = (5, 3);

fn values(width: usize, length: usize) -> Tensor {
    let values = (0..length * width).map(|index| ((index * 31 % 1009) as f32 * 0.37).sin());
    Tensor::from_vec(values.collect::<Vec<_>>(), (1, length, width), &Device::Cpu).unwrap()
}

fn growth(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("one forecast, one thread");
    group.sample_size(10).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    for length in [96, 192, 384, 768, 1536, 3072] {
        let logarithm = (length as f64).ln();
        let qkv = values(3 * D_MODEL, length);
        let tried = (FACTOR.0 * logarithm.ceil() as usize).min(length);
        let samples = Samples::draw(length, length, tried, 1);
        let sparse = ProbSparse { heads: HEADS, active: tried, masked: false, mixed: false, samples };
        let part = |index: usize| qkv.narrow(2, index * D_MODEL, D_MODEL).unwrap().contiguous().unwrap();
        let (q, k, v) = (part(0), part(1), part(2));
        let lags = (FACTOR.1 as f64 * logarithm) as usize;
        let mut bench = |name: &str, of: &dyn Fn(&Pass) -> Result<Tensor>| {
            group.throughput(Throughput::Elements(length as u64));
            group.bench_function(BenchmarkId::new(name, length), |bencher| {
                bencher.iter(|| black_box(of(&Pass::inference()).unwrap()));
            });
        };
        bench("attention", &|pass| self_attention(&qkv, HEADS, None, pass));
        bench("prob-sparse", &|pass| sparse.to_itself(&qkv, pass));
        bench("auto-correlation", &|pass| auto_correlation(&q, &k, &v, lags, Lags::Window, pass));
    }
    group.finish();
}

criterion_group!(benches, growth);
criterion_main!(benches);
