//! All that stands behind a number, for the script of the page: what records share is there once.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    benchmark::{Learning, Record, Task},
    report::{Report, markdown::comparisons},
};

/// What a record's list of values is a list of; "setting", "data", "software" and "machine" are places in
/// the lists of those.
const FIELDS: [&str; 27] = [
    "file",
    "setting",
    "data",
    "lookback",
    "horizon",
    "seed",
    "train",
    "valid",
    "scored",
    "possible",
    "mse",
    "mae",
    "rmse",
    "rawMse",
    "rawMae",
    "mase",
    "smape",
    "byVariate",
    "fit",
    "evaluate",
    "cpu",
    "memory",
    "epochs",
    "software",
    "machine",
    "forecasts",
    "published",
];

#[derive(Serialize)]
pub(super) struct Receipts<'a> {
    fields: [&'static str; FIELDS.len()],
    suites: Vec<OfSuite<'a>>,
    settings: Vec<Value>,
    data: Vec<Value>,
    software: Vec<Value>,
    machines: Vec<Value>,
    sources: Vec<Value>,
}

#[derive(Serialize)]
struct OfSuite<'a> {
    name: &'a str,
    /// The folder, as it was given.
    dir: String,
    records: Vec<[Value; FIELDS.len()]>,
}

/// Values, each once.
#[derive(Default)]
struct Shared {
    values: Vec<Value>,
    places: BTreeMap<String, usize>,
}

impl Shared {
    fn place(&mut self, value: Value) -> usize {
        let place = *self.places.entry(value.to_string()).or_insert(self.values.len());
        if place == self.values.len() {
            self.values.push(value);
        }
        place
    }
}

impl<'a> Receipts<'a> {
    pub fn new(reports: &'a [Report]) -> Self {
        let [mut settings, mut data, mut software, mut machines, mut sources] = [(); 5].map(|()| Shared::default());
        let mut suites = Vec::new();
        for report in reports {
            let compared = comparisons(report);
            let published = |task: &Task, sources: &mut Shared| {
                let found = compared.iter().find(|c| {
                    (&c.dataset, c.lookback, c.horizon, &c.model)
                        == (&task.dataset, task.lookback, task.horizon, &task.name)
                });
                found.map(|c| {
                    json!([c.published_model, c.published_mse, c.published_mae, sources.place(json!(c.source))])
                })
            };
            let row = |(record, file): (&Record, &std::path::PathBuf)| {
                let (task, scores, seconds) = (&record.task, &record.scores, &record.seconds);
                [
                    json!(file.file_name().unwrap_or_default().to_string_lossy()),
                    json!(settings.place(setting(task))),
                    json!(data.place(data_of(record))),
                    json!(task.lookback),
                    json!(task.horizon),
                    json!(task.seed),
                    json!(record.windows_train),
                    json!(record.windows_valid),
                    json!(record.windows_scored),
                    json!(record.windows_possible),
                    digits(scores.mse),
                    digits(scores.mae),
                    digits(scores.rmse),
                    digits(scores.raw.mse),
                    digits(scores.raw.mae),
                    json!(scores.raw.mase.map(digits)),
                    digits(scores.raw.smape),
                    json!(scores.per_variate.iter().map(|variate| rounded(variate.mse)).collect::<Vec<_>>()),
                    digits(seconds.fit),
                    digits(seconds.evaluate),
                    json!(seconds.cpu.map(digits)),
                    json!(record.peak_memory_mb.map(f64::round)),
                    json!(record.curve.len()),
                    json!(software.place(json!(record.software))),
                    json!(machines.place(json!(record.machine))),
                    json!(scores.forecasts),
                    json!(published(task, &mut sources)),
                ]
            };
            let records = report.records.iter().zip(&report.files).map(row).collect();
            let dir = report.files.first().and_then(|file| file.parent()).unwrap_or(std::path::Path::new(""));
            suites.push(OfSuite { name: &report.suite.name, dir: dir.to_string_lossy().into_owned(), records });
        }
        Self {
            fields: FIELDS,
            suites,
            settings: settings.values,
            data: data.values,
            software: software.values,
            machines: machines.values,
            sources: sources.values,
        }
    }
}

fn setting(task: &Task) -> Value {
    let learning = match task.learning {
        Learning::Full => Value::Null,
        Learning::FewShot(percent) => json!(format!("the first {percent} % of the windows")),
        Learning::ZeroShot => json!("nothing: zero shot"),
        Learning::AsIs => json!("nothing: pretrained weights as they are"),
    };
    json!({
        "name": task.name,
        "model": task.model,
        "preset": task.preset,
        "params": task.params,
        "dropLast": task.protocol.drop_last,
        "validDropLast": task.protocol.valid_drop_last,
        "init": task.init.as_ref().map(|init| json!({"weights": init.weights, "datasets": init.datasets})),
        "learning": learning,
    })
}

fn data_of(record: &Record) -> Value {
    let Record { task, data, scores, .. } = record;
    let between = |values: &[f64]| {
        let (low, high) = (values.iter().copied().reduce(f64::min), values.iter().copied().reduce(f64::max));
        json!([low.map(digits), high.map(digits)])
    };
    json!({
        "dataset": task.dataset,
        "names": scores.per_variate.iter().map(|variate| &variate.name).collect::<Vec<_>>(),
        "sha256": data.sha256,
        "rows": data.rows,
        "variates": data.variates,
        "series": data.series,
        "season": data.season,
        "calendar": data.calendar,
        "split": data.split.as_ref().map(|split| json!([
            [split.train.start, split.train.end],
            [split.valid.start, split.valid.end],
            [split.test.start, split.test.end],
        ])),
        "scaler": data.scaler.as_ref().map(|scaler| json!([between(scaler.mean()), between(scaler.std())])),
    })
}

/// Enough digits to compare by, three: there may be hundreds of variates.
fn rounded(value: f64) -> Value {
    format!("{value:.2e}").parse::<f64>().map_or(Value::Null, |value| json!(value))
}

/// The digits that are shown, six.
fn digits(value: f64) -> Value {
    format!("{value:.5e}").parse::<f64>().map_or(Value::Null, |value| json!(value))
}
