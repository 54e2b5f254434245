//! `longcast compare`, `longcast protocol` and `longcast lint`.

use std::fs;

use predicates::{prelude::PredicateBooleanExt, str::contains};
use serde_json::Value;

use super::cli::{Bench, SUITE, longcast};

#[test]
fn two_folders_are_set_side_by_side() {
    let strict = Bench::new(SUITE);
    strict.run(&[]).success();
    let other =
        Bench::new(&SUITE.replace("\"mean\"", "\"drift\"").replace("[[run]]", "[protocol]\ndrop_last = 100\n[[run]]"));
    other.run(&[]).success();
    let folders =
        [&strict, &other].map(|bench| bench.dir.path().join("out/records/tiny").to_str().unwrap().to_string());

    let same = longcast(&["compare", &folders[0], &folders[0]]).success();
    same.stdout(contains("4 tasks in both, 4 with the same MSE and MAE").and(contains("Nothing: params, protocol")));
    let apart = longcast(&["compare", &folders[0], &folders[1]]).success();
    apart.stdout(
        contains("2 tasks in both, 0 with the same")
            .and(contains("`task.protocol.drop_last`: 0 and 100, in 2 of 2"))
            .and(contains("- Synthetic × mean × 24→6, seed 2021"))
            .and(contains("- Synthetic × drift × 24→12, seed 2021"))
            .and(contains(" %")),
    );
    let json = longcast(&["compare", &folders[0], &folders[1], "--json"]).success();
    let json: Value = serde_json::from_slice(&json.get_output().stdout).unwrap();
    assert_eq!(json["rows"].as_array().unwrap().len(), 2);
    assert_eq!(json["rows"][0]["same_forecasts"], false);
    longcast(&["compare", &folders[0], "no-such-folder"]).code(1).stderr(contains("no-such-folder"));
}

#[test]
fn the_impossible_cells_of_a_table_are_found_and_none_in_a_possible_one() {
    let bench = Bench::new(SUITE);
    let file = bench.dir.path().join("table.csv");
    let name = file.to_str().unwrap();
    fs::write(&file, "model,mse,mae\nA,0.455,0.883\nB,0.370,0.392\n").unwrap();
    longcast(&["lint", name]).code(1).stdout(contains("table.csv: line 2 (A): MSE 0.455 is below"));
    let json = longcast(&["lint", name, "--json"]).code(1);
    let json: Value = serde_json::from_slice(&json.get_output().stdout).unwrap();
    assert_eq!(json.as_array().unwrap().len(), 1);
    fs::write(&file, "model,mse,mae\nB,0.370,0.392\n").unwrap();
    longcast(&["lint", name]).success().stderr(contains("0 impossible"));
    longcast(&["lint", "no-such.csv"]).code(1).stderr(contains("no-such.csv"));
}

#[test]
fn two_protocols_are_set_side_by_side() {
    let list = longcast(&["protocol", "list"]).success();
    list.stdout(contains("strict").and(contains("dropped-validation-32")));
    let diff = |args: &[&str]| {
        let fixed = ["protocol", "diff", "strict", "--dataset", "Synthetic", "--horizons", "24,48"];
        longcast(&[&fixed, args].concat())
    };
    diff(&["drop-last-32"]).success().stdout(
        contains("# strict beside drop-last-32")
            .and(contains("2 tasks in both, 0 with the same MSE and MAE"))
            .and(contains("`task.protocol.drop_last`: 0 and 32, in 2 of 2"))
            .and(contains("`windows.scored`")),
    );
    // What is learnt by: a model that learns nothing keeps its score.
    diff(&["dropped-validation-32"]).success().stdout(contains("2 with the same").and(contains("`windows.valid`")));
    diff(&["strickt"]).code(2).stderr(contains("did you mean 'strict'?"));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("mine.toml");
    std::fs::write(&file, "about = \"mine\"\n[protocol]\nsplit = { ratio = [0.6, 0.2, 0.2] }\ncalendar = \"daily\"\n")
        .unwrap();
    let json = diff(&[file.to_str().unwrap(), "--json"]).success();
    let json: Value = serde_json::from_slice(&json.get_output().stdout).unwrap();
    let fields: Vec<&str> =
        json["settings"].as_array().unwrap().iter().map(|setting| setting["field"].as_str().unwrap()).collect();
    assert!(fields.contains(&"data.calendar") && fields.contains(&"data.split.train.end"), "{fields:?}");
}

#[test]
fn a_record_of_another_protocol_is_run_again_by_it() {
    let suite = SUITE.replace(
        "[[run]]",
        "[protocol]\nvalid_drop_last = 32\ncalendar = \"daily\"\nsplit = { ratio = [0.5, 0.2, 0.3] }\n[[run]]",
    );
    let bench = Bench::new(&suite.replace("\"mean\"", "\"ridge\""));
    bench.run(&[]).success();
    let records = bench.dir.path().join("out/records/tiny");
    longcast(&["verify", records.to_str().unwrap()]).success();
    // Another split is other data; the rest is told by the task.
    let strict = Bench::new(&suite.replace("\"mean\"", "\"ridge\"").replace("daily", "hourly"));
    strict.run(&[]).success();
    let other = strict.dir.path().join("out/records/tiny");
    let compared = longcast(&["compare", records.to_str().unwrap(), other.to_str().unwrap()]).success();
    compared.stdout(contains("4 with the same").and(contains("`data.calendar`: \"daily\" and \"hourly\", in 4 of 4")));
}
