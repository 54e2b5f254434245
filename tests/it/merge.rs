//! `longcast bench merge`: several results folders become one, and nothing is lost or glossed over.

use std::{
    fs,
    path::{Path, PathBuf},
};

use assert_cmd::assert::Assert;
use predicates::{prelude::*, str::contains};
use serde_json::Value;
use tempfile::TempDir;

use crate::cli::{SUITE, longcast};

/// Results folders of one suite below a folder of their own.
struct Folders {
    dir: TempDir,
}

impl Folders {
    fn new(suite: &str) -> Self {
        let folders = Self { dir: TempDir::new().unwrap() };
        folders.write_suite(suite);
        folders
    }

    fn write_suite(&self, suite: &str) {
        fs::write(self.path("tiny.toml"), suite).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_string()
    }

    /// Runs a part of the suite, such as 1/2, into the folder `out`.
    fn bench(&self, out: &str, part: &str) -> Assert {
        longcast(&["bench", &self.text("tiny.toml"), "--out", &self.text(out), "--shard", part])
    }

    fn merge(&self, from: &[&str], into: &str) -> Assert {
        let from: Vec<String> = from.iter().map(|name| self.text(name)).collect();
        let mut arguments = vec!["bench", "merge"];
        arguments.extend(from.iter().map(String::as_str));
        let into = self.text(into);
        longcast(&[&arguments[..], &["--into", &into]].concat())
    }

    /// The records of the results folder `out`, in the order of their names.
    fn records(&self, out: &str) -> Vec<PathBuf> {
        let folder = self.path(out).join("records/tiny");
        let mut files: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
        files.sort();
        files
    }
}

/// Changes one field of a record, and nothing else.
fn change(record: &Path, field: &str, value: Value) {
    let mut whole: Value = serde_json::from_str(&fs::read_to_string(record).unwrap()).unwrap();
    *whole.pointer_mut(field).expect("the record has this field") = value;
    fs::write(record, serde_json::to_string(&whole).unwrap()).unwrap();
}

fn same_named(record: &Path, others: &[PathBuf]) -> PathBuf {
    others.iter().find(|other| other.file_name() == record.file_name()).unwrap().clone()
}

#[test]
fn parts_in_folders_of_their_own_make_up_the_whole() {
    let folders = Folders::new(SUITE);
    let table = folders.bench("whole", "1/1").success().get_output().stdout.clone();
    folders.bench("one", "1/2").success();
    folders.bench("two", "2/2").success();

    let merged = folders.merge(&["one", "two"], "all").success();
    assert_eq!(merged.get_output().stdout, table);
    assert_eq!(fs::read(folders.path("all/tiny.md")).unwrap(), table);
    for file in ["suite.toml", "lock.toml"] {
        let path = |out: &str| folders.path(out).join("records/tiny").join(file);
        assert_eq!(fs::read_to_string(path("all")).unwrap(), fs::read_to_string(path("whole")).unwrap(), "{file}");
    }
    // What was merged is not run again.
    folders.bench("all", "1/1").success().stderr(contains("0 recorded, 4 there already"));
    // Records are copied as they are, seconds and machine included.
    for record in folders.records("one") {
        assert_eq!(fs::read(&record).unwrap(), fs::read(same_named(&record, &folders.records("all"))).unwrap());
    }
    folders.merge(&["one", "two"], "all").success().stderr(contains("0 copied, 4 there already"));
    folders.merge(&["all"], "all").success().stderr(contains("0 copied, 4 there already"));
    folders.merge(&["one/records/tiny", "two/records/tiny"], "again").success().stderr(contains("4 copied"));
}

#[test]
fn tasks_without_a_record_are_named() {
    let folders = Folders::new(SUITE);
    folders.bench("one", "1/4").success();
    folders.bench("two", "2/4").success();
    folders
        .merge(&["one", "two"], "all")
        .code(1)
        .stderr(contains("longcast: missing: Synthetic × ").count(2).and(contains(" · seed 2021")))
        .stdout(contains("## Scores"));
}

#[test]
fn what_failed_in_a_part_has_failed_in_the_whole() {
    let wild = "seeds = [1, 2]\n[variants.wild]\nmodel = \"dlinear\"\n\
        params = { training = { learning_rate = 1e300 } }\n\
        [[run]]\ndatasets = [\"Synthetic\"]\nmodels = [\"repeat\", \"wild\"]\nlookback = 12\nhorizons = [6]\n";
    let folders = Folders::new(wild);
    folders.bench("one", "1/2").code(1);
    folders.bench("two", "2/2").code(1);
    let merged = folders.merge(&["one", "two"], "all").code(1);
    let table = String::from_utf8(merged.get_output().stdout.clone()).unwrap();
    let row = table.lines().find(|line| line.starts_with("| Synthetic")).unwrap();
    assert!(row.contains("failed") && table.contains("seed 1: ") && table.contains("seed 2: "), "{table}");
}

