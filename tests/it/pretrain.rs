//! One model on many data sets, and what starts from its weights.

use std::{fs, ops::ControlFlow, path::Path, time::Duration};

use assert_cmd::{Command, assert::Assert};
use longcast::{
    Error,
    benchmark::{Event, Prepared, PretrainPlan, Protocol, pretrain as pretrain_on},
    data::Catalogue,
    forecaster::{Device, Params},
    models::builtin,
};
use predicates::{prelude::PredicateBooleanExt, str::contains};
use serde_json::Value;
use tempfile::TempDir;

fn longcast(arguments: &[&str]) -> Assert {
    Command::cargo_bin("longcast").unwrap().args(arguments).env_remove("LONGCAST_DATA").assert()
}

const SMALL: [&str; 12] = [
    "--model",
    "gpht",
    "--set",
    "network.token=6",
    "--set",
    "network.pooling=[2, 1]",
    "--set",
    "network.d_model=16",
    "--set",
    "network.d_ff=16",
    "--set",
    "network.heads=2",
];

fn pretrain(dir: &Path, rest: &[&str]) -> Assert {
    let fixed = [
        "pretrain",
        "--lookback",
        "24",
        "--horizon",
        "6",
        "--save",
        dir.to_str().unwrap(),
        "--set",
        "training.epochs=2",
    ];
    longcast(&[&fixed, &SMALL[..], rest].concat())
}

fn evaluate(dir: &Path, rest: &[&str]) -> Assert {
    let fixed = ["evaluate", "--lookback", "24", "--init", dir.to_str().unwrap(), "--json"];
    longcast(&[&fixed, &SMALL[..], rest].concat())
}

fn json(assert: &Assert) -> Value {
    serde_json::from_slice(&assert.get_output().stdout).unwrap()
}

