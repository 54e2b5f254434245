//! Records side by side: a row a data set and horizon, a column a model.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::Report;
use crate::benchmark::{Record, Task};

/// Two scores of one model in one row, and how they rank there.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Cell {
    /// In the order of [`Scoreboard::metrics`]; `None` where a metric is not defined.
    pub scores: [Option<f64>; 2],
    /// 1 for the best of the row, 2 for the second; equal to the printed digit is equal.
    pub ranks: [Option<usize>; 2],
    /// It was run and, with one seed at least, gave no score; then there is no score here, no mean over the
    /// seeds that did not fail.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub failed: bool,
}

impl Cell {
    /// One of its scores in so many decimals, `missing` where it is not defined.
    pub(super) fn text(&self, metric: usize, decimals: usize, missing: &str) -> String {
        self.scores[metric].map_or_else(|| missing.into(), |score| format!("{score:.decimals$}"))
    }

    /// Both scores, each as `mark` shows one of its rank, or that it failed.
    pub(super) fn marked(
        &self,
        decimals: usize,
        missing: &str,
        mark: impl Fn(Option<usize>, String) -> String,
    ) -> String {
        if self.failed {
            return "failed".into();
        }
        let [one, other] = [0, 1].map(|metric| mark(self.ranks[metric], self.text(metric, decimals, missing)));
        format!("{one} / {other}")
    }
}

/// One row; with `horizon` `None` the mean over the horizons above it.
#[derive(Clone, Debug, Serialize)]
pub struct ScoreboardRow {
    pub dataset: String,
    pub lookback: usize,
    pub horizon: Option<usize>,
    /// One cell a column; `None` where nothing is recorded.
    pub cells: Vec<Option<Cell>>,
}

/// Models against data sets and horizons.
#[derive(Clone, Debug, Serialize)]
pub struct Scoreboard {
    pub metrics: [&'static str; 2],
    /// Decimals that are printed, and that decide what is equal.
    pub decimals: usize,
    pub models: Vec<String>,
    pub rows: Vec<ScoreboardRow>,
}

/// Where a score stands: data set, lookback and horizon, with the places of the suite first so
/// that the order of tables is that of the suite.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    dataset_order: usize,
    dataset: String,
    lookback: usize,
    horizon: usize,
}

impl Scoreboard {
    /// The long-horizon table: MSE and MAE in scaled units, of single series.
    pub fn of_series(report: &Report) -> Option<Self> {
        let scores = |record: &Record| [Some(record.scores.mse), Some(record.scores.mae)];
        Self::of(report, ["MSE", "MAE"], 3, |series| series == 1, scores)
    }

    /// The table of sets of many series: sMAPE in percent and MASE, in raw units.
    pub fn of_collections(report: &Report) -> Option<Self> {
        let scores = |record: &Record| [Some(record.scores.raw.smape), record.scores.raw.mase];
        Self::of(report, ["sMAPE", "MASE"], 3, |series| series > 1, scores)
    }

