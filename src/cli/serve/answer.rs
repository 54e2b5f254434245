//! What is answered: the next rows, as JSON, CSV or a plot.

use axum::http::{HeaderMap, header::ACCEPT};
use chrono::NaiveDateTime;
use mime::Mime;
use ndarray::Array2;
use serde::{Serialize, Serializer};

use super::refusal::Refusal;
use crate::{Error, data::Series, forecaster::Pipeline, report};

/// How a forecast is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Json,
    Csv,
    Plot,
}

impl Form {
    const ALL: [(Self, &str); 3] =
        [(Self::Json, "application/json"), (Self::Csv, "text/csv"), (Self::Plot, "image/svg+xml")];

    /// The one that the headers like best; JSON if they do not say, or like none of them.
    pub fn of(headers: &HeaderMap) -> Self {
        let mut best = (0.0, Self::Json);
        let accepted = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
        for range in accepted.flat_map(|value| value.split(',')).filter_map(|range| range.trim().parse::<Mime>().ok()) {
            let weight: f64 =
                range.get_param("q").map_or(Some(1.0), |weight| weight.as_str().parse().ok()).unwrap_or(0.0);
            let form = Self::ALL.into_iter().find(|(_, name)| range.essence_str() == *name).map(|(form, _)| form);
            if let Some(form) = form
                && weight > best.0
            {
                best = (weight, form);
            }
        }
        best.1
    }

    pub fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Csv => "text/csv; charset=utf-8",
            Self::Plot => "image/svg+xml",
        }
    }
}

/// The rows that follow `recent`, in this form; a plot is of `variate`, or the first.
///
/// # Errors
/// If they cannot be forecast, or there is no such variate.
pub fn forecast(pipeline: &Pipeline, recent: &Series, form: Form, variate: Option<&str>) -> Result<Vec<u8>, Refusal> {
    let values = pipeline.forecast(recent)?;
    if values.iter().any(|value| !value.is_finite()) {
        return Err(Refusal::unfit("body: the forecast is not finite: the values are too far from those of the fit"));
    }
    let timestamps = pipeline.next_timestamps(recent)?;
    let variates = pipeline.variates();
    match form {
        Form::Json => json(&timestamps, variates, &values),
        Form::Csv => csv(&timestamps, variates, &values),
        Form::Plot => plot(pipeline, recent, &values, variate),
    }
}

/// The same shape as what is sent.
#[derive(Serialize)]
struct JsonRows<'a> {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    timestamps: Vec<String>,
    values: Columns<'a>,
}

struct Columns<'a>(&'a [String], &'a Array2<f64>);

impl Serialize for Columns<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().zip(self.1.columns()).map(|(name, column)| (name, column.to_vec())))
    }
}

fn json(timestamps: &[NaiveDateTime], variates: &[String], values: &Array2<f64>) -> Result<Vec<u8>, Refusal> {
    let timestamps = timestamps.iter().map(NaiveDateTime::to_string).collect();
    let rows = JsonRows { timestamps, values: Columns(variates, values) };
    serde_json::to_vec(&rows).map_err(|error| Refusal::failed(error.to_string()))
}

fn csv(timestamps: &[NaiveDateTime], variates: &[String], values: &Array2<f64>) -> Result<Vec<u8>, Refusal> {
    let failed = |error: csv::Error| Refusal::failed(error.to_string());
    let mut writer = csv::Writer::from_writer(Vec::new());
    let dated = !timestamps.is_empty();
    writer
        .write_record(dated.then_some("date").into_iter().chain(variates.iter().map(String::as_str)))
        .map_err(failed)?;
    for (row, cells) in values.rows().into_iter().enumerate() {
        let time = timestamps.get(row).map(NaiveDateTime::to_string);
        writer.write_record(time.into_iter().chain(cells.iter().map(f64::to_string))).map_err(failed)?;
    }
    writer.into_inner().map_err(|error| Refusal::failed(error.to_string()))
}

fn plot(pipeline: &Pipeline, recent: &Series, values: &Array2<f64>, variate: Option<&str>) -> Result<Vec<u8>, Refusal> {
    let names = pipeline.variates();
    let index = match variate {
        None => 0,
        Some(name) => names
            .iter()
            .position(|known| known == name)
            .ok_or_else(|| Error::unknown("variate", name, names.iter().map(String::as_str)))?,
    };
    // Twice the horizon or the lookback, whichever is more: a longer past would leave the forecast no room.
    let shape = pipeline.shape();
    let shown = shape.lookback.max(2 * shape.horizon);
    let past = recent.variate(index);
    let past = &past[past.len().saturating_sub(shown)..];
    let svg = report::forecast_chart(&names[index], pipeline.model(), past, &values.column(index).to_vec())?;
    Ok(svg.into_bytes())
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn the_form_that_is_liked_best_is_chosen() {
        let form = |accept: &'static str| Form::of(&HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(accept))]));
        assert_eq!(Form::of(&HeaderMap::new()), Form::Json);
        assert_eq!(form("*/*"), Form::Json);
        assert_eq!(form("text/html"), Form::Json);
        assert_eq!(form("text/csv"), Form::Csv);
        assert_eq!(form("application/json;q=0.5, text/csv; header=present"), Form::Csv);
        assert_eq!(form("text/csv;q=0, image/svg+xml;q=0.1"), Form::Plot);
    }
}
