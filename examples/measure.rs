//! Measures one case of `benches/pytorch/cases.toml`, as `benches/pytorch/measure.py` does in PyTorch,
//! and prints one line of JSON.

use std::{
    fs,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, bail};
use chrono::{DateTime, TimeDelta};
use clap::{Parser, ValueEnum};
use longcast::{
    data::{Calendar, Series},
    forecaster::{BuildContext, Forecaster, Params},
    models::neural::{
        Network, Neural, NeuralParams, Trainer, Weights,
        autoformer::Autoformer,
        gpht::Gpht,
        informer::Informer,
        itransformer::{ITransformer, ITransformerParams},
        kernels::product::{Write, matrix, matrix_mut, product},
        linear::{DLinear, Linear, NLinear},
        olinear::{OLinear, OLinearC},
    },
    windows::{Order, WindowShape, Windows},
};
use ndarray::Array2;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use serde::Deserialize;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const WARM_UP: usize = 3;
const FEWEST: usize = 3;

#[derive(Parser)]
struct Args {
    /// The name of a case
    case: String,
    #[arg(long, value_enum)]
    what: What,
    #[arg(long)]
    seconds: f64,
    #[arg(long, default_value_t = 2)]
    threads: usize,
}

#[derive(Clone, Copy, ValueEnum)]
enum What {
    /// One training step
    Step,
    /// A forecast of one window
    Latency,
    /// Forecasts of 32 windows
    Throughput,
    /// The matrix products of one training step of iTransformer and nothing else, cut as in the step
    Products,
}

#[derive(Deserialize)]
struct Cases {
    case: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    model: String,
    lookback: usize,
    horizon: usize,
    variates: usize,
    time_features: usize,
    batch: usize,
    network: toml::Table,
    training: toml::Table,
}

fn main() -> anyhow::Result<()> {
    let loaded = SystemTime::now();
    longcast::cli::prepare();
    let args = Args::parse();
    rayon::ThreadPoolBuilder::new().num_threads(args.threads).build_global()?;
    let path = "benches/pytorch/cases.toml";
    let text = fs::read_to_string(path).with_context(|| format!("{path}: run this from the repository's root"))?;
    let cases: Cases = toml::from_str(&text)?;
    let case = cases.case.iter().find(|case| case.name == args.case);
    let case = case.with_context(|| format!("{path}: no case named '{}'", args.case))?;
    match case.model.as_str() {
        "linear" => measure::<Linear>(case, &args, loaded),
        "nlinear" => measure::<NLinear>(case, &args, loaded),
        "dlinear" => measure::<DLinear>(case, &args, loaded),
        "autoformer" => measure::<Autoformer>(case, &args, loaded),
        "gpht" => measure::<Gpht>(case, &args, loaded),
        "informer" => measure::<Informer>(case, &args, loaded),
        "itransformer" => measure::<ITransformer>(case, &args, loaded),
        "olinear" => measure::<OLinear>(case, &args, loaded),
        "olinear-c" => measure::<OLinearC>(case, &args, loaded),
        other => bail!("{path}: no network named '{other}'"),
    }
}

/// Random rows, enough for as many windows as the largest batch.
fn series(case: &Case) -> longcast::Result<Series> {
    let rows = case.lookback + case.horizon + case.batch.max(32);
    let mut random = ChaCha8Rng::seed_from_u64(0);
    let values = Array2::from_shape_fn((rows, case.variates), |_| random.random_range(-1.7..1.7));
    let names = (0..case.variates).map(|variate| format!("v{variate}")).collect();
    let hours = (0..rows as i64).map(|row| DateTime::UNIX_EPOCH.naive_utc() + TimeDelta::hours(row)).collect();
    let timestamps = if case.time_features == 0 { vec![] } else { hours };
    Ok(Series::new("random", timestamps, names, values)?.with_calendar(Calendar::Hourly))
}

fn measure<N: Network>(case: &Case, args: &Args, loaded: SystemTime) -> anyhow::Result<()> {
    let series = series(case)?;
    let shape = WindowShape::of(&series, case.lookback, case.horizon)?;
    let all = std::slice::from_ref(&series);
    let windows = Windows::new(all, &[0..series.len()], shape)?;
    let table = toml::Table::from_iter([
        ("network".to_string(), case.network.clone().into()),
        ("training".to_string(), case.training.clone().into()),
    ]);
    let params: NeuralParams<N::Params> = Params::from_type(&table)?.read(N::NAME)?;
    match args.what {
        What::Step => {
            let weights = Weights::new(0, candle_core::Device::Cpu);
            let mut network = N::build(&params.network, shape, &weights)?;
            network.calibrate(&windows, None)?;
            let mut trainer = Trainer::new(&weights, &params.training, 0);
            let batch: Vec<usize> = (0..case.batch).collect();
            time(case, args, loaded, || {
                trainer.step(&network, &windows, &batch, 1e-4)?;
                Ok(())
            })
        }
        What::Products => {
            let all = products(case)?;
            let largest = |side: fn(&Product) -> usize| all.iter().map(side).max().unwrap_or(0);
            let sizes =
                [largest(|p| p.rows * p.depth), largest(|p| p.depth * p.columns), largest(|p| p.rows * p.columns)];
            let windows = vec![(); case.batch];
            time(case, args, loaded, || {
                windows.par_iter().for_each_init(
                    || sizes.map(|size| vec![0.01f32; size]),
                    |buffers, ()| all.iter().for_each(|product| product.run(buffers)),
                );
                Ok(())
            })
        }
        What::Latency | What::Throughput => {
            let mut model = Neural::<N>::new(params, &BuildContext::new(shape))?;
            model.take_as_fitted(&windows)?;
            let size = if matches!(args.what, What::Latency) { 1 } else { 32 };
            let mut batches = windows.batches(size, Order::InTime);
            let lookback = &batches.next_batch().context("there is a batch")?.lookback;
            time(case, args, loaded, || {
                std::hint::black_box(model.predict(lookback)?);
                Ok(())
            })
        }
    }
}

