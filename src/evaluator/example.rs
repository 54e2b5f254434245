//! Forecasts to look at: a few windows of one variate.

use serde::{Deserialize, Serialize};

use super::{Scoring, Yardstick};
use crate::{Result, data::Series, forecaster::Forecaster, windows::Windows};

/// The most values before the forecast that are kept.
const MOST_PAST: usize = 96;

/// What was, what came and what was forecast in one window, of the last variate, which is the target in most
/// sets; in the units of the data, five digits of each value, or three of the deviation where those are finer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Example {
    pub series: String,
    /// The row of the first value that is forecast.
    pub row: usize,
    /// Its time, where the data has times.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<String>,
    pub variate: String,
    /// The values before it, at most as many as are forecast.
    pub past: Vec<f64>,
    pub actual: Vec<f64>,
    pub forecast: Vec<f64>,
}

/// The windows in the middle and at the end of `windows`, which no score chooses.
///
/// # Errors
/// If the forecaster fails.
pub fn examples(
    forecaster: &dyn Forecaster,
    windows: &Windows<'_>,
    raw: &[Series],
    yardsticks: &[Yardstick],
) -> Result<Vec<Example>> {
    let scoring = Scoring { forecaster, intervals: None, windows, raw, yardsticks, batch: 1 };
    let mut numbers = vec![windows.len() / 2, windows.len().saturating_sub(1)];
    numbers.dedup();
    numbers.into_iter().filter(|number| *number < windows.len()).map(|number| scoring.example(number)).collect()
}

impl Scoring<'_> {
    fn example(&self, number: usize) -> Result<Example> {
        let shape = self.windows.shape();
        let mut batches = self.windows.batches_in(number..number + 1, 1);
        let batch = batches.next_batch().expect("there is a window with this number");
        let forecast = self.predict(&batch.lookback)?;
        let window = self.windows.get(number);
        let (raw, scaler) = (&self.raw[window.series], &self.yardsticks[window.series].scaler);
        let variate = shape.variates - 1;
        let (mean, std) = (scaler.mean()[variate], scaler.std()[variate]);
        let values = raw.variate(variate);
        let past = window.row.saturating_sub(shape.horizon.min(MOST_PAST))..window.row;
        let rounded = |values: &[f64]| values.iter().map(|value| legible(*value, std)).collect();
        let forecast = forecast.slice(ndarray::s![0, .., variate]);
        Ok(Example {
            series: raw.name().to_string(),
            row: window.row,
            time: raw.timestamps().get(window.row).map(ToString::to_string),
            variate: raw.variates()[variate].clone(),
            past: rounded(&values[past]),
            actual: rounded(&values[window.row..window.row + shape.horizon]),
            forecast: forecast.iter().map(|value| legible(f64::from(*value) * std + mean, std)).collect(),
        })
    }
}

// Enough to look at, and a third of the bytes.
fn legible(value: f64, deviation: f64) -> f64 {
    match value.abs() > 100.0 * deviation {
        true => rounded(value, deviation, 3),
        false => format!("{value:.4e}").parse().expect("a number that was written can be read"),
    }
}

/// `value` to the last decimal, or power of ten, that is not below the `digits`-th digit of `scale`.
pub fn rounded(value: f64, scale: f64, digits: i32) -> f64 {
    if !(scale.is_normal() && value.is_finite()) {
        return value;
    }
    let decimals = digits - 1 - scale.abs().log10().floor() as i32;
    match usize::try_from(decimals) {
        Ok(decimals) => format!("{value:.decimals$}").parse().unwrap_or(value),
        Err(_) => (value / 10f64.powi(-decimals)).round() * 10f64.powi(-decimals),
    }
}

#[cfg(test)]
mod tests {
    use super::{legible, rounded};

    #[test]
    fn a_number_is_rounded_by_how_far_its_kind_varies() {
        assert_eq!(rounded(123_456_296.666_123, 0.9, 6), 123_456_296.666_123);
        assert_eq!(rounded(123_456_296.666_123, 17.0, 4), 123_456_296.67);
        assert_eq!(rounded(123_456.7, 25_000.0, 2), 123_000.0);
        assert_eq!([rounded(1.0 / 3.0, 1.0, 6), rounded(1e-9, 1.0, 6), rounded(0.1, 0.0, 6)], [0.33333, 0.0, 0.1]);
        assert_eq!(rounded(1e-310, 1e-300, 3), 0.0);
    }

    #[test]
    fn five_digits_are_kept() {
        // A tie goes to the even digit, as in records from before.
        let values = [1234.567, -0.000_123_456, 0.0, 100_225.0, 123_456_296.666];
        let expected = [1234.6, -0.000_123_46, 0.0, 100_220.0, 123_456_296.7];
        assert_eq!(values.map(|value| legible(value, if value > 1e6 { 50.0 } else { 5e4 })), expected);
    }
}
