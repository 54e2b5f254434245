//! Forecasts of one's own files: `forecast`, `fit`, `predict`, `backtest`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use longcast::{
    data::{Catalogue, Kind},
    forecaster::Pipeline,
    models,
};
use predicates::{prelude::PredicateBooleanExt, str::contains};
use serde_json::Value;
use tempfile::TempDir;

use super::cli::longcast;
use crate::real_data;

const PASSENGERS: &str = "datasets/sample/air-passengers.csv";

fn json(arguments: &[&str]) -> Value {
    let output = longcast(&[arguments, &["--json"]].concat()).success();
    serde_json::from_slice(&output.get_output().stdout).unwrap()
}

#[test]
fn a_file_and_a_horizon_are_enough() {
    let folder = TempDir::new().unwrap();
    let plot = folder.path().join("out.svg");
    let run = longcast(&["forecast", PASSENGERS, "--horizon", "24", "--plot", plot.to_str().unwrap()]).success();
    let output = run.get_output();
    let table = String::from_utf8(output.stdout.clone()).unwrap();
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(
        lines[0],
        "month,passengers,passengers_lower_80,passengers_upper_80,passengers_lower_95,passengers_upper_95"
    );
    assert_eq!(lines.len(), 25);
    assert!(lines[1].starts_with("1961-01-01,") && lines[24].starts_with("1962-12-01,"), "{table}");
    let said = String::from_utf8(output.stderr.clone()).unwrap();
    assert!(said.contains("step 1mo, season 12") && said.contains("% below seasonal-naive"), "{said}");

    // The season goes on: July is above its neighbours in both years, and above the July of the last known year.
    let value = |row: usize| lines[row].split(',').nth(1).unwrap().parse::<f64>().unwrap();
    for july in [7, 19] {
        assert!(value(july) > value(july - 3) && value(july) > value(july + 3) && value(july) > 622.0, "{table}");
    }
    for line in &lines[1..] {
        let cells: Vec<f64> = line.split(',').skip(1).map(|cell| cell.parse().unwrap()).collect();
        assert!(cells[3] <= cells[1] && cells[1] < cells[0] && cells[0] < cells[2] && cells[2] <= cells[4], "{table}");
    }
    let svg = fs::read_to_string(plot).unwrap();
    assert!(svg.contains("<polygon") && svg.contains("1961-"), "{svg}");
}

#[test]
fn the_default_beats_the_last_season_on_two_years_held_out() {
    let held_out = |rest: &[&str]| {
        let fixed = ["backtest", PASSENGERS, "--horizon", "24", "--origins", "1"];
        json(&[&fixed, rest].concat())["mean"]["mase"].as_f64().unwrap()
    };
    let (chosen, naive) = (held_out(&[]), held_out(&["--model", "seasonal-naive"]));
    assert!(chosen < 0.7 * naive, "{chosen} and {naive}");
}

#[test]
fn the_same_file_gives_the_same_bits() {
    let forecast = || longcast(&["forecast", PASSENGERS, "--horizon", "6"]).success().get_output().stdout.clone();
    assert_eq!(forecast(), forecast());
}

#[test]
fn a_network_learns_from_all_rows_in_the_end() {
    let run = ["forecast", PASSENGERS, "--horizon", "6", "--model", "nlinear", "--set", "training.epochs=3"];
    let all = json(&run);
    assert_eq!(all["fitted_on_all_rows"], true);
    assert_eq!(all["forecast"], json(&run)["forecast"]);
}

#[test]
fn every_kind_of_file_is_written_and_the_numbers_are_the_same() {
    let folder = TempDir::new().unwrap();
    let file = |name: &str| folder.path().join(name).to_str().unwrap().to_string();
    for name in ["a.csv", "a.parquet", "a.json"] {
        longcast(&["forecast", PASSENGERS, "--horizon", "6", "--output", &file(name)]).success().stdout("");
    }
    let object: Value = serde_json::from_str(&fs::read_to_string(file("a.json")).unwrap()).unwrap();
    assert_eq!(object["model"], "ridge");
    let first = &object["forecast"][0];
    assert_eq!(first["month"], "1961-01-01");
    let csv = fs::read_to_string(file("a.csv")).unwrap();
    assert!(csv.contains(&format!("1961-01-01,{},", first["passengers"])), "{csv}");
    let read =
        |name: &str| longcast::data::loader::read(Path::new(&file(name)), name, &Default::default()).unwrap().series;
    let (csv, parquet) = (read("a.csv"), read("a.parquet"));
    assert_eq!(csv.timestamps(), parquet.timestamps());
    for (one, other) in csv.values().iter().zip(parquet.values()) {
        assert!((one / other - 1.0).abs() < 1e-6);
    }
    longcast(&["forecast", PASSENGERS, "--horizon", "6", "--plot", &file("a.html")]).success();
    assert!(fs::read_to_string(file("a.html")).unwrap().contains("% below seasonal-naive"));
    let run = ["forecast", PASSENGERS, "--horizon", "6", "--plot", &file("a.png")];
    let output = assert_cmd::Command::cargo_bin("longcast").unwrap().args(run).output().unwrap();
    match output.status.success() {
        true => assert!(fs::read(file("a.png")).unwrap().starts_with(b"\x89PNG")),
        // A machine without a font says so.
        false => assert!(String::from_utf8_lossy(&output.stderr).contains("write .svg or .html")),
    }
    for (option, name) in [("--output", "a.xlsx"), ("--plot", "a.gif"), ("--output", "a")] {
        longcast(&["forecast", PASSENGERS, "--horizon", "6", option, &file(name)])
            .code(2)
            .stderr(contains("the name ends in"));
    }
}

