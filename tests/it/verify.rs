//! `longcast verify`: a record is what a run gives, to the last bit, or it is said what is not.

use std::{fs, path::Path};

use predicates::{prelude::PredicateBooleanExt, str::contains};
use serde_json::Value;

use super::cli::{Bench, SUITE, longcast};

fn ran() -> Bench {
    let bench = Bench::new(&SUITE.replace("\"mean\"", "\"mean\", \"dlinear\"").replace("24", "48"));
    bench.run(&[]).success();
    bench
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Writes the record anew with one field changed.
fn change(record: &Path, field: &str, change: impl Fn(&mut Value)) {
    let mut value: Value = serde_json::from_str(&fs::read_to_string(record).unwrap()).unwrap();
    let field = value.pointer_mut(field).unwrap();
    let before = field.clone();
    change(field);
    assert_ne!(*field, before);
    fs::write(record, value.to_string()).unwrap();
}

#[test]
fn what_was_run_gives_the_same_again_on_any_number_of_threads() {
    let bench = ran();
    let folder = bench.dir.path().join("out");
    longcast(&["verify", text(&folder)]).success().stderr(contains("6 the same, 0 within tolerance, 0 differ"));
    let mut one_thread = assert_cmd::Command::cargo_bin("longcast").unwrap();
    let again = one_thread.args(["verify", text(&folder)]).env("RAYON_NUM_THREADS", "1").assert();
    again.success().stderr(contains("6 the same"));
}

#[test]
fn a_changed_digit_is_found_and_named() {
    let bench = ran();
    let records = bench.records();
    let nudge = |value: &mut Value| *value = Value::from(value.as_f64().unwrap() * (1.0 + 1e-15));
    change(&records[0], "/scores/per_step/mae/3", nudge);
    change(&records[1], "/data/rows", |rows| *rows = Value::from(rows.as_u64().unwrap() + 1));
    let hash = |value: &mut Value| *value = Value::from(value.as_str().unwrap().replace(['1', '2', '3'], "0"));
    change(&records[2], "/scores/forecasts", hash);
    longcast(&["verify", text(&bench.dir.path().join("out"))])
        .code(1)
        .stderr(contains("3 the same, 0 within tolerance, 3 differ"))
        .stdout(contains("scores.per_step.mae[3]: ").and(contains("data.rows: ")).and(contains("scores.forecasts: ")));
    longcast(&["verify", text(&records[0]), "--tolerance", "1e-12"]).success().stdout(contains("close "));
    longcast(&["verify", text(&records[1]), "--tolerance", "1e-12"]).code(1).stdout(contains("data.rows: "));
}

#[test]
fn a_changed_setting_is_found_by_what_it_gives_or_by_the_name() {
    let bench = ran();
    let records = bench.records();
    let dlinear = records.iter().find(|record| text(record).contains("dlinear-48-6-")).unwrap();
    change(dlinear, "/task/params/training/learning_rate", |rate| *rate = Value::from(2.0 * rate.as_f64().unwrap()));
    longcast(&["verify", text(dlinear)])
        .code(1)
        .stdout(contains("name of the file: ").or(contains("more")).and(contains("curve[0].")));
}

#[test]
fn what_cannot_be_run_is_no_success() {
    let bench = ran();
    let records = bench.records();
    let whole = fs::read_to_string(&records[0]).unwrap();
    fs::write(&records[0], &whole[..whole.len() / 2]).unwrap();
    change(&records[1], "/task/dataset", |name| *name = Value::from("Nowhere"));
    longcast(&["verify", text(&bench.dir.path().join("out"))])
        .code(1)
        .stderr(contains("4 the same, 0 within tolerance, 0 differ, 2 could not be run"))
        .stdout(contains("not a whole record").and(contains("Nowhere")));
    longcast(&["verify", text(&bench.dir.path().join("no-such.json"))]).code(1).stdout(contains("cannot read"));
    let empty = bench.dir.path().join("empty");
    fs::create_dir(&empty).unwrap();
    longcast(&["verify", text(&empty)]).code(2).stderr(contains("no record is there"));
}

#[test]
fn a_sample_is_taken_evenly_and_findings_are_json_on_request() {
    let bench = ran();
    let folder = bench.dir.path().join("out");
    let sample = longcast(&["verify", text(&folder), "--sample", "2", "--json"]).success();
    let findings: Value = serde_json::from_slice(&sample.get_output().stdout).unwrap();
    let findings = findings.as_array().unwrap();
    assert_eq!(findings.len(), 2);
    assert!(findings.iter().all(|finding| finding["outcome"] == "same"));
    assert_eq!(findings[0]["record"].as_str().unwrap(), text(&bench.records()[1]));
    longcast(&["verify", text(&folder), "--at-most", "1e-9"]).code(2);
    longcast(&["verify", text(&folder), "--tolerance=-1"]).code(2).stderr(contains("a share"));
}