    fn of(
        report: &Report,
        metrics: [&'static str; 2],
        decimals: usize,
        keep: impl Fn(usize) -> bool,
        scores: impl Fn(&Record) -> [Option<f64>; 2],
    ) -> Option<Self> {
        // Seeds of one task are averaged.
        let mut sums: BTreeMap<(Place, String), Vec<[Option<f64>; 2]>> = BTreeMap::new();
        let place = |task: &Task| Place {
            dataset_order: report.suite.dataset_order(&task.dataset),
            dataset: task.dataset.clone(),
            lookback: task.lookback,
            horizon: task.horizon,
        };
        for record in report.records.iter().filter(|record| keep(record.data.series)) {
            sums.entry((place(&record.task), record.task.name.clone())).or_default().push(scores(record));
        }
        let failed = report.failures.iter().filter(|failure| keep(failure.series));
        let failed: BTreeSet<(Place, String)> =
            failed.map(|failure| (place(&failure.task), failure.task.name.clone())).collect();
        // What is left of the seeds is not the mean over all of them.
        sums.retain(|key, _| !failed.contains(key));
        let keys: BTreeSet<&(Place, String)> = sums.keys().chain(&failed).collect();
        let mut models: Vec<String> = keys.iter().map(|(_, model)| model.clone()).collect();
        models.sort_by_key(|model| (report.suite.model_order(model), model.clone()));
        models.dedup();
        let mut places: Vec<Place> = keys.iter().map(|(place, _)| place.clone()).collect();
        places.dedup();

        let mut rows: Vec<ScoreboardRow> = Vec::new();
        for group in places.chunk_by(|a, b| a.dataset == b.dataset && a.lookback == b.lookback) {
            let scores_at = |place: &Place| -> Vec<Option<[Option<f64>; 2]>> {
                let mean_of = |model: &String| sums.get(&(place.clone(), model.clone())).map(|scores| mean(scores));
                models.iter().map(mean_of).collect()
            };
            let by_horizon: Vec<_> = group.iter().map(scores_at).collect();
            for (place, scores) in group.iter().zip(&by_horizon) {
                let mut row = row(place, Some(place.horizon), scores.clone(), decimals);
                for (cell, model) in row.cells.iter_mut().zip(&models) {
                    if failed.contains(&(place.clone(), model.clone())) {
                        *cell = Some(Cell { scores: [None; 2], ranks: [None; 2], failed: true });
                    }
                }
                rows.push(row);
            }
            if group.len() > 1 {
                // A mean over horizons only stands where every horizon does.
                let means = (0..models.len())
                    .map(|model| by_horizon.iter().map(|scores| scores[model]).collect::<Option<Vec<_>>>())
                    .map(|scores| scores.map(|scores| mean(&scores)))
                    .collect();
                rows.push(row(&group[0], None, means, decimals));
            }
        }
        (!rows.is_empty()).then_some(Self { metrics, decimals, models, rows })
    }
}

fn mean(scores: &[[Option<f64>; 2]]) -> [Option<f64>; 2] {
    [0, 1].map(|metric| {
        let values: Option<Vec<f64>> = scores.iter().map(|scores| scores[metric]).collect();
        values.map(|values| values.iter().sum::<f64>() / values.len() as f64)
    })
}

fn row(place: &Place, horizon: Option<usize>, scores: Vec<Option<[Option<f64>; 2]>>, decimals: usize) -> ScoreboardRow {
    let ranks: [Vec<Option<usize>>; 2] =
        [0, 1].map(|metric| ranks(scores.iter().map(|scores| scores.and_then(|scores| scores[metric])), decimals));
    let cells = scores
        .into_iter()
        .enumerate()
        .map(|(model, scores)| {
            scores.map(|scores| Cell { scores, ranks: [ranks[0][model], ranks[1][model]], failed: false })
        })
        .collect();
    ScoreboardRow { dataset: place.dataset.clone(), lookback: place.lookback, horizon, cells }
}

// Dense ranks of what is printed: two scores that read the same share a rank.
fn ranks(scores: impl Iterator<Item = Option<f64>>, decimals: usize) -> Vec<Option<usize>> {
    let scale = 10f64.powi(decimals as i32);
    let printed: Vec<Option<i64>> = scores.map(|score| score.map(|score| (score * scale).round() as i64)).collect();
    let mut distinct: Vec<i64> = printed.iter().flatten().copied().collect();
    distinct.sort_unstable();
    distinct.dedup();
    printed
        .iter()
        .map(|score| score.and_then(|score| distinct.binary_search(&score).ok()).map(|rank| rank + 1))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_that_read_the_same_share_a_rank() {
        let scores = [Some(0.3701), Some(0.3699), None, Some(0.4), Some(0.36)];
        assert_eq!(ranks(scores.into_iter(), 3), [Some(2), Some(2), None, Some(3), Some(1)]);
    }
}
