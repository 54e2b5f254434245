//! Tables from records. This layer knows records and the published numbers, and nothing that runs.
//!
//! A report is a pure function of a results folder: the same records give the same bytes.

mod charts;
mod compare;
mod csv;
mod figures;
mod html;
mod json;
mod latex;
mod lint;
mod markdown;
mod outlook;
mod published;
mod scores;
mod seeds;
mod statistics;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

pub use compare::{Compared, ComparedRow, SettingApart};
pub use lint::{Warning, lint, lint_table};
pub use outlook::{Outlook, Panel};
pub use published::{Published, PublishedRow};
pub use scores::{Cell, Scoreboard, ScoreboardRow};
pub use statistics::{LEVEL, Pair, Ranked, Ranking};

use crate::{
    Error, Result,
    benchmark::{Failure, Record, Suite, results_folders},
};

/// How a report is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Tables to read.
    #[default]
    Md,
    /// One line a record.
    Csv,
    /// The tables and the published numbers beside them, for machines.
    Json,
    /// One page with tables, charts and receipts, to be opened in a browser.
    Html,
    /// The tables of scores, as a document that compiles as it is.
    Latex,
}

/// The records of a results folder and what is known about them.
#[derive(Clone, Debug)]
pub struct Report {
    /// The suite they were made from, where the folder holds it: its order is that of the tables.
    pub suite: Suite,
    pub records: Vec<Record>,
    /// Tasks that gave no score.
    pub failures: Vec<Failure>,
    /// The file of each record.
    pub files: Vec<PathBuf>,
    pub published: Published,
    /// Files of the folder that could not be read, in words.
    pub unreadable: Vec<String>,
}

impl Report {
    /// Reads the results folder `dir`.
    ///
    /// # Errors
    /// If there is no such folder or it holds no record.
    pub fn read(dir: &Path) -> Result<Self> {
        let (found, mut errors) = Record::read_all(dir)?;
        let (files, records): (Vec<PathBuf>, Vec<Record>) = found.into_iter().unzip();
        let (failures, unreadable) = Failure::read_all(dir)?;
        errors.extend(unreadable);
        if records.is_empty() && failures.is_empty() && errors.is_empty() {
            return Err(Error::file(dir, "holds no records; `longcast bench` writes them"));
        }
        let suite = Suite::of_folder(dir)?.unwrap_or_else(|| {
            let mut suite = Suite::of_records(&records);
            suite.bear_name_of(dir);
            suite
        });
        let unreadable = errors.iter().map(ToString::to_string).collect();
        Ok(Self { suite, records, failures, files, published: Published::builtin()?, unreadable })
    }

    /// Of records that lie in no folder.
    ///
    /// # Errors
    /// None in a build that passes its tests.
    pub fn of_records(records: Vec<Record>) -> Result<Self> {
        let suite = Suite::of_records(&records);
        Ok(Self {
            suite,
            records,
            failures: vec![],
            files: vec![],
            published: Published::builtin()?,
            unreadable: vec![],
        })
    }

    /// Reads the results folder `dir`, or each of the results folders in it, in the order of their names.
    ///
    /// # Errors
    /// If there is no such folder or there is no record in it or below.
    pub fn read_each(dir: &Path) -> Result<Vec<Self>> {
        // What is no folder would be taken for a record.
        fs::read_dir(dir).map_err(Error::io("read the folder", dir))?;
        let folders = results_folders(dir)?;
        match folders.is_empty() {
            true => Ok(vec![Self::read(dir)?]),
            false => folders.iter().map(|folder| Self::read(folder)).collect(),
        }
    }

    /// The report as text.
    ///
    /// # Errors
    /// If it cannot be put into this format.
    pub fn render(&self, format: Format) -> Result<String> {
        match format {
            Format::Md => Ok(markdown::render(self)),
            Format::Csv => csv::render(self),
            Format::Json => json::render(self),
            Format::Html => page(std::slice::from_ref(self)),
            Format::Latex => Ok(latex::render(self)),
        }
    }

    /// The models of all records by their names in tables, in the order of the suite.
    pub fn models(&self) -> Vec<&str> {
        let mut models: Vec<&str> = self.records.iter().map(|record| &*record.task.name).collect();
        models.sort_by_key(|model| (self.suite.model_order(model), *model));
        models.dedup();
        models
    }

