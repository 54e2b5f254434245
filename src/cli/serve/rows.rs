//! What is sent: recent rows, as JSON or CSV, to the series that the model takes.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use axum::http::{
    HeaderMap, StatusCode,
    header::{CONTENT_ENCODING, CONTENT_TYPE},
};
use chrono::NaiveDateTime;
use mime::Mime;
use ndarray::{Array2, ShapeBuilder};
use serde::{
    Deserialize, Deserializer,
    de::{Error as _, MapAccess, Visitor},
};

use super::refusal::Refusal;
use crate::{
    data::{
        Series,
        loader::{self, ReadOptions},
    },
    error::explain,
    forecaster::Pipeline,
};

/// What a body is called where something is wrong with it.
const BODY: &str = "body";

/// Names that a message lists at most.
const NAMES: usize = 10;

/// How rows are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Json,
    Csv,
}

impl Kind {
    /// What the headers say it is.
    ///
    /// # Errors
    /// If they say nothing, or something else.
    pub fn of(headers: &HeaderMap) -> Result<Self, Refusal> {
        let unsupported = |message: String| Refusal::cut_off(StatusCode::UNSUPPORTED_MEDIA_TYPE, message);
        let text = |name| headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
        if let Some(encoding) = text(CONTENT_ENCODING).filter(|encoding| !encoding.eq_ignore_ascii_case("identity")) {
            return Err(unsupported(format!(
                "the content encoding '{encoding}' is not understood: send the rows plain"
            )));
        }
        let Some(sent) = text(CONTENT_TYPE) else {
            return Err(unsupported("there is no content type: send application/json or text/csv".into()));
        };
        let other = || unsupported(format!("the content type is '{sent}': send application/json or text/csv"));
        let parsed: Mime = sent.parse().map_err(|_| other())?;
        if parsed.get_param(mime::CHARSET).is_some_and(|charset| charset != mime::UTF_8) {
            return Err(unsupported(format!("the content type is '{sent}': send the rows as UTF-8")));
        }
        match parsed.essence_str() {
            "application/json" => Ok(Self::Json),
            "text/csv" => Ok(Self::Csv),
            _ => Err(other()),
        }
    }
}

/// The series that `bytes` hold, with the variates of `pipeline` in its order.
///
/// # Errors
/// If they cannot be read, or nothing can be forecast from them.
pub fn series(kind: Kind, bytes: Vec<u8>, pipeline: &Pipeline) -> Result<Series, Refusal> {
    match kind {
        Kind::Json => from_json(&bytes)?.series(pipeline, |row| format!("row {}", row + 1)),
        Kind::Csv => {
            let table = loader::read_csv(bytes, BODY, &ReadOptions::default())
                .map_err(|error| Refusal::unreadable(without_options(&error.to_string())))?;
            let columns = (0..table.variates().len()).map(|index| table.variate(index).to_vec());
            let rows = Rows {
                timestamps: table.timestamps().to_vec(),
                columns: table.variates().iter().cloned().zip(columns).collect(),
            };
            rows.series(pipeline, |row| table.place(row))
        }
    }
}

/// A message of the reader of files without what it says of the program's options: who sends rows has none.
fn without_options(message: &str) -> String {
    let cut = message.rfind(" --").and_then(|option| message[..option].rfind([':', ';', ',']));
    message[..cut.unwrap_or(message.len())].to_string()
}

/// What was sent, NaN where a value is missing.
struct Rows {
    timestamps: Vec<NaiveDateTime>,
    columns: Vec<(String, Vec<f64>)>,
}

impl Rows {
    /// `place` says where a row is, in words.
    fn series(self, pipeline: &Pipeline, place: impl Fn(usize) -> String) -> Result<Series, Refusal> {
        let columns = self.in_order_of(pipeline.variates())?;
        let rows = columns.first().map_or(0, |values| values.len());
        let unfit = |message: String| Err(Refusal::unfit(format!("{BODY}: {message}")));
        for (name, values) in pipeline.variates().iter().zip(&columns) {
            if values.len() != rows {
                let first = &pipeline.variates()[0];
                return unfit(format!("'{name}' has {} values, but '{first}' has {rows}", values.len()));
            }
            if let Some(row) = values.iter().position(|value| !value.is_finite()) {
                let what = if values[row].is_nan() { "missing" } else { "infinite" };
                return unfit(format!("{}: '{name}' is {what}: send a number", place(row)));
            }
        }
        let times = &self.timestamps;
        if !times.is_empty() && times.len() != rows {
            return unfit(format!("{} timestamps, but {rows} rows", times.len()));
        }
        if let Some(row) = times.windows(2).position(|pair| pair[1] <= pair[0]).map(|row| row + 1) {
            let (before, here) = (times[row - 1], times[row]);
            let place = place(row);
            return unfit(format!(
                "{place}: {here} does not come after {before}: send each row once, in order of time"
            ));
        }
        let lookback = pipeline.shape().lookback;
        if rows < lookback {
            return unfit(format!("{rows} rows, but the lookback is {lookback}: send at least as many"));
        }
        let recent = &times[times.len().saturating_sub(lookback)..];
        if let Err(error) = pipeline.check_step(recent) {
            return unfit(error.to_string());
        }
        let values: Vec<f64> = columns.into_iter().flatten().copied().collect();
        let shape = (rows, pipeline.variates().len()).f();
        let values = Array2::from_shape_vec(shape, values).expect("all columns have as many rows");
        Ok(Series::new(BODY, self.timestamps, pipeline.variates().to_vec(), values)?)
    }

