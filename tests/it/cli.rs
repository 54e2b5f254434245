//! The program as a user meets it: results on stdout, the rest on stderr, exit codes, clear errors.

use std::{fs, path::Path};

use assert_cmd::{Command, assert::Assert};
use predicates::str::contains;
use serde_json::Value;
use tempfile::TempDir;

pub fn longcast(arguments: &[&str]) -> Assert {
    Command::cargo_bin("longcast").unwrap().args(arguments).env_remove("LONGCAST_DATA").assert()
}

const TASK: &[&str] = &["evaluate", "--dataset", "Synthetic", "--lookback", "48", "--horizon", "12"];

fn evaluate(rest: &[&str]) -> Assert {
    longcast(&[TASK, rest].concat())
}

pub const SUITE: &str = r#"
    [[run]]
    datasets = ["Synthetic"]
    models = ["repeat", "mean"]
    lookback = 24
    horizons = [6, 12]
"#;

pub struct Bench {
    pub dir: TempDir,
}

impl Bench {
    pub fn new(suite: &str) -> Self {
        let dir = TempDir::new().unwrap();
        fs::write(dir.path().join("tiny.toml"), suite).unwrap();
        Self { dir }
    }

    pub fn run(&self, rest: &[&str]) -> Assert {
        let (suite, out) = (self.dir.path().join("tiny.toml"), self.dir.path().join("out"));
        let arguments = ["bench", suite.to_str().unwrap(), "--out", out.to_str().unwrap()];
        longcast(&[&arguments, rest].concat())
    }

