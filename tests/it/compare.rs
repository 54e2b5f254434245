//! `longcast compare` and `longcast lint`.

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