#[test]
fn weights_of_many_sets_serve_another_one_at_any_horizon() {
    let folder = TempDir::new().unwrap();
    let dir = folder.path().join("models/air");
    let kept = json(&pretrain(&dir, &["--datasets", "AirPassengers", "--json"]).success());
    // 96 training rows, a lookback of 24 and a token of 6.
    assert_eq!(kept["datasets"][0]["samples_train"], 96 - 24 - 6 + 1);
    assert_eq!((kept["datasets"][0]["variates"].clone(), kept["curve"].as_array().unwrap().len()), (1.into(), 2));

    for horizon in ["24", "96", "300"] {
        let task = ["--dataset", "Synthetic", "--horizon", horizon, "--zero-shot"];
        let record = json(&evaluate(&dir, &task).success());
        assert_eq!(record["task"]["init"]["datasets"], serde_json::json!(["AirPassengers"]));
        assert_eq!(record["task"]["init"]["weights"], kept["weights"]);
        assert_eq!(
            (record["task"]["learning"].clone(), record["windows_train"].clone()),
            ("zero-shot".into(), 0.into())
        );
    }

    // What it has learnt from is no zero shot, whatever is said; as it is, it may be scored.
    let seen = ["--dataset", "AirPassengers", "--horizon", "6"];
    evaluate(&dir, &[&seen[..], &["--zero-shot"]].concat())
        .code(1)
        .stderr(contains("it has learnt from AirPassengers"));
    evaluate(&dir, &[&seen[..], &["--as-is"]].concat()).success();

    // With some windows it learns something.
    let few = ["--dataset", "Synthetic", "--horizon", "24", "--set", "training.epochs=1"];
    let zero = json(&evaluate(&dir, &[&few[..], &["--zero-shot"]].concat()).success());
    let shot = json(&evaluate(&dir, &[&few[..], &["--few-shot", "5%"]].concat()).success());
    let all = json(&evaluate(&dir, &few).success());
    let windows = all["windows_train"].as_u64().unwrap();
    assert_eq!(shot["windows_train"].as_u64().unwrap(), windows * 5 / 100);
    let mse = |record: &Value| record["scores"]["mse"].as_f64().unwrap();
    assert!(mse(&zero) > mse(&shot) && mse(&shot) > mse(&all), "{} {} {}", mse(&zero), mse(&shot), mse(&all));

    // The folder is not written over, and weights that changed since are refused.
    pretrain(&dir, &["--datasets", "Synthetic"]).code(1).stderr(contains("there already"));
    let weights = dir.join("weights.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&weights, bytes).unwrap();
    evaluate(&dir, &seen).code(1).stderr(contains("its weights are not those"));
}

#[test]
fn sets_are_pretrained_on_together_and_the_same_seed_gives_the_same_weights() {
    let folder = TempDir::new().unwrap();
    let together = |name: &str, rest: &[&str]| {
        let sets = ["--datasets", "AirPassengers,Synthetic", "--json", "--set", "training.epoch_windows=200"];
        json(&pretrain(&folder.path().join(name), &[&sets[..], rest].concat()).success())
    };
    let (one, again) = (together("one", &[]), together("again", &[]));
    assert_eq!(one["datasets"][1]["name"], "Synthetic");
    assert_eq!(one["weights"], again["weights"]);
    assert_ne!(one["weights"], together("balanced", &["--balanced"])["weights"]);
    assert_ne!(one["weights"], together("seed", &["--seed", "7"])["weights"]);
}

#[test]
fn what_was_interrupted_goes_on_to_the_same_weights() {
    let (folder, models) = (TempDir::new().unwrap(), builtin());
    let mut params = Params::default();
    for setting in SMALL.iter().skip(3).step_by(2).chain(&["training.epochs=3"]) {
        params.set(setting).unwrap();
    }
    let plan = PretrainPlan {
        model: "gpht".into(),
        preset: None,
        params,
        lookback: 24,
        horizon: 6,
        seed: 1,
        device: Device::Cpu,
        checkpoint_after: Duration::ZERO,
    };
    let catalogue = Catalogue::new(None).unwrap();
    let sets = [Prepared::open(&catalogue, "AirPassengers", &Protocol::default()).unwrap()];
    let run = |plan: &PretrainPlan, name: &str, epochs: usize| {
        let mut heard = Vec::new();
        let mut hear = |event: Event<'_>| match event {
            Event::Epoch(report) => {
                heard.push(report.epoch);
                if heard.len() < epochs { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            }
            _ => ControlFlow::Continue(()),
        };
        let result = pretrain_on(&models, plan, &sets, &folder.path().join(name), &mut hear);
        (result, heard)
    };
    let whole = run(&plan, "whole", 9).0.unwrap();
    assert!(matches!(run(&plan, "cut", 1).0, Err(Error::Interrupted)));
    assert!(folder.path().join("cut.unfinished").is_dir() && !folder.path().join("cut").exists());
    // Another plan does not go on from it.
    let other = PretrainPlan { seed: 2, ..plan.clone() };
    assert_eq!(run(&other, "cut", 1).1, [1]);
    assert!(matches!(run(&plan, "cut", 1).0, Err(Error::Interrupted)));
    let (gone_on, heard) = run(&plan, "cut", 9);
    let gone_on = gone_on.unwrap();
    assert_eq!(heard, [2, 3]);
    assert_eq!((gone_on.weights, gone_on.curve.len()), (whole.weights, 3));
    assert!(!folder.path().join("cut.unfinished").exists());
}

#[test]
fn what_cannot_be_pretrained_from_is_refused() {
    let folder = TempDir::new().unwrap();
    let dir = folder.path().join("none");
    evaluate(&dir, &["--dataset", "Synthetic", "--horizon", "6"]).code(1).stderr(contains("longcast pretrain"));
    pretrain(&dir, &["--datasets", "Syntetic"]).code(2).stderr(contains("did you mean 'Synthetic'"));
    assert!(!dir.exists());
    longcast(&["evaluate", "--dataset", "Synthetic", "--model", "ridge", "--lookback", "24", "--zero-shot"])
        .code(2)
        .stderr(contains("--init"));
    let few = ["--dataset", "Synthetic", "--horizon", "6", "--few-shot", "0%"];
    evaluate(&dir, &few).code(2).stderr(contains("a share of the windows").and(contains("5%")));
}
