//! One line a record, for spreadsheets and data frames.

use super::Report;
use crate::{Error, Result};

pub(super) fn render(report: &Report) -> Result<String> {
    let failed = |error: &dyn std::fmt::Display| Error::other(format!("cannot write CSV: {error}"));
    let mut writer = ::csv::Writer::from_writer(vec![]);
    let header = [
        "dataset",
        "model",
        "lookback",
        "horizon",
        "seed",
        "drop_last",
        "windows_scored",
        "windows_possible",
        "mse",
        "mae",
        "rmse",
        "raw_mse",
        "raw_mae",
        "raw_rmse",
        "mase",
        "rmsse",
        "smape",
        "mape",
        "wape",
    ];
    writer.write_record(header).map_err(|error| failed(&error))?;
    let maybe = |score: Option<f64>| score.map(|score| score.to_string()).unwrap_or_default();
    for record in &report.records {
        let (task, scores, raw) = (&record.task, &record.scores, &record.scores.raw);
        let line = [
            task.dataset.clone(),
            task.name.clone(),
            task.lookback.to_string(),
            task.horizon.to_string(),
            task.seed.to_string(),
            task.protocol.drop_last.to_string(),
            record.windows_scored.to_string(),
            record.windows_possible.to_string(),
            scores.mse.to_string(),
            scores.mae.to_string(),
            scores.rmse.to_string(),
            raw.mse.to_string(),
            raw.mae.to_string(),
            raw.rmse.to_string(),
            maybe(raw.mase),
            maybe(raw.rmsse),
            raw.smape.to_string(),
            maybe(raw.mape),
            maybe(raw.wape),
        ];
        writer.write_record(line).map_err(|error| failed(&error))?;
    }
    let bytes = writer.into_inner().map_err(|error| failed(&error))?;
    String::from_utf8(bytes).map_err(|error| failed(&error))
}