#[test]
fn what_cannot_be_done_is_said() {
    let forecast = |rest: &[&str]| longcast(&[&["forecast", PASSENGERS], rest].concat());
    forecast(&["--horizon", "6", "--known-future", "weather.csv"]).code(2).stderr(contains("leave --known-future out"));
    forecast(&["--horizon", "80"])
        .code(2)
        .stderr(contains("144 rows are too few to forecast 80").and(contains("at most 71")));
    forecast(&["--horizon", "6", "--target", "passenger"]).code(2).stderr(contains("did you mean 'passengers'?"));
    forecast(&["--horizon", "6", "--level", "101"]).code(2).stderr(contains("between 0 and 100"));
    forecast(&["--horizon", "6", "--model", "rigde"]).code(2).stderr(contains("did you mean 'ridge'?"));
    forecast(&["--horizon", "0"]).code(2).stderr(contains("must be at least 1"));
    forecast(&["--horizon", "6", "--model", "ridge", "--set", "level"]).code(2);
    forecast(&["--horizon", "6", "--columns", "passengers", "--level", "80"]).success();
    forecast(&["--horizon", "6", "--output", "no-such-folder/a.csv"])
        .code(2)
        .stderr(contains("no folder no-such-folder"));
    longcast(&["fit", PASSENGERS, "--horizon", "6", "--save", PASSENGERS])
        .code(1)
        .stderr(contains("cannot write into"));
    longcast(&["backtest", PASSENGERS, "--horizon", "6", "--output", "a.parquet"]).code(2);
    longcast(&["forecast", "no-such.csv", "--horizon", "3"]).code(1).stderr(contains("no-such.csv"));
}

#[test]
fn without_timestamps_rows_are_counted() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("plain.csv");
    let rows: String = (0..60).map(|row| format!("{},{}\n", row % 7, row)).collect();
    fs::write(&file, format!("a,b\n{rows}")).unwrap();
    let run =
        longcast(&["forecast", file.to_str().unwrap(), "--horizon", "3", "--target", "b", "--level", "80"]).success();
    let table = String::from_utf8(run.get_output().stdout.clone()).unwrap();
    assert!(table.starts_with("b,b_lower_80,b_upper_80\n6"), "{table}");
}

#[test]
fn what_was_fitted_forecasts_new_rows() {
    let folder = TempDir::new().unwrap();
    let dir = folder.path().join("model");
    let dir = dir.to_str().unwrap();
    longcast(&["fit", PASSENGERS, "--horizon", "6", "--save", dir]).success().stdout(contains("ridge in "));
    let direct = json(&["forecast", PASSENGERS, "--horizon", "6"]);
    assert_eq!(json(&["predict", dir, PASSENGERS])["forecast"], direct["forecast"]);

    // Rows of another year, columns in another order and a name too many or too few.
    let text = fs::read_to_string(PASSENGERS).unwrap();
    let recent: String = text.lines().take(100).map(|line| format!("{line}\n")).collect();
    let file = folder.path().join("recent.csv");
    let name = file.to_str().unwrap();
    fs::write(&file, &recent).unwrap();
    assert_eq!(json(&["predict", dir, name])["forecast"][0]["month"], "1957-04-01");
    fs::write(&file, recent.replace("passengers", "boats")).unwrap();
    longcast(&["predict", dir, name])
        .code(1)
        .stderr(contains("lacks 'passengers'").and(contains("has besides 'boats'")));
    fs::write(&file, recent.lines().take(8).map(|line| format!("{line}\n")).collect::<String>()).unwrap();
    longcast(&["predict", dir, name]).code(1).stderr(contains("7 rows, but the lookback is"));
    longcast(&["predict", folder.path().to_str().unwrap(), PASSENGERS]).code(1).stderr(contains("model.toml"));
}

