//! What is answered: the next rows, as JSON, CSV or a plot.

use axum::http::{HeaderMap, header::ACCEPT};
use chrono::NaiveDateTime;
use mime::Mime;
use ndarray::Array2;
use serde::{Serialize, Serializer};

use super::refusal::Refusal;
use crate::{
    Error,
    cli::forecasts::{outlook, table},
    data::Series,
    forecaster::{Forecast, Interval, Pipeline},
    report::Outlook,
};

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
    let forecast = pipeline.forecast(recent)?;
    if forecast.values.iter().any(|value| !value.is_finite()) {
        return Err(Refusal::unfit("body: the forecast is not finite: the values are too far from those of the fit"));
    }
    let failed = |error: Error| Refusal::failed(error.to_string());
    match form {
        Form::Json => json(&forecast),
        // Every digit: what is answered can be sent again.
        Form::Csv => table(&forecast, "date", &[]).csv().map_err(failed),
        Form::Plot => plot(pipeline, recent, &forecast, variate),
    }
}

/// The same shape as what is sent, and the intervals.
#[derive(Serialize)]
struct JsonForecast<'a> {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    timestamps: Vec<String>,
    values: Columns<'a>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    intervals: Vec<JsonInterval<'a>>,
}

#[derive(Serialize)]
struct JsonInterval<'a> {
    level: f64,
    lower: Columns<'a>,
    upper: Columns<'a>,
}

struct Columns<'a>(&'a [String], &'a Array2<f64>);

impl Serialize for Columns<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().zip(self.1.columns()).map(|(name, column)| (name, column.to_vec())))
    }
}

fn json(forecast: &Forecast) -> Result<Vec<u8>, Refusal> {
    let columns = |values| Columns(&forecast.variates, values);
    let rows = JsonForecast {
        timestamps: forecast.timestamps.iter().map(NaiveDateTime::to_string).collect(),
        values: columns(&forecast.values),
        intervals: forecast
            .intervals
            .iter()
            .map(|Interval { level, lower, upper }| JsonInterval {
                level: *level,
                lower: columns(lower),
                upper: columns(upper),
            })
            .collect(),
    };
    serde_json::to_vec(&rows).map_err(|error| Refusal::failed(error.to_string()))
}

fn plot(pipeline: &Pipeline, recent: &Series, forecast: &Forecast, variate: Option<&str>) -> Result<Vec<u8>, Refusal> {
    let names = pipeline.variates();
    let shown = match variate {
        None => &names[0],
        Some(name) => names
            .iter()
            .find(|known| *known == name)
            .ok_or_else(|| Error::unknown("variate", name, names.iter().map(String::as_str)))?,
    };
    let outlook = outlook(recent, pipeline, forecast, std::slice::from_ref(shown));
    // What was sent has no name of its own.
    Ok(Outlook { title: shown.clone(), ..outlook }.svg()?.into_bytes())
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