    /// The values of each of `wanted`, which have to be those that are here.
    fn in_order_of(&self, wanted: &[String]) -> Result<Vec<&Vec<f64>>, Refusal> {
        let sent: BTreeMap<&str, &Vec<f64>> =
            self.columns.iter().map(|(name, values)| (name.as_str(), values)).collect();
        let known: BTreeSet<&str> = wanted.iter().map(String::as_str).collect();
        let missing: Vec<&str> = wanted.iter().map(String::as_str).filter(|name| !sent.contains_key(name)).collect();
        let extra: Vec<&str> =
            self.columns.iter().map(|(name, _)| name.as_str()).filter(|name| !known.contains(name)).collect();
        let faults =
            [("missing", missing), ("not of the model", extra)].into_iter().filter(|(_, names)| !names.is_empty());
        let faults: Vec<String> = faults.map(|(what, names)| format!("{what}: {}", listed(&names))).collect();
        if !faults.is_empty() {
            return Err(Refusal::unfit(format!(
                "{BODY}: the variates differ from those of the model; {}",
                faults.join("; ")
            )));
        }
        Ok(wanted.iter().filter_map(|name| sent.get(name.as_str()).copied()).collect())
    }
}

fn listed(names: &[&str]) -> String {
    let shown: Vec<String> = names.iter().take(NAMES).map(|name| format!("'{name}'")).collect();
    match names.len().saturating_sub(NAMES) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

/// `{"timestamps": ["2020-01-01 00:00:00", …], "values": {"name": [1.0, …], …}}`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object with `values` and, if need be, `timestamps`")]
struct JsonRows {
    #[serde(default)]
    timestamps: Vec<String>,
    values: JsonColumns,
}

struct JsonColumns(Vec<(String, Vec<f64>)>);

impl<'de> Deserialize<'de> for JsonColumns {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Columns;
        impl<'de> Visitor<'de> for Columns {
            type Value = JsonColumns;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of numbers for each variate")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<JsonColumns, A::Error> {
                let mut columns = Vec::new();
                let mut seen = BTreeSet::new();
                while let Some(name) = map.next_key::<String>()? {
                    if !seen.insert(name.clone()) {
                        return Err(A::Error::custom(format!("'{name}' is there twice")));
                    }
                    let values: Vec<Option<f64>> = map.next_value()?;
                    columns.push((name, values.into_iter().map(|value| value.unwrap_or(f64::NAN)).collect()));
                }
                Ok(JsonColumns(columns))
            }
        }
        deserializer.deserialize_map(Columns)
    }
}

fn from_json(bytes: &[u8]) -> Result<Rows, Refusal> {
    // A list would be taken for the fields in their order.
    if bytes.trim_ascii_start().starts_with(b"[") {
        return Err(Refusal::unfit(format!("{BODY}: it is a list: send an object with 'values' and 'timestamps'")));
    }
    let rows: JsonRows = serde_json::from_slice(bytes).map_err(|error| {
        let message = format!("{BODY}: {}", explain(&error.to_string()));
        match error.classify() {
            serde_json::error::Category::Data => Refusal::unfit(message),
            _ => Refusal::unreadable(message),
        }
    })?;
    let cells: Vec<&str> = rows.timestamps.iter().map(String::as_str).collect();
    let timestamps =
        loader::read_dates(&cells).map_err(|error| Refusal::unfit(format!("{BODY}: timestamps: {error}")))?;
    Ok(Rows { timestamps, columns: rows.values.0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_keeps_what_is_no_option() {
        for (message, kept) in [
            (
                "body: line 1: two columns are called 'a': rename one",
                "body: line 1: two columns are called 'a': rename one",
            ),
            (
                "body: line 2: 'a' is not a number: \"x\"; leave it empty, or choose the columns with --columns",
                "body: line 2: 'a' is not a number: \"x\"; leave it empty",
            ),
            (
                "body: line 1: holds a date where the names should be: use --no-header if line 1 is data",
                "body: line 1: holds a date where the names should be",
            ),
        ] {
            assert_eq!(without_options(message), kept);
        }
    }
}