#[test]
fn origins_roll_and_fits_are_kept_between_them() {
    let table = |rest: &[&str]| {
        let fixed = ["backtest", PASSENGERS, "--horizon", "6", "--origins", "4", "--model", "ridge"];
        let run = longcast(&[&fixed, rest].concat()).success();
        String::from_utf8(run.get_output().stdout.clone()).unwrap()
    };
    let all = table(&[]);
    let lines: Vec<&str> = all.lines().collect();
    assert_eq!(lines.len(), 6, "{all}");
    assert!(lines[0].starts_with("origin,time,model,lookback,fitted,mae,rmse,smape,mase,inside_80,msis_80,"), "{all}");
    assert!(lines[1].starts_with("120,1959-01-01,ridge,") && lines[4].starts_with("138,1960-07-01,"), "{all}");
    assert!(lines[5].starts_with(",,mean,,,"), "{all}");
    let mae = |line: &str| line.split(',').nth(5).unwrap().parse::<f64>().unwrap();
    let mean = lines[1..5].iter().map(|line| mae(line)).sum::<f64>() / 4.0;
    assert!((mean - mae(lines[5])).abs() < 1e-4);

    let kept = table(&["--refit", "2"]);
    let fitted: Vec<&str> = kept.lines().skip(1).take(4).map(|line| line.split(',').nth(4).unwrap()).collect();
    assert_eq!(fitted, ["true", "false", "true", "false"]);
    assert_eq!(kept.lines().nth(1), all.lines().nth(1));
    assert_ne!(table(&["--train-rows", "80"]).lines().nth(1), all.lines().nth(1));
    let error = longcast(&["backtest", PASSENGERS, "--horizon", "24", "--origins", "7"]).code(2);
    error.stderr(contains("too few for 7 origins"));
}

/// The file of a data set, as it lies in the data folder.
fn file(catalogue: &Catalogue, name: &str) -> PathBuf {
    match &catalogue.dataset(name).unwrap().kind {
        Kind::Series(series) => catalogue.folders.locate(&series.file).unwrap(),
        _ => panic!("{name} is no file of one series"),
    }
}

#[test]
fn real_files_go_on_with_the_right_timestamps() {
    let Some(catalogue) = real_data() else { return };
    // A row of Weather stands twice, and nothing is repaired unasked.
    let twice: &[&str] = &["--duplicates", "keep"];
    let expected: [(&str, &[&str], [&str; 2]); 16] = [
        ("ETTh1", &[], ["2018-06-26 20:00:00", "2018-06-26 21:00:00"]),
        ("ETTh2", &[], ["2018-06-26 20:00:00", "2018-06-26 21:00:00"]),
        ("ETTm1", &[], ["2018-06-26 20:00:00", "2018-06-26 20:15:00"]),
        ("ETTm2", &[], ["2018-06-26 20:00:00", "2018-06-26 20:15:00"]),
        ("Weather", twice, ["2021-01-01 00:10:00", "2021-01-01 00:20:00"]),
        ("Exchange", &[], ["2010-10-11", "2010-10-12"]),
        ("ILI", &[], ["2020-07-07", "2020-07-14"]),
        ("CarSales", &[], ["2023-06-06", "2023-06-07"]),
        ("COVID-19", &[], ["2021-01-01", "2021-01-02"]),
        // Trading days: from a Friday to the Monday.
        ("DowJones", &[], ["2025-03-17", "2025-03-18"]),
        ("NASDAQ", &[], ["2024-10-28", "2024-10-29"]),
        ("SP500", &[], ["2025-03-03", "2025-03-04"]),
        ("Power", &[], ["2023-07-01", "2023-07-02"]),
        ("Unemployment", &[], ["2020-04-01", "2020-05-01"]),
        ("Website", &[], ["2020-08-20", "2020-08-21"]),
        ("Wiki", &[], ["2001-12-31", "2002-01-01"]),
    ];
    for (name, options, next) in expected {
        let file = file(&catalogue, name);
        // The choice is tried where it is quick in a build for tests; the others are as alike as files can be.
        let model: &[&str] = if ["ILI", "Power", "ETTh1"].contains(&name) { &[] } else { &["--model", "repeat"] };
        let run = [&["forecast", file.to_str().unwrap(), "--horizon", "2"], model, options].concat();
        let output = longcast(&run).success();
        let table = String::from_utf8(output.get_output().stdout.clone()).unwrap();
        let times: Vec<&str> = table.lines().skip(1).map(|line| line.split(',').next().unwrap()).collect();
        assert_eq!(times, next, "{name}");
    }
    let weather = file(&catalogue, "Weather");
    longcast(&["forecast", weather.to_str().unwrap(), "--horizon", "2"]).code(1).stderr(contains("--duplicates"));
}

