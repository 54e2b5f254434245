//! Forecasts to look at: a few windows of one variate.

use serde::{Deserialize, Serialize};

use super::{Scoring, Yardstick};
use crate::{Result, data::Series, forecaster::Forecaster, windows::Windows};

/// The most values before the forecast that are kept.
const MOST_PAST: usize = 96;

/// What was, what came and what was forecast in one window, of the last variate, which is the target in most
/// sets; in the units of the data, five digits of each value.
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
    pub past: Vec<f32>,
    pub actual: Vec<f32>,
    pub forecast: Vec<f32>,
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
        let rounded = |values: &[f64]| values.iter().map(|value| five_digits(*value)).collect();
        let forecast = forecast.slice(ndarray::s![0, .., variate]);
        Ok(Example {
            series: raw.name().to_string(),
            row: window.row,
            time: raw.timestamps().get(window.row).map(ToString::to_string),
            variate: raw.variates()[variate].clone(),
            past: rounded(&values[past]),
            actual: rounded(&values[window.row..window.row + shape.horizon]),
            forecast: forecast.iter().map(|value| five_digits(f64::from(*value) * std + mean)).collect(),
        })
    }
}

// Enough to look at, and a third of the bytes.
fn five_digits(value: f64) -> f32 {
    format!("{value:.4e}").parse().expect("a number that was written can be read")
}

#[cfg(test)]
mod tests {
    use super::five_digits;

    #[test]
    fn five_digits_are_kept() {
        assert_eq!([1234.567, -0.000_123_456, 0.0].map(five_digits), [1234.6, -0.000_123_46, 0.0]);
    }
}