    pub fn records(&self) -> Vec<std::path::PathBuf> {
        let mut files: Vec<_> = fs::read_dir(self.dir.path().join("out/records/tiny"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
            .collect();
        files.sort();
        files
    }
}

#[test]
fn help_shows_the_commands_and_examples() {
    let help = longcast(&["--help"]).success();
    let text = String::from_utf8(help.get_output().stdout.clone()).unwrap();
    insta::assert_snapshot!(text);
}

#[test]
fn without_a_command_the_usage_is_shown() {
    longcast(&[]).code(2).stderr(contains("Usage"));
}

#[test]
fn evaluate_prints_the_record_as_json() {
    let output = evaluate(&["--model", "repeat", "--json"]).success();
    let record: Value = serde_json::from_slice(&output.get_output().stdout).unwrap();
    assert!(record["scores"]["mse"].as_f64().unwrap() > 0.0);
    assert!(record["scores"]["mae"].as_f64().unwrap() > 0.0);
    assert_eq!(record["windows_scored"], record["windows_possible"]);
    assert_eq!(record["task"]["model"], "repeat");
    assert!(record["scores"]["per_step"]["mse"].as_array().unwrap().len() == 12);
    assert_eq!(record["data"]["sha256"].as_str().unwrap().len(), 64);
}

#[test]
fn evaluate_says_the_same_number_twice() {
    let score = || {
        let output = evaluate(&["--model", "ridge", "--json"]).success();
        let record: Value = serde_json::from_slice(&output.get_output().stdout).unwrap();
        record["scores"].clone()
    };
    assert_eq!(score(), score());
}

#[test]
fn dropping_the_last_batch_scores_fewer_windows() {
    let output = evaluate(&["--model", "repeat", "--json", "--drop-last", "32"]).success();
    let record: Value = serde_json::from_slice(&output.get_output().stdout).unwrap();
    let scored = record["windows_scored"].as_u64().unwrap();
    assert!(scored.is_multiple_of(32) && scored < record["windows_possible"].as_u64().unwrap());
}

#[test]
fn unknown_names_are_wrong_usage_with_a_suggestion() {
    evaluate(&["--model", "repaet"]).code(2).stderr(contains("no model named 'repaet'; did you mean 'repeat'?"));
    evaluate(&["--model", "ridge", "--set", "penatly=1"])
        .code(2)
        .stderr(contains("ridge: unknown key 'penatly'; did you mean 'penalty'?"));
    longcast(&["evaluate", "--dataset", "Syntetic", "--model", "repeat", "--lookback", "8", "--horizon", "2"])
        .code(2)
        .stderr(contains("no data set named 'Syntetic'; did you mean 'Synthetic'?"));
    longcast(&["report", ".", "--format", "htlm"])
        .code(2)
        .stderr(contains("[possible values: md, csv, json, html, latex]"));
    longcast(&["data", "show", "ETTh3"]).code(2).stderr(contains("did you mean 'ETTh"));
}

#[test]
fn a_device_that_is_not_there_is_wrong_usage() {
    let typo = contains("no device named 'cdua'");
    evaluate(&["--model", "dlinear", "--device", "cdua"]).code(2).stderr(typo);
    #[cfg(not(feature = "cuda"))]
    evaluate(&["--model", "dlinear", "--device", "cuda"]).code(2).stderr(contains("build with --features cuda"));
}

#[test]
fn seeds_that_differ_are_shown_with_their_spread() {
    let suite = SUITE.replace("[[run]]", "seeds = [1, 2]\n[[run]]").replace("\"mean\"", "\"nlinear\"");
    let bench = Bench::new(&suite);
    let done = bench.run(&[]).success();
    let table = String::from_utf8(done.get_output().stdout.clone()).unwrap();
    let seeds = table.split("## Seeds").nth(1).expect("nlinear starts from a seed");
    assert!(seeds.contains("| nlinear | 2 "), "{seeds}");
    assert!(!seeds.contains("| repeat"), "{seeds}");
}

#[test]
fn a_data_set_has_one_name() {
    let run =
        ["evaluate", "--dataset", "SYNTHETIC", "--model", "repeat", "--lookback", "24", "--horizon", "6", "--json"];
    let record = longcast(&run).success().get_output().stdout.clone();
    let record: serde_json::Value = serde_json::from_slice(&record).unwrap();
    assert_eq!(record["task"]["dataset"], "Synthetic");
    let bench = Bench::new(&SUITE.replace("Synthetic", "synthetic"));
    let suite = bench.dir.path().join("tiny.toml");
    longcast(&["bench", suite.to_str().unwrap(), "--dry-run"]).code(2).stderr(contains("did you mean 'Synthetic'?"));
    longcast(&[&run[..], &["--split", "0.6,0.2,0.2"]].concat()).code(2).stderr(contains("as its manifest says"));
}

#[test]
fn a_horizon_of_zero_is_wrong_usage() {
    longcast(&["evaluate", "--dataset", "Synthetic", "--model", "repeat", "--lookback", "8", "--horizon", "0"])
        .code(2)
        .stderr(contains("must be at least 1"));
}

#[test]
fn too_few_rows_for_a_window_are_named() {
    longcast(&["evaluate", "--dataset", "AirPassengers", "--model", "repeat", "--lookback", "24", "--horizon", "30"])
        .code(1)
        .stderr(contains("too few for lookback 24 and horizon 30"));
}

fn etth1_in(folder: &str) -> Assert {
    let task = ["evaluate", "--dataset", "ETTh1", "--model", "repeat", "--lookback", "8", "--horizon", "2"];
    longcast(&[&task[..], &["--data", folder]].concat())
}

#[test]
fn a_set_that_is_not_here_says_how_to_get_it() {
    let empty = TempDir::new().unwrap();
    let folder = empty.path().to_str().unwrap();
    etth1_in(folder).code(1).stderr(contains("longcast data fetch ETTh1"));
}

#[test]
fn a_changed_file_is_refused_by_its_checksum() {
    let data = TempDir::new().unwrap();
    fs::create_dir(data.path().join("ETT-small")).unwrap();
    fs::write(data.path().join("ETT-small/ETTh1.csv"), "date,OT\n2020-01-01 00:00:00,1\n").unwrap();
    let folder = data.path().to_str().unwrap();
    etth1_in(folder).code(1).stderr(contains("sha256 is").and_also("ETTh1.csv"));
}

trait AndAlso {
    fn and_also(self, text: &str) -> predicates::boolean::AndPredicate<Self, predicates::str::ContainsPredicate, str>
    where
        Self: Sized + predicates::Predicate<str>;
}

impl AndAlso for predicates::str::ContainsPredicate {
    fn and_also(self, text: &str) -> predicates::boolean::AndPredicate<Self, predicates::str::ContainsPredicate, str> {
        predicates::prelude::PredicateBooleanExt::and(self, contains(text))
    }
}

#[test]
fn a_suite_runs_once_and_its_table_repeats() {
    let bench = Bench::new(SUITE);
    let first = bench.run(&[]).success().stderr(contains("4 recorded, 0 there already"));
    let second = bench.run(&[]).success().stderr(contains("0 recorded, 4 there already"));
    assert_eq!(first.get_output().stdout, second.get_output().stdout);
    assert_eq!(fs::read(bench.dir.path().join("out/tiny.md")).unwrap(), first.get_output().stdout);
    assert_eq!(bench.records().len(), 4);
}

#[test]
fn only_what_is_asked_for_is_run() {
    let bench = Bench::new(SUITE);
    bench.run(&["--only", "model=mean,horizon=12"]).success().stderr(contains("1 recorded"));
    bench.run(&[]).success().stderr(contains("3 recorded, 1 there already"));
    bench.run(&["--only", "model=maen"]).code(2).stderr(contains("no task of the suite matches"));
    bench.run(&["--only", "modle=mean"]).code(2).stderr(contains("did you mean 'model'?"));
}

#[test]
fn parts_of_a_suite_make_up_the_whole() {
    let whole = Bench::new(SUITE).run(&[]).success().get_output().stdout.clone();
    let bench = Bench::new(SUITE);
    for part in ["1/3", "2/3", "3/3"] {
        bench.run(&["--shard", part]).success();
    }
    let table = bench.run(&[]).success().stderr(contains("0 recorded, 4 there already")).get_output().stdout.clone();
    assert_eq!(table, whole);
    bench.run(&["--shard", "6/6"]).success().stderr(contains("nothing for part 6/6"));
    bench.run(&["--shard", "4/3"]).code(2).stderr(contains("\"4/3\" is no part"));
    bench.run(&["--shard", "auto"]).code(1).stderr(contains("SLURM_ARRAY_TASK_ID"));
}

#[test]
fn a_dry_run_runs_nothing() {
    let bench = Bench::new(SUITE);
    bench.run(&["--dry-run"]).success().stdout(contains("Synthetic × mean × 24→12"));
    assert!(!bench.dir.path().join("out").exists());
}

#[test]
fn a_dry_run_names_what_has_no_record_of_these_params_and_nothing_twice() {
    let suite = |rows: usize| {
        let again = SUITE.replace("12]", "]").replace("\"mean\"", "");
        format!("{SUITE}\n{again}\n[variants.mean]\nmodel = \"seasonal-naive\"\nparams = {{ period = {rows} }}\n")
    };
    let bench = Bench::new(&suite(6));
    bench.run(&["--dry-run"]).success().stderr(contains("4 would run, 0 recorded"));
    bench.run(&[]).success().stderr(contains("4 recorded"));
    bench.run(&["--dry-run"]).success().stdout("").stderr(contains("0 would run, 4 recorded"));

    let repeat = bench.records().into_iter().find(|path| path.to_string_lossy().contains("-repeat-24-6-")).unwrap();
    fs::write(repeat, "{}").unwrap();
    fs::write(bench.dir.path().join("tiny.toml"), suite(12)).unwrap();
    let left = "Synthetic × repeat × 24→6 · seed 2021\nSynthetic × mean × 24→6 · seed 2021\nSynthetic × mean × 24→12 · seed 2021\n";
    bench.run(&["--dry-run"]).success().stdout(left).stderr(contains("3 would run, 1 recorded"));
}

#[test]
fn a_truncated_record_is_named_and_made_again() {
    let bench = Bench::new(SUITE);
    let table = bench.run(&[]).success().get_output().stdout.clone();
    let record = &bench.records()[1];
    let whole = fs::read_to_string(record).unwrap();
    fs::write(record, &whole[..whole.len() / 2]).unwrap();
    let name = record.file_name().unwrap().to_str().unwrap().to_string();

    let folder = record.parent().unwrap().to_str().unwrap();
    longcast(&["report", folder]).code(1).stderr(contains(&name).and_also("not a whole record"));

    let again = bench.run(&[]).success().stderr(contains("1 recorded, 3 there already").and_also(&name));
    assert_eq!(again.get_output().stdout, table);
}

#[test]
fn a_record_of_other_params_is_set_aside() {
    let suite = |rows: usize| {
        format!("{SUITE}\n[variants.seasonal]\nmodel = \"seasonal-naive\"\nparams = {{ period = {rows} }}\n")
            .replace("\"mean\"", "\"seasonal\"")
    };
    let bench = Bench::new(&suite(6));
    bench.run(&[]).success().stderr(contains("4 recorded"));
    fs::write(bench.dir.path().join("tiny.toml"), suite(12)).unwrap();
    bench.run(&[]).success().stderr(contains("2 recorded, 2 there already"));
    assert_eq!(bench.records().len(), 4);
    assert_eq!(fs::read_dir(bench.dir.path().join("out/records/tiny/superseded")).unwrap().count(), 2);
}

#[test]
fn the_lock_file_pins_data_and_version() {
    let bench = Bench::new(SUITE);
    bench.run(&["--locked"]).code(1).stderr(contains("there is no lock.toml"));
    let table = bench.run(&[]).success().get_output().stdout.clone();
    let path = bench.dir.path().join("out/records/tiny/lock.toml");
    let lock = fs::read_to_string(&path).unwrap();
    assert!(lock.contains(env!("CARGO_PKG_VERSION")) && lock.contains("[data.Synthetic]"), "{lock}");
    let kept = bench.run(&["--locked"]).success().stderr(contains("0 recorded, 4 there already"));
    assert_eq!(kept.get_output().stdout, table);

    let line = lock.lines().find(|line| line.starts_with("sha256")).unwrap();
    fs::write(&path, lock.replace(line, "sha256 = \"0123456789abcdef\"")).unwrap();
    let refused = "the data of Synthetic is not what lock.toml is of";
    bench.run(&["--locked"]).code(1).stderr(contains(refused));
    fs::write(&path, lock.replace(line, "sha256 = \"0123456789abcdef\"")).unwrap();
    bench.run(&[]).success().stderr(contains(refused).and_also("its tasks run anew"));
    assert_eq!(fs::read_to_string(&path).unwrap(), lock);

    fs::write(&path, lock.replace(env!("CARGO_PKG_VERSION"), "0.0.1")).unwrap();
    bench.run(&["--locked"]).code(1).stderr(contains("lock.toml is of version 0.0.1"));
    fs::write(&path, "version = 1").unwrap();
    bench.run(&[]).code(1).stderr(contains("lock.toml"));
}

#[test]
fn an_output_folder_that_cannot_be_written_is_found_before_any_work() {
    let bench = Bench::new(SUITE);
    let file = bench.dir.path().join("out");
    fs::write(&file, "a file, not a folder").unwrap();
    bench.run(&[]).code(1).stderr(contains("cannot make the folder"));
    assert_eq!(fs::read_to_string(&file).unwrap(), "a file, not a folder");
}

#[test]
fn a_task_that_fails_is_named_and_the_others_run() {
    let bench = Bench::new(&SUITE.replace("\"mean\"", "\"mean\", \"seasonal-naive\"").replace("24", "10"));
    bench
        .run(&[])
        .code(1)
        .stderr(contains("4 recorded, 0 there already, 2 failed").and_also("a season of 24 steps does not fit"));
}

#[test]
fn a_suite_with_a_mistake_names_it() {
    Bench::new("about = 1").run(&[]).code(1).stderr(contains("tiny.toml: line 1"));
    Bench::new(&SUITE.replace("models", "modles")).run(&[]).code(1).stderr(contains("did you mean 'models'?"));
    Bench::new(&SUITE.replace("\"mean\"", "\"maen\"")).run(&[]).code(2).stderr(contains("did you mean 'mean'?"));
    longcast(&["bench", "no-such.toml"]).code(1).stderr(contains("no-such.toml: cannot read"));
}

#[test]
fn a_report_is_made_again_in_any_format() {
    let bench = Bench::new(SUITE);
    let table = bench.run(&[]).success().get_output().stdout.clone();
    let folder = bench.dir.path().join("out/records/tiny");
    let folder = folder.to_str().unwrap();
    assert_eq!(longcast(&["report", folder]).success().get_output().stdout, table);
    longcast(&["report", folder, "--format", "csv"]).success().stdout(contains("Synthetic,mean,24,12,2021"));
    let json = longcast(&["report", folder, "--format", "json"]).success();
    let json: Value = serde_json::from_slice(&json.get_output().stdout).unwrap();
    assert_eq!(json["series"]["models"], serde_json::json!(["repeat", "mean"]));
    longcast(&["report", "no-such-folder"]).code(1).stderr(contains("no-such-folder"));
}

#[test]
fn a_page_holds_one_suite_or_all_of_a_folder() {
    let bench = Bench::new(SUITE);
    bench.run(&[]).success();
    let out = bench.dir.path().join("out");
    let page = |folder: &Path| {
        let done = longcast(&["report", folder.to_str().unwrap(), "--format", "html"]).success();
        String::from_utf8(done.get_output().stdout.clone()).unwrap()
    };
    let one = page(&out.join("records/tiny"));
    assert_eq!(one.matches("<section class=\"suite\"").count(), 1);
    assert_eq!(fs::read_to_string(out.join("tiny.html")).unwrap(), one, "bench writes the same page");
    fs::create_dir(out.join("records/other")).unwrap();
    for file in bench.records() {
        fs::copy(&file, out.join("records/other").join(file.file_name().unwrap())).unwrap();
    }
    let both = page(&out.join("records"));
    assert_eq!(both.matches("<section class=\"suite\"").count(), 2);
    assert!(both.contains("data-suite=\"other\"") && both.contains("data-suite=\"tiny\""));
    assert_eq!(page(&out.join("records")), both);
    let missing = contains("no-such-folder: cannot read the folder");
    longcast(&["report", "no-such-folder", "--format", "html"]).code(1).stderr(missing.clone());
    longcast(&["report", "no-such-folder"]).code(1).stderr(missing);
    let nothing = TempDir::new().unwrap();
    longcast(&["report", nothing.path().to_str().unwrap(), "--format", "html"])
        .code(1)
        .stderr(contains("longcast bench"));
}

#[test]
fn charts_are_written_as_files() {
    let bench = Bench::new(SUITE);
    bench.run(&[]).success();
    let (records, charts) = (bench.dir.path().join("out/records"), bench.dir.path().join("charts"));
    let plot = ["report", records.to_str().unwrap(), "--plot", charts.to_str().unwrap()];
    longcast(&plot).success().stderr(contains("7 charts in")).stdout("");
    // Two test windows of each horizon.
    assert!(charts.join("tiny-forecasts-Synthetic-24-6-2.svg").is_file());
    let steps = fs::read_to_string(charts.join("tiny-steps-Synthetic-24-12.svg")).unwrap();
    assert!(steps.starts_with("<svg xmlns=") && steps.contains("<title>Synthetic, 24 → 12</title>"), "{steps}");
    assert!(charts.join("tiny-time-Synthetic-24.svg").is_file());
    longcast(&[&plot[..], &["--format", "csv"]].concat()).code(2).stderr(contains("cannot be used with"));
}

#[test]
fn models_are_listed_with_their_params() {
    longcast(&["models"]).success().stdout(contains("seasonal-naive"));
    longcast(&["models", "seasonal-naive"]).success().stdout(contains("period = 0"));
    longcast(&["models", "--json"]).success().stdout(contains("\"name\": \"repeat\""));
}

#[test]
fn completions_are_printed() {
    longcast(&["completions", "bash"]).success().stdout(contains("_longcast"));
}

#[test]
fn a_forecaster_from_outside_is_known_to_the_whole_program() {
    // Examples are built beside the program, in a folder of their own.
    let program = assert_cmd::cargo::cargo_bin("longcast");
    let example = program.parent().unwrap().join("examples/custom_forecaster");
    if !Path::new(&example).exists() {
        eprintln!("skipped: examples are not built");
        return;
    }
    let run = |arguments: &[&str]| Command::new(&example).args(arguments).assert();
    run(&[TASK, &["--model", "median", "--set", "rows=12", "--json"]].concat())
        .success()
        .stdout(contains("\"rows\": 12"));
    run(&["models"]).success().stdout(contains("the median of the latest rows"));
    let bench = Bench::new(&SUITE.replace("\"mean\"", "\"median\""));
    let (suite, out) = (bench.dir.path().join("tiny.toml"), bench.dir.path().join("out"));
    run(&["bench", suite.to_str().unwrap(), "--out", out.to_str().unwrap()]).success().stdout(contains("median"));
}

#[test]
fn a_file_of_ones_own_is_scored_with_the_remedies_asked_for() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("load.csv");
    let rows: String = (0..60)
        .map(|day| {
            let load = if day == 10 { String::new() } else { (day % 7).to_string() };
            format!("2024-{:02}-{:02},{load}\n", 1 + day / 28, 1 + day % 28)
        })
        .collect();
    fs::write(&path, format!("date,load\n{rows}")).unwrap();
    let task = ["evaluate", "--dataset", path.to_str().unwrap(), "--model", "seasonal-naive", "--set", "period=7"];
    let sizes = ["--lookback", "14", "--horizon", "3"];
    longcast(&[&task[..], &sizes].concat()).code(1).stderr(contains("load.csv: line 12").and_also("--fill"));
    longcast(&[&task[..], &sizes, &["--fill", "linear"]].concat()).success().stdout(contains("scaled MSE   0.00000"));
    longcast(&["data", "check", path.to_str().unwrap()]).code(1).stdout(contains("--fill"));
    longcast(&["data", "check", path.to_str().unwrap(), "--json"]).code(1).stdout(contains("\"remedy\""));
}

#[test]
fn a_set_that_is_not_here_is_said_once_and_its_tasks_fail() {
    let bench = Bench::new(&SUITE.replace("[\"Synthetic\"]", "[\"ETTh1\", \"Synthetic\"]"));
    let folder = bench.dir.path().to_str().unwrap();
    let run = bench.run(&["--data", folder]).code(1).stderr(contains("4 recorded, 0 there already, 4 failed"));
    let text = String::from_utf8(run.get_output().stderr.clone()).unwrap();
    assert_eq!(text.matches("longcast data fetch ETTh1").count(), 1, "{text}");
}

#[cfg(unix)]
#[test]
fn an_interrupted_run_leaves_whole_records_and_goes_on() {
    let suite = SUITE.replace("\"mean\"", "\"elastic-net\"").replace("lookback = 24", "lookback = 96");
    let bench = Bench::new(&suite.replace("[6, 12]", "[6, 12, 24, 48]"));
    let (suite, out) = (bench.dir.path().join("tiny.toml"), bench.dir.path().join("out"));
    let mut child = std::process::Command::new(assert_cmd::cargo::cargo_bin("longcast"))
        .args(["bench", suite.to_str().unwrap(), "--out", out.to_str().unwrap()])
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    std::thread::sleep(std::time::Duration::from_millis(300));
    Command::new("kill").args(["-INT", &child.id().to_string()]).assert().success();
    let code = child.wait().unwrap().code();
    assert!(matches!(code, Some(130 | 0)), "{code:?}");
    bench.run(&[]).success().stderr(contains(", 0 failed"));
    assert_eq!(bench.records().len(), 8);
    for record in bench.records() {
        serde_json::from_str::<Value>(&fs::read_to_string(record).unwrap()).unwrap();
    }
}
