//! How long it takes to read a wide table: 26,304 hours of 321 variates, as large as Electricity.
#![allow(clippy::unwrap_used)]

use std::{
    fmt::Write as _,
    fs::File,
    io::{BufWriter, Write as _},
    path::Path,
};

use chrono::{NaiveDate, TimeDelta};
use criterion::{Criterion, criterion_group, criterion_main};
use longcast::data::loader::{ReadOptions, read};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

// As in the program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ROWS: i64 = 26_304;
const VARIATES: usize = 321;

fn write(path: &Path) {
    let mut random = ChaCha8Rng::seed_from_u64(0);
    let mut out = BufWriter::new(File::create(path).unwrap());
    let names: Vec<String> = (0..VARIATES).map(|variate| format!("v{variate}")).collect();
    writeln!(out, "date,{}", names.join(",")).unwrap();
    let start = NaiveDate::from_ymd_opt(2016, 7, 1).unwrap().and_hms_opt(0, 0, 0).unwrap();
    for row in 0..ROWS {
        let mut line = (start + TimeDelta::hours(row)).to_string();
        for _ in 0..VARIATES {
            write!(line, ",{:.1}", random.random_range(0.0..5000.0f64)).unwrap();
        }
        writeln!(out, "{line}").unwrap();
    }
    out.flush().unwrap();
}

fn loading(criterion: &mut Criterion) {
    longcast::cli::prepare();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("wide.csv");
    write(&file);
    let mut group = criterion.benchmark_group("loading");
    group.sample_size(10);
    group.bench_function("csv_26304x321", |bencher| {
        bencher.iter(|| read(&file, "wide", &ReadOptions::default()).unwrap());
    });
    group.finish();
}

criterion_group!(benches, loading);
criterion_main!(benches);