#[test]
fn two_records_of_one_task_that_differ_are_refused() {
    let folders = Folders::new(SUITE);
    folders.bench("one", "1/1").success();
    folders.bench("two", "1/1").success();
    let (first, second) = (&folders.records("one")[1], &folders.records("two")[1]);
    change(second, "/scores/mse", Value::from(0.125));
    let alarm = || {
        let named = contains(first.to_str().unwrap()).and(contains(second.to_str().unwrap()));
        contains("ALARM").and(named).and(contains("scores.mse: ")).and(contains("0.125 in the other"))
    };
    folders.merge(&["one", "two"], "all").code(1).stderr(alarm().and(contains("3 copied")));
    assert!(folders.records("all").iter().all(|record| record.file_name() != first.file_name()));

    // What stands there is not overwritten.
    let before = fs::read(first).unwrap();
    folders.merge(&["two"], "one").code(1).stderr(alarm().and(contains("0 copied, 3 there already, 1 in conflict")));
    assert_eq!(fs::read(first).unwrap(), before);
}

#[test]
fn records_of_one_task_with_other_inputs_are_refused() {
    let variant = |period: usize| {
        format!("{SUITE}\n[variants.mean]\nmodel = \"seasonal-naive\"\nparams = {{ period = {period} }}\n")
    };
    let folders = Folders::new(&variant(6));
    folders.bench("one", "1/1").success();
    folders.write_suite(&variant(12));
    folders.bench("two", "1/1").success();
    // The text of both suites is made the same, as where only a preset or the data has changed.
    fs::copy(folders.path("one/records/tiny/suite.toml"), folders.path("two/records/tiny/suite.toml")).unwrap();
    folders
        .merge(&["one", "two"], "all")
        .code(1)
        .stderr(contains("2 in conflict").and(contains("task.params.period: 6 in one, 12 in the other")));
    assert_eq!(folders.records("all").len(), 2);
    // A record of other params than those of the suite is none of its tasks.
    folders.merge(&["two"], "two").code(1).stderr(contains("is of other params").count(2));
}

#[test]
fn of_records_with_the_same_numbers_the_first_is_kept() {
    let folders = Folders::new(SUITE);
    folders.bench("one", "1/1").success();
    folders.bench("two", "1/1").success();
    for record in folders.records("two") {
        change(&record, "/seconds/fit", Value::from(1e6));
        change(&record, "/machine/cpu", Value::from("another"));
    }
    folders.merge(&["one", "two"], "all").success().stderr(contains("4 copied, 0 there already, 0 in conflict"));
    for record in folders.records("one") {
        assert_eq!(fs::read(&record).unwrap(), fs::read(same_named(&record, &folders.records("all"))).unwrap());
    }
}

#[test]
fn folders_of_other_suites_are_refused() {
    let folders = Folders::new(SUITE);
    folders.bench("one", "1/1").success();
    folders.write_suite(&SUITE.replace("12", "9"));
    folders.bench("two", "1/1").success();
    let refused = contains("two/records/tiny/suite.toml: another suite than ").and(contains("one/records/tiny"));
    folders.merge(&["one", "two"], "all").code(1).stderr(refused);
    assert!(!folders.path("all").exists());
    folders.merge(&["one"], "two").code(1).stderr(contains("another suite"));

    folders.merge(&["nowhere"], "all").code(1).stderr(contains("nowhere").and(contains("no results folder")));
    fs::create_dir_all(folders.path("one/records/more")).unwrap();
    fs::copy(folders.path("one/records/tiny/suite.toml"), folders.path("one/records/more/suite.toml")).unwrap();
    folders.merge(&["one"], "all").code(1).stderr(contains("records of 2 suites: name one"));
}

#[test]
fn what_is_no_whole_record_is_named_and_not_merged() {
    let folders = Folders::new(SUITE);
    folders.bench("one", "1/1").success();
    let records = folders.records("one");
    let whole = fs::read_to_string(&records[0]).unwrap();
    fs::write(&records[0], &whole[..whole.len() / 2]).unwrap();
    // Its name says what went in; a record of other inputs does not get past it.
    change(&records[1], "/data/sha256", Value::from("0123456789abcdef"));
    folders
        .merge(&["one"], "all")
        .code(1)
        .stderr(contains("not a whole record").and(contains("what it holds is named ")).and(contains("2 missing")));
    assert_eq!(folders.records("all").len(), 2);
}

#[test]
fn a_suite_runs_as_before_beside_the_commands() {
    longcast(&["bench"]).code(2).stderr(contains("<SUITE>"));
    longcast(&["bench", "merge", "one"]).code(2).stderr(contains("--into"));
    longcast(&["bench", "merge", "--into", "all"]).code(2).stderr(contains("<DIR>"));
    longcast(&["bench", "no-such.toml", "merge"]).code(2).stderr(contains("merge"));
}