#[test]
fn a_damaged_folder_is_refused_and_never_forecasts_something_else() {
    for model in ["ridge", "nlinear"] {
        let folder = TempDir::new().unwrap();
        let dir = folder.path().to_str().unwrap();
        longcast(&["fit", PASSENGERS, "--horizon", "6", "--model", model, "--save", dir]).success();
        let files: Vec<PathBuf> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(files.len() >= 3, "{files:?}");
        let refused = |file: &Path, content: &[u8]| {
            let whole = fs::read(file).unwrap();
            fs::write(file, content).unwrap();
            assert!(Pipeline::load(folder.path(), &models::builtin()).is_err(), "{}", file.display());
            fs::write(file, whole).unwrap();
        };
        for file in &files {
            let whole = fs::read(file).unwrap();
            for part in 0..40 {
                let position = part * whole.len() / 40;
                refused(file, &whole[..position]);
                let mut flipped = whole.clone();
                flipped[position] ^= 1 << (part % 8);
                refused(file, &flipped);
            }
        }
        Pipeline::load(folder.path(), &models::builtin()).unwrap();
    }
}

#[test]
fn rows_of_another_step_are_refused() {
    let folder = TempDir::new().unwrap();
    let file = |name: &str| folder.path().join(name).to_str().unwrap().to_string();
    let days: String = (1..=60).map(|day| format!("2021-{:02}-{:02},{day}\n", 1 + day / 29, 1 + day % 28)).collect();
    fs::write(file("days.csv"), format!("date,passengers\n{days}")).unwrap();
    longcast(&["fit", PASSENGERS, "--horizon", "3", "--model", "repeat", "--save", &file("model")]).success();
    longcast(&["predict", &file("model"), PASSENGERS]).success();
    longcast(&["predict", &file("model"), &file("days.csv"), "--sort", "--duplicates", "first"])
        .code(1)
        .stderr(contains("no two rows are 1mo apart"));
}

#[test]
fn large_levels_keep_their_digits_and_seconds_do_not_look_back_for_days() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("meter.csv");
    let row = |row: usize| {
        format!(
            "2020-01-01 {:02}:{:02}:{:02},{}\n",
            row / 3600,
            row / 60 % 60,
            row % 60,
            123_456_000.0 + row as f64 / 4.0
        )
    };
    fs::write(&file, "date,meter\n".to_string() + &(0..8000).map(row).collect::<String>()).unwrap();
    let run = longcast(&["forecast", file.to_str().unwrap(), "--horizon", "2", "--model", "drift"]).success();
    let table = String::from_utf8(run.get_output().stdout.clone()).unwrap();
    let first = table.lines().nth(1).unwrap().split(',').nth(1).unwrap();
    assert!((first.parse::<f64>().unwrap() - 123_458_000.0).abs() < 0.01, "{table}");
    let run = longcast(&["forecast", file.to_str().unwrap(), "--horizon", "2", "--json"]).success();
    let json: serde_json::Value = serde_json::from_slice(&run.get_output().stdout).unwrap();
    assert!(json["candidates"].as_array().unwrap().iter().all(|tried| tried["lookback"].as_u64().unwrap() <= 1024));
}

#[test]
fn a_column_that_is_called_like_a_bound_is_refused() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("clash.csv");
    let rows: String = (0..60).map(|row| format!("{},{}\n", row % 7, row)).collect();
    fs::write(&file, format!("a,a_lower_80\n{rows}")).unwrap();
    let forecast = |rest: &[&str]| {
        longcast(&[&["forecast", file.to_str().unwrap(), "--horizon", "3", "--model", "repeat"], rest].concat())
    };
    forecast(&[]).code(2).stderr(contains("'a_lower_80' is a column"));
    forecast(&["--level", "90"]).success();
}

#[test]
fn a_reader_that_goes_away_changes_no_exit_code() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("bad.csv");
    fs::write(&file, "a,b\n1,x\n2,y\n").unwrap();
    let mut check = std::process::Command::new(assert_cmd::cargo::cargo_bin!("longcast"));
    check.args(["data", "check"]).arg(&file).stdout(std::process::Stdio::piped());
    let mut check = check.spawn().unwrap();
    drop(check.stdout.take());
    assert_eq!(check.wait().unwrap().code(), Some(1));
}

#[test]
fn a_model_of_one_horizon_says_so() {
    let folder = TempDir::new().unwrap();
    let model = folder.path().join("model").to_str().unwrap().to_string();
    longcast(&["fit", PASSENGERS, "--horizon", "6", "--model", "ridge", "--save", &model]).success();
    longcast(&["predict", &model, PASSENGERS, "--horizon", "3"])
        .code(1)
        .stderr(contains("forecasts 6 rows, and no other number"));
}
