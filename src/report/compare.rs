//! Two results folders side by side: the scores of each task, and what differs in what went into them.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use super::{Report, markdown::table};
use crate::{
    Result,
    benchmark::{Record, settings_apart},
};

/// Two folders, task by task.
#[derive(Clone, Debug, Serialize)]
pub struct Compared {
    /// Tasks that both have, in the order of the first.
    pub rows: Vec<ComparedRow>,
    /// What differs in params, protocol, data and version, and in how many of the rows.
    pub settings: Vec<SettingApart>,
    /// Tasks that the first alone has.
    pub only_one: Vec<String>,
    /// Tasks that the second alone has.
    pub only_other: Vec<String>,
}

/// The scores of one task.
#[derive(Clone, Debug, Serialize)]
pub struct ComparedRow {
    pub dataset: String,
    pub name: String,
    pub lookback: usize,
    pub horizon: usize,
    pub seed: u64,
    /// MSE of the first and of the second.
    pub mse: [f64; 2],
    pub mae: [f64; 2],
    /// Whether all forecasts are the same to the last bit; `None` where a record does not tell.
    pub same_forecasts: Option<bool>,
}

/// A setting that is not the same in both.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SettingApart {
    /// Where in a record, e.g. `task.protocol.drop_last`.
    pub field: String,
    pub one: Value,
    pub other: Value,
    /// In so many of the rows.
    pub rows: usize,
}

type Key<'a> = (&'a str, &'a str, usize, usize, u64);

fn key(record: &Record) -> Key<'_> {
    let task = &record.task;
    (&task.dataset, &task.name, task.lookback, task.horizon, task.seed)
}

fn in_words((dataset, name, lookback, horizon, seed): Key<'_>) -> String {
    format!("{dataset} × {name} × {lookback}→{horizon}, seed {seed}")
}

impl Compared {
    /// # Errors
    /// If a record cannot be written down.
    pub fn of(one: &Report, other: &Report) -> Result<Self> {
        let [left, right] = [one, other].map(|report| {
            report.records.iter().map(|record| (key(record), record)).collect::<BTreeMap<Key<'_>, &Record>>()
        });
        let mut keys: Vec<&Key<'_>> = left.keys().collect();
        keys.sort_by_key(|key| {
            let (dataset, name, lookback, horizon, seed) = **key;
            (one.suite.dataset_order(dataset), lookback, horizon, one.suite.model_order(name), seed)
        });
        let (mut rows, mut only_one) = (vec![], vec![]);
        let mut settings: BTreeMap<(String, String, String), SettingApart> = BTreeMap::new();
        for key in keys {
            let Some(other) = right.get(key) else {
                only_one.push(in_words(*key));
                continue;
            };
            let one = left[key];
            rows.push(row(one, other));
            for difference in settings_apart(one, other)? {
                let place = (difference.field, difference.recorded.to_string(), difference.now.to_string());
                let (one, other) = (difference.recorded, difference.now);
                let first = SettingApart { field: place.0.clone(), one, other, rows: 0 };
                settings.entry(place).or_insert(first).rows += 1;
            }
        }
        let only_other = right.keys().filter(|key| !left.contains_key(*key)).map(|key| in_words(*key)).collect();
        Ok(Self { rows, settings: settings.into_values().collect(), only_one, only_other })
    }

    /// To read; the folders are called `one` and `other`.
    pub fn to_markdown(&self, one: &str, other: &str) -> String {
        let count = self.rows.len();
        let same = self.rows.iter().filter(|row| row.mse[0] == row.mse[1] && row.mae[0] == row.mae[1]).count();
        let mut text = format!("# {one} beside {other}\n\n{count} tasks in both, {same} with the same MSE and MAE.\n");
        text += "\n## What differs in what went in\n\n";
        if self.settings.is_empty() {
            text += "Nothing: params, protocol, data and version are the same.\n";
        }
        for SettingApart { field, one, other, rows } in &self.settings {
            text += &format!("- `{field}`: {one} and {other}, in {rows} of {count}\n");
        }
        if !self.rows.is_empty() {
            text += "\n## Scores\n\nThe second relative to the first.\n\n";
            let header = ["data set", "lookback", "horizon", "model", "seed", "MSE", "", "", "MAE", "", ""];
            let scores = |scores: [f64; 2]| {
                let distance = match scores[0] == scores[1] {
                    true => "=".into(),
                    false => format!("{:+.2} %", 100.0 * (scores[1] / scores[0] - 1.0)),
                };
                [format!("{:.4}", scores[0]), format!("{:.4}", scores[1]), distance]
            };
            let rows = self.rows.iter().map(|row| {
                let place = [row.lookback.to_string(), row.horizon.to_string(), row.name.clone(), row.seed.to_string()];
                let scores = scores(row.mse).into_iter().chain(scores(row.mae));
                [row.dataset.clone()].into_iter().chain(place).chain(scores).collect()
            });
            text += &table(&header.map(String::from), rows);
        }
        for (folder, tasks) in [(one, &self.only_one), (other, &self.only_other)] {
            if !tasks.is_empty() {
                text += &format!("\n## Only in {folder}\n\n");
                tasks.iter().for_each(|task| text += &format!("- {task}\n"));
            }
        }
        text
    }
}

fn row(one: &Record, other: &Record) -> ComparedRow {
    let hashes = [&one.scores.forecasts, &other.scores.forecasts];
    let task = &one.task;
    ComparedRow {
        dataset: task.dataset.clone(),
        name: task.name.clone(),
        lookback: task.lookback,
        horizon: task.horizon,
        seed: task.seed,
        mse: [one.scores.mse, other.scores.mse],
        mae: [one.scores.mae, other.scores.mae],
        same_forecasts: hashes.iter().all(|hash| !hash.is_empty()).then(|| hashes[0] == hashes[1]),
    }
}
