//! What fails, is interrupted or killed: nothing is lost, and nothing is averaged away.

use std::{
    fs,
    ops::ControlFlow,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::Duration,
};

use longcast::{
    Error, Result,
    benchmark::{self, BenchObserver, Event, Failure, Outcome, Record, Run, Suite, Task, differences, record_files},
    data::Catalogue,
    forecaster::{BuildContext, FitObserver, Forecaster, Registry},
    models,
    report::{Format, Report},
    windows::{Lookback, Windows},
};
use ndarray::Array3;
use predicates::{prelude::*, str::contains};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use super::cli::{Bench, longcast};

/// A forecaster from outside that does not keep its side of the contract.
struct Faulty(Fault, BuildContext);

#[derive(Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Fault {
    #[default]
    None,
    Panic,
    Diverge,
    /// With one seed only.
    Sometimes,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct FaultyParams {
    fault: Fault,
}

impl Forecaster for Faulty {
    fn fit(&mut self, _: &Windows<'_>, _: &Windows<'_>, _: &mut dyn FitObserver) -> Result<()> {
        match self.0 {
            Fault::Panic => panic!("no such luck"),
            Fault::Diverge => Err(Error::Diverged { epoch: 3, step: 4, learning_rate: 0.5 }),
            Fault::Sometimes if self.1.seed == 2 => Err(Error::other("the second seed")),
            _ => Ok(()),
        }
    }
    fn predict(&self, lookback: &Lookback) -> Result<Array3<f32>> {
        Ok(Array3::zeros((lookback.values.dim().0, self.1.shape.horizon, self.1.shape.variates)))
    }
    fn save(&self, _: &Path) -> Result<()> {
        Ok(())
    }
    fn load(&mut self, _: &Path) -> Result<()> {
        Ok(())
    }
}

fn registry() -> Registry {
    let mut models = models::builtin();
    models.register("faulty", "Fails on request", |params: FaultyParams, context: &BuildContext| {
        Ok(Faulty(params.fault, *context))
    });
    models
}

/// Ends the run after the first epoch with this number, if there is one, and counts epochs.
#[derive(Default)]
struct EndAfter {
    epoch: Option<usize>,
    epochs: usize,
}

