//! `longcast bench submit`: what it prints is taken by bash and read as YAML, and says what was asked for.

use std::fs;

use assert_cmd::Command;
use predicates::{prelude::*, str::contains};
use serde_json::Value;
use tempfile::TempDir;

use crate::cli::{SUITE, longcast};

const KUBERNETES: &[&str] = &["--kubernetes", "--image", "longcast:0.1", "--claim", "results"];

/// What is printed for the suite `tiny.toml`, run in its folder.
fn submit(rest: &[&str]) -> String {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("tiny.toml"), SUITE).unwrap();
    let arguments = [&["bench", "submit", "tiny.toml", "--jobs", "4"], rest].concat();
    let printed = Command::cargo_bin("longcast").unwrap().args(arguments).current_dir(dir.path()).assert().success();
    String::from_utf8(printed.get_output().stdout.clone()).unwrap()
}

/// The documents of a manifest.
fn documents(manifest: &str) -> Vec<Value> {
    serde_saphyr::from_multiple(manifest).unwrap()
}

fn without_version(text: &str) -> String {
    text.replace(env!("CARGO_PKG_VERSION"), "VERSION")
}

#[test]
fn a_script_for_slurm_is_printed() {
    insta::assert_snapshot!(without_version(&submit(&["--slurm", "--data", "datasets"])));
}

#[test]
fn a_manifest_for_kubernetes_is_printed() {
    insta::assert_snapshot!(without_version(&submit(&[KUBERNETES, &["--data-claim", "datasets"]].concat())));
}

/// Words that a shell, YAML or Kubernetes would take for something else.
const ODD: &[&str] = &["--out", "it's $(pwd) & \"more\"", "--data", "yes", "--", "--only", "model=$HOME,model=`ls`"];

#[test]
fn bash_takes_the_script_and_every_word_reaches_the_program() {
    let dir = TempDir::new().unwrap();
    let script = submit(&[&["--slurm", "--separate", "--program", "./my program"], ODD].concat());
    fs::write(dir.path().join("jobs.sh"), &script).unwrap();
    Command::new("bash").args(["-n", "jobs.sh"]).current_dir(dir.path()).assert().success();
    let program = dir.path().join("my program");
    fs::write(&program, "#!/bin/bash\nprintf '%s\\n' \"$LONGCAST_SHARDS $LONGCAST_FIRST_INDEX\" \"$@\"\n").unwrap();
    Command::new("chmod").arg("+x").arg(&program).assert().success();
    let said = Command::new("bash")
        .arg("jobs.sh")
        .current_dir(dir.path())
        .env("SLURM_ARRAY_TASK_ID", "3")
        .env_remove("SLURM_CPUS_PER_TASK")
        .assert()
        .success();
    let words = [
        "4 0",
        "bench",
        "tiny.toml",
        "--shard",
        "auto",
        "--data",
        "yes",
        "--only",
        "model=$HOME,model=`ls`",
        "--out",
        "it's $(pwd) & \"more\"/part-3",
    ];
    assert_eq!(String::from_utf8(said.get_output().stdout.clone()).unwrap(), words.join("\n") + "\n");
}

#[test]
fn the_manifest_holds_the_suite_and_every_word() {
    let documents = documents(&submit(&[KUBERNETES, &["--separate"], ODD].concat()));
    assert_eq!(documents[0]["data"]["tiny.toml"], SUITE);
    let pod = &documents[1]["spec"]["template"]["spec"];
    let words = [
        "bench",
        "/suite/tiny.toml",
        "--shard",
        "auto",
        "--data",
        "yes",
        "--only",
        "model=$$HOME,model=`ls`",
        "--out",
        "it's $$(pwd) & \"more\"/part-$(JOB_COMPLETION_INDEX)",
    ];
    assert_eq!(pod["containers"][0]["args"], serde_json::json!(words));
    assert_eq!(pod["containers"][0]["env"][0], serde_json::json!({"name": "LONGCAST_SHARDS", "value": "4"}));
    assert_eq!(documents[1]["spec"]["completions"], 4);
}

#[test]
fn what_a_job_could_not_do_is_found_before_it_is_sent() {
    let dir = TempDir::new().unwrap();
    let suite = |name: &str, text: &str| {
        fs::write(dir.path().join(name), text).unwrap();
        dir.path().join(name).to_str().unwrap().to_string()
    };
    let refused = |suite: &str, rest: &[&str], reason: &str| {
        longcast(&[&["bench", "submit", suite], rest].concat()).code(2).stderr(contains(reason)).stdout("");
    };
    let (tiny, slurm) = (suite("tiny.toml", SUITE), ["--slurm", "--jobs", "4"]);
    refused(&tiny, &[&slurm[..], &["--", "--lokced"]].concat(), "'--lokced'");
    refused(&tiny, &[&slurm[..], &["--out", "a\nb"]].concat(), "plain text");
    refused(&tiny, &[&slurm[..], &["--", "--only", "a\n=b"]].concat(), "control character");
    refused(&tiny, &["--slurm", "--jobs", "0"], "'0'");
    refused(&tiny, &["--jobs", "4"], "--slurm");
    refused(&tiny, &[KUBERNETES, &slurm].concat(), "cannot be used with");
    refused(&tiny, &["--kubernetes", "--jobs", "4"], "--image");
    refused(&tiny, &[&slurm[..], &["--image", "x"]].concat(), "--kubernetes");
    refused(&suite("t w o.toml", SUITE), &slurm, "call the suite by letters");
    refused(&suite("typo.toml", &SUITE.replace("mean", "maen")), &slurm, "did you mean 'mean'?");
    longcast(&["bench", "submit", &tiny, "--slurm", "--jobs", "9"])
        .success()
        .stderr(contains("9 jobs for 4 tasks").and(contains("nothing to do")));
}