/// `[rows, depth]` times `[depth, columns]`, each as it lies or transposed.
struct Product {
    rows: usize,
    depth: usize,
    columns: usize,
    transposed: (bool, bool),
}

impl Product {
    fn run(&self, [a, b, out]: &mut [Vec<f32>; 3]) {
        let &Self { rows, depth, columns, transposed } = self;
        let a = &a[..rows * depth];
        let b = &b[..depth * columns];
        let a = if transposed.0 { matrix(a, rows).reversed_axes() } else { matrix(a, depth) };
        let b = if transposed.1 { matrix(b, depth).reversed_axes() } else { matrix(b, columns) };
        product(matrix_mut(&mut out[..rows * columns], columns), Write::Set, a, b, 1.0);
    }
}

/// Those of one window in a training step of iTransformer, where each window goes over a tape of its own.
fn products(case: &Case) -> anyhow::Result<Vec<Product>> {
    if case.model != "itransformer" || case.variates < 257 {
        bail!("{}: products are known for iTransformer and more than 256 variates", case.name);
    }
    let params: ITransformerParams = case.network.clone().try_into()?;
    let ITransformerParams { d_model, d_ff, heads, layers, .. } = params;
    let all_tokens = case.variates + case.time_features;
    let mut list = Vec::new();
    let mut push = |rows, depth, columns, transposed| list.push(Product { rows, depth, columns, transposed });
    // Forward, gradient of the weight, gradient of the input.
    let mut linear = |rows, inputs, outputs, first: bool| {
        push(rows, inputs, outputs, (false, true));
        push(outputs, rows, inputs, (true, false));
        if !first {
            push(rows, outputs, inputs, (false, false));
        }
    };
    linear(all_tokens, case.lookback, d_model, true);
    for layer in 0..layers {
        let kept = if layer + 1 == layers { case.variates } else { all_tokens };
        (0..2).for_each(|_| linear(kept, d_model, d_model, false));
        (0..2).for_each(|_| linear(all_tokens, d_model, d_model, false));
        linear(kept, d_model, d_ff, false);
        linear(kept, d_ff, d_model, false);
    }
    linear(case.variates, d_model, case.horizon, false);
    for layer in 0..layers {
        let (queries, width) = (if layer + 1 == layers { case.variates } else { all_tokens }, d_model / heads);
        for _ in 0..heads {
            // Scores, twice, and their gradients; values, and the gradients of values, keys and queries.
            (0..3).for_each(|_| push(queries, width, all_tokens, (false, true)));
            (0..2).for_each(|_| push(queries, all_tokens, width, (false, false)));
            (0..2).for_each(|_| push(all_tokens, queries, width, (true, false)));
        }
    }
    Ok(list)
}

fn time(
    case: &Case,
    args: &Args,
    loaded: SystemTime,
    mut run: impl FnMut() -> longcast::Result<()>,
) -> anyhow::Result<()> {
    run()?;
    let started = std::env::var("MEASURE_STARTED").ok().and_then(|seconds| seconds.parse::<f64>().ok());
    let started =
        started.map_or(Ok(loaded), |seconds| Duration::try_from_secs_f64(seconds).map(|since| UNIX_EPOCH + since))?;
    let launch = SystemTime::now().duration_since(started)?;
    for _ in 1..WARM_UP {
        run()?;
    }
    let mut times = Vec::new();
    let end = Instant::now() + Duration::from_secs_f64(args.seconds);
    while times.len() < FEWEST || Instant::now() < end {
        let start = Instant::now();
        run()?;
        times.push(1e3 * start.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    let what = args.what.to_possible_value().context("every measurement has a name")?;
    let result = serde_json::json!({
        "case": case.name,
        "what": what.get_name(),
        "median_ms": times[times.len() / 2],
        "best_ms": times[0],
        "runs": times.len(),
        "peak_mb": peak_mb()?,
        "launch_ms": 1e3 * launch.as_secs_f64(),
    });
    #[allow(clippy::print_stdout, reason = "it is what this program is for")]
    {
        println!("{result}");
    }
    Ok(())
}

/// The most memory this process held, in MiB; 0 where the system does not tell.
fn peak_mb() -> anyhow::Result<f64> {
    let Ok(status) = fs::read_to_string("/proc/self/status") else { return Ok(0.0) };
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("a process has a peak")?;
    Ok(line.trim().trim_end_matches("kB").trim().parse::<f64>()? / 1024.0)
}