impl BenchObserver for EndAfter {
    fn event(&mut self, _: usize, _: &Task, event: Event<'_>) -> ControlFlow<()> {
        if let Event::Epoch(report) = event {
            self.epochs += 1;
            if self.epoch == Some(report.epoch) {
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    }
}

fn run(suite: &str, dir: &Path, observer: &mut EndAfter) -> Outcome {
    let suite = Suite::parse("tiny", suite).unwrap();
    let how = Run { checkpoint_after: Duration::ZERO, ..Run::default() };
    benchmark::run(&suite, &registry(), &Catalogue::new(None).unwrap(), dir, how, observer).unwrap()
}

const FAULTY: &str = r#"
    seeds = [1, 2]
    [variants.panics]
    model = "faulty"
    params = { fault = "panic" }
    [variants.diverges]
    model = "faulty"
    params = { fault = "diverge" }
    [variants.sometimes]
    model = "faulty"
    params = { fault = "sometimes" }
    [[run]]
    datasets = ["Synthetic"]
    models = ["panics", "diverges", "sometimes", "repeat"]
    lookback = 24
    horizons = [6, 12]
"#;

#[test]
fn a_failed_task_is_shown_with_its_reason_and_never_averaged() {
    let dir = TempDir::new().unwrap();
    let outcome = run(FAULTY, dir.path(), &mut EndAfter::default());
    assert_eq!((outcome.recorded, outcome.failed), (6, 10));
    let report = Report::read(dir.path()).unwrap();
    let table = report.render(Format::Md).unwrap();
    let row = table.lines().find(|line| line.starts_with("| Synthetic | 24       | 6 ")).unwrap();
    let cells: Vec<&str> = row.split('|').map(str::trim).collect();
    assert_eq!(cells[4..7], ["failed"; 3], "{row}");
    assert!(cells[7].contains(" / "), "{row}");
    let mean = table.lines().find(|line| line.starts_with("| Synthetic | 24       | avg ")).unwrap();
    assert_eq!(mean.split('|').map(str::trim).collect::<Vec<_>>()[4..7], ["–"; 3], "{mean}");
    for reason in ["panicked: no such luck", "in epoch 3, step 4", "seed 2: the second seed"] {
        assert!(table.contains(reason), "{table}");
    }
    assert!(report.render(Format::Json).unwrap().contains("\"failed\": true"));

    // A failure whose task has a record, as parts that are put together may leave it, is forgotten.
    let record = record_files(&[dir.path().to_path_buf()]).unwrap().remove(0);
    let failure = fs::read_dir(dir.path().join("failed")).unwrap().next().unwrap().unwrap().path();
    let beside = dir.path().join("failed").join(record.file_name().unwrap());
    fs::copy(failure, &beside).unwrap();
    // What failed is tried again, and forgotten when it succeeds.
    let again = run(FAULTY, dir.path(), &mut EndAfter::default());
    assert_eq!((again.recorded, again.kept, again.failed), (0, 6, 10));
    assert!(!beside.exists());
    let mended =
        FAULTY.replace("panic\"", "none\"").replace("diverge\"", "none\"").replace("\"sometimes\" }", "\"none\" }");
    let outcome = run(&mended, dir.path(), &mut EndAfter::default());
    assert_eq!(outcome.failed, 0);
    let table = Report::read(dir.path()).unwrap().render(Format::Md).unwrap();
    assert!(!table.contains("failed"), "{table}");
    assert!(!dir.path().join("failed").exists());
}

const NETWORKS: &str = r#"
    [variants.olinear]
    model = "olinear"
    params = { network = { embed_size = 4, d_model = 16, d_ff = 16, dropout = 0.1 }, training = { epochs = 4, learning_rate = 1e-3 } }
    [variants.informer]
    model = "informer"
    params = { network = { d_model = 16, d_ff = 16, heads = 2, label = 12 }, training = { epochs = 4, learning_rate = 1e-3 } }
    [[run]]
    datasets = ["Synthetic"]
    models = ["NAME"]
    lookback = 24
    horizons = [6]
"#;

fn the_record(dir: &Path) -> (PathBuf, Record) {
    let files = record_files(&[dir.to_path_buf()]).unwrap();
    assert_eq!(files.len(), 1);
    (files[0].clone(), Record::read(&files[0]).unwrap())
}

#[test]
fn training_goes_on_from_its_last_epoch_with_the_same_bits() {
    // One whose weights alone change, and one with running statistics beside them.
    for name in ["olinear", "informer"] {
        let suite = NETWORKS.replace("NAME", name);
        let (whole, parts) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        let mut undisturbed = EndAfter::default();
        run(&suite, whole.path(), &mut undisturbed);
        assert_eq!(undisturbed.epochs, 4);

        let unfinished = parts.path().join("unfinished");
        for epoch in [1, 3] {
            let mut observer = EndAfter { epoch: Some(epoch), epochs: 0 };
            assert!(run(&suite, parts.path(), &mut observer).interrupted);
            assert_eq!(observer.epochs, if epoch == 1 { 1 } else { 2 });
            assert!(unfinished.is_dir());
        }
        let mut last = EndAfter::default();
        assert_eq!(run(&suite, parts.path(), &mut last).recorded, 1);
        assert_eq!(last.epochs, 1);
        assert!(!unfinished.exists());
        let (one, other) = (the_record(whole.path()).1, the_record(parts.path()).1);
        assert_eq!(one.curve.len(), 4);
        assert!(differences(&one, &other).unwrap().is_empty());
        assert_eq!((one.seconds.cpu.is_some(), other.seconds.cpu), (true, None));
    }
}

#[test]
fn what_is_left_of_a_run_is_taken_whole_or_not_at_all() {
    let suite = NETWORKS.replace("NAME", "olinear");
    let whole = TempDir::new().unwrap();
    run(&suite, whole.path(), &mut EndAfter::default());
    let (_, undisturbed) = the_record(whole.path());
    type Damage = fn(Vec<u8>) -> Vec<u8>;
    let cut: Damage = |bytes| bytes[..bytes.len() / 2].to_vec();
    let other_program: Damage = |bytes| {
        let of = format!("\"of\":\"{}", env!("CARGO_PKG_VERSION"));
        let at = bytes.windows(of.len()).position(|part| part == of.as_bytes()).unwrap();
        let mut bytes = bytes;
        bytes[at + of.len() - 1] = b'9';
        bytes
    };
    let zeroed: Damage = |mut bytes| {
        let end = bytes.len();
        bytes[end - 8..].fill(0);
        bytes
    };
    for damage in [cut, other_program, zeroed, |_| vec![]] {
        let dir = TempDir::new().unwrap();
        run(&suite, dir.path(), &mut EndAfter { epoch: Some(2), epochs: 0 });
        let left = fs::read_dir(dir.path().join("unfinished")).unwrap().next().unwrap().unwrap().path();
        let file = left.join("training.safetensors");
        fs::write(&file, damage(fs::read(&file).unwrap())).unwrap();
        let mut observer = EndAfter::default();
        run(&suite, dir.path(), &mut observer);
        assert_eq!(observer.epochs, 4);
        assert!(differences(&undisturbed, &the_record(dir.path()).1).unwrap().is_empty());
    }
}

const KILLED: &str = r#"
    seeds = [1, 2]
    [variants.dlinear]
    model = "dlinear"
    params = { training = { epochs = 3, learning_rate = 5e-3 } }
    [variants.itransformer]
    model = "itransformer"
    params = { network = { d_model = 16, d_ff = 16, heads = 2 }, training = { epochs = 3, learning_rate = 1e-3 } }
    [[run]]
    datasets = ["Synthetic"]
    models = ["repeat", "ridge", "dlinear", "itransformer"]
    lookback = 24
    horizons = [6, 12]
"#;

fn start(bench: &Bench, threads: usize) -> Child {
    let path = |name: &str| bench.dir.path().join(name);
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("longcast"));
    command.arg("bench").arg(path("tiny.toml")).arg("--out").arg(path("out")).args(["--checkpoint-after", "0"]);
    command.env("RAYON_NUM_THREADS", threads.to_string()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().unwrap()
}

#[test]
fn a_suite_killed_again_and_again_gives_the_table_of_an_undisturbed_run() {
    let undisturbed = Bench::new(KILLED);
    assert!(start(&undisturbed, 1).wait().unwrap().success());
    let killed = Bench::new(KILLED);
    let mut random = ChaCha8Rng::seed_from_u64(2026);
    let mut cut_short = 0;
    for round in 0..10 {
        let mut run = start(&killed, 1 + round % 2);
        sleep(Duration::from_millis(random.random_range(30..500)));
        // Every third one is asked to end.
        if round % 3 == 2 {
            let ask = Command::new("kill").args(["-TERM", &run.id().to_string()]).status();
            assert!(ask.is_ok());
        } else {
            run.kill().unwrap();
        }
        cut_short += usize::from(!run.wait().unwrap().success());
    }
    assert!(cut_short > 0, "no run was cut short");
    assert!(start(&killed, 2).wait().unwrap().success());
    let table = |bench: &Bench| fs::read_to_string(bench.dir.path().join("out/tiny.md")).unwrap();
    assert_eq!(table(&killed), table(&undisturbed));
    assert_eq!(killed.records().len(), 16);
}

/// A task that ends at once, one that does not in a day, and one more.
const LONG: &str = r#"
    [variants.long]
    model = "dlinear"
    params = { training = { epochs = 1000000, patience = 1000000 } }
    [[run]]
    datasets = ["Synthetic"]
    models = ["repeat", "long", "ridge"]
    lookback = 24
    horizons = [6]
"#;

/// The process that works for the one that was started, when it is at the task `name`.
#[cfg(target_os = "linux")]
fn process_at(bench: &Bench, run: &Child, name: &str) -> u32 {
    let unfinished = bench.dir.path().join("out/records/tiny/unfinished");
    for _ in 0..500 {
        let tasks = fs::read_dir(&unfinished).into_iter().flatten().flatten();
        if tasks.into_iter().any(|task| task.file_name().to_string_lossy().contains(name)) {
            // The list may leave out a process for a moment (proc(5)).
            let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", run.id())).unwrap();
            if let Ok(child) = children.trim().parse() {
                return child;
            }
        }
        sleep(Duration::from_millis(20));
    }
    panic!("it has not begun with {name}");
}

#[cfg(target_os = "linux")]
fn kill(process: u32, signal: &str) {
    assert!(Command::new("kill").args([signal, &process.to_string()]).status().unwrap().success());
}

#[cfg(target_os = "linux")]
#[test]
fn a_process_that_is_ended_without_a_word_fails_its_task_and_no_other() {
    let bench = Bench::new(LONG);
    let mut run = start(&bench, 1);
    kill(process_at(&bench, &run, "long"), "-KILL");
    assert_eq!(run.wait().unwrap().code(), Some(1));
    assert_eq!(bench.records().len(), 2);
    let (failures, _) = Failure::read_all(&bench.dir.path().join("out/records/tiny")).unwrap();
    assert_eq!(failures.len(), 1);
    assert_eq!((&*failures[0].task.name, failures[0].reason.contains("SIGKILL")), ("long", true));
    assert!(!bench.dir.path().join("out/records/tiny/unfinished").exists());

    // Whoever is asked to end passes it on, and whoever watches takes the other along.
    for signal in ["-TERM", "-KILL"] {
        let mut run = start(&bench, 1);
        let process = process_at(&bench, &run, "long");
        kill(run.id(), signal);
        assert_eq!(run.wait().unwrap().code(), (signal == "-TERM").then_some(130));
        let gone = || !Path::new(&format!("/proc/{process}")).exists();
        assert!((0..100).any(|_| {
            sleep(Duration::from_millis(20));
            gone()
        }));
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_task_that_another_process_is_at_is_left_to_it() {
    let bench = Bench::new(LONG);
    let mut run = start(&bench, 1);
    process_at(&bench, &run, "long");
    let path = |name: &str| bench.dir.path().join(name).to_str().unwrap().to_string();
    longcast(&["bench", &path("tiny.toml"), "--out", &path("out")])
        .success()
        .stderr(contains("another process is at it").and(contains("0 failed, 1 at work in another process")));
    assert_eq!(bench.records().len(), 2);
    kill(run.id(), "-TERM");
    assert_eq!(run.wait().unwrap().code(), Some(130));
}

#[cfg(target_os = "linux")]
#[test]
fn where_memory_runs_out_only_the_task_fails() {
    let long = "training = { epochs = 1000000, patience = 1000000 }";
    let bench =
        Bench::new(&LONG.replace("dlinear", "itransformer").replace(long, "network = { d_model = 40000, heads = 1 }"));
    // Four gigabytes of addresses; the weights need 40.
    let program = assert_cmd::cargo::cargo_bin!("longcast").display();
    let path = bench.dir.path().display();
    let command = format!("ulimit -v 4000000; exec {program} bench {path}/tiny.toml --out {path}/out");
    let run = Command::new("sh").args(["-c", &command]).output().unwrap();
    assert_eq!(run.status.code(), Some(1));
    assert_eq!(bench.records().len(), 2);
    let table = fs::read_to_string(bench.dir.path().join("out/tiny.md")).unwrap();
    assert!(table.contains("memory"), "{table}");
}
