//! How scores spread over seeds.

use std::collections::BTreeMap;

use super::Report;

/// One model at one place, with seeds that do not agree.
#[derive(Clone, Debug)]
pub(super) struct Spread {
    pub dataset: String,
    pub lookback: usize,
    pub horizon: usize,
    pub model: String,
    pub seeds: usize,
    /// MSE and MAE: the mean over seeds, and the deviation of one seed (n − 1).
    pub scores: [(f64, f64); 2],
    pub smallest_mse: f64,
    pub largest_mse: f64,
}

impl Spread {
    /// Mean and deviation of MSE (0) or MAE (1), as they are printed.
    pub fn text(&self, metric: usize) -> String {
        let (mean, deviation) = self.scores[metric];
        format!("{mean:.4} ± {deviation:.4}")
    }
}

/// Where seeds differ, in the order of the tables.
pub(super) fn spreads(report: &Report) -> Vec<Spread> {
    let mut groups: BTreeMap<_, Vec<[f64; 2]>> = BTreeMap::new();
    for record in report.records.iter().filter(|record| record.data.series == 1) {
        let task = &record.task;
        let order = (report.suite.dataset_order(&task.dataset), report.suite.model_order(&task.name));
        let place = (order.0, &task.dataset, task.lookback, task.horizon, order.1, &task.name);
        groups.entry(place).or_default().push([record.scores.mse, record.scores.mae]);
    }
    let differ = groups.into_iter().filter(|(_, scores)| scores.iter().any(|score| *score != scores[0]));
    differ
        .map(|((_, dataset, lookback, horizon, _, model), scores)| {
            let count = scores.len() as f64;
            let mse =
                |choose: fn(f64, f64) -> f64| scores.iter().map(|score| score[0]).reduce(choose).unwrap_or(f64::NAN);
            Spread {
                dataset: dataset.clone(),
                lookback,
                horizon,
                model: model.clone(),
                seeds: scores.len(),
                scores: [0, 1].map(|metric| {
                    let mean = scores.iter().map(|score| score[metric]).sum::<f64>() / count;
                    let squares: f64 = scores.iter().map(|score| (score[metric] - mean).powi(2)).sum();
                    (mean, (squares / (count - 1.0)).sqrt())
                }),
                smallest_mse: mse(f64::min),
                largest_mse: mse(f64::max),
            }
        })
        .collect()
}