    /// Every chart as an SVG file: its name and its content.
    ///
    /// # Errors
    /// If one cannot be drawn.
    pub fn charts(&self) -> Result<Vec<(String, String)>> {
        let mut names = BTreeSet::new();
        let mut charts = Vec::new();
        for figure in figures::figures(self) {
            let stem = figure.file_stem(&self.suite.name);
            // A place may have several charts of a kind, and two names may differ in what no file is called by.
            let numbered = (1..).map(|number| if number == 1 { stem.clone() } else { format!("{stem}-{number}") });
            let name = numbered.into_iter().find(|name| names.insert(name.clone())).unwrap_or(stem);
            charts.push((format!("{name}.svg"), charts::standalone(&*figure.chart)?));
        }
        Ok(charts)
    }

    /// What cannot be right in the tables.
    pub fn warnings(&self) -> Vec<Warning> {
        lint(&self.records)
    }
}

/// One HTML page of several reports, with a switch between them.
///
/// # Errors
/// If it cannot be written.
pub fn page(reports: &[Report]) -> Result<String> {
    html::render(reports)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::{Value, json};

    use super::*;

    /// The report of two models with two seeds each, at two horizons of one made-up set.
    pub(super) fn report() -> Report {
        of(["linear", "ridge"])
    }

    /// The same with names that are markup.
    pub(super) fn hostile() -> Report {
        of(["</script><img src=x onerror=\"alert(1)\">&'", "ridge"])
    }

    fn of(models: [&str; 2]) -> Report {
        let mut records = Vec::new();
        let mut files = Vec::new();
        for (index, model) in models.into_iter().enumerate() {
            for (horizon, seed) in [(2, 1), (2, 2), (3, 1), (3, 2)] {
                let record = serde_json::from_value(record(model, horizon, seed, 0.25 + index as f64 / 8.0));
                records.push(record.expect("it is a record"));
                files.push(Path::new("results/made").join(format!("Made-m{index}-8-{horizon}-s{seed}-0a1b.json")));
            }
        }
        let mut suite = Suite::of_records(&records);
        suite.name = "made".into();
        Report { suite, records, failures: vec![], files, published: Published::default(), unreadable: vec![] }
    }

    fn record(model: &str, horizon: usize, seed: u64, mse: f64) -> Value {
        let mse = mse + seed as f64 / 64.0;
        let raw = json!({"mse": 2.0, "mae": 1.0, "rmse": 2f64.sqrt(), "mase": 0.5, "rmsse": null,
            "smape": 3.0, "mape": null, "wape": 4.0});
        let epoch = |epoch: usize, loss: f64| json!({"epoch": epoch, "train_loss": loss, "valid_loss": loss, "learning_rate": 0.001, "seconds": 0.1});
        json!({
            "format": 1,
            "task": {"dataset": "Made \"<&>", "name": model, "model": model, "params": {"penalty": 0.5}, "lookback": 8,
                "horizon": horizon, "seed": seed, "protocol": {"drop_last": 0}},
            "data": {"sha256": "ab12", "rows": 90, "variates": 1, "series": 1, "season": 24, "calendar": "hourly",
                "split": {"train": {"start": 0, "end": 60}, "valid": {"start": 60, "end": 70},
                    "test": {"start": 70, "end": 90}, "lookback_reaches_back": true},
                "scaler": {"mean": [0.5], "std": [2.0]}},
            "windows_train": 50, "windows_valid": 8, "windows_scored": 18, "windows_possible": 18,
            "curve": [epoch(1, 0.5), epoch(2, 0.4), epoch(3, 0.45)],
            "scores": {"mse": mse, "mae": 0.25, "rmse": mse.sqrt(), "raw": raw,
                "per_step": {"mse": vec![mse; horizon], "mae": vec![0.25; horizon]},
                "per_variate": [{"name": "<b>OT", "mse": mse, "mae": 0.25}]},
            "software": {"version": "0.1.0", "revision": "abc"},
            "machine": {"cpu": "a CPU", "os": "linux", "threads": 2},
            "seconds": {"fit": 0.02, "evaluate": 0.01},
        })
    }
}
