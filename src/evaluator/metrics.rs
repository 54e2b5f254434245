//! The metrics, as running sums in f64.

use ndarray::ArrayView2;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::Yardstick;
use crate::{data::Series, windows::Window};

/// How far forecasts were from what came.
///
/// `e = forecast - actual`. MSE, MAE and RMSE here are in scaled units (z-scores of the training
/// rows), the space of the published tables: every window, step and variate weighs the same.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scores {
    /// Mean of e².
    pub mse: f64,
    /// Mean of |e|.
    pub mae: f64,
    /// Square root of `mse` (not a mean of roots).
    pub rmse: f64,
    /// The same and more in the units of the data.
    pub raw: RawScores,
    /// The error of each step ahead, over windows and variates; scaled units.
    pub per_step: Curve,
    /// The error of each variate, over windows and steps; scaled units.
    pub per_variate: Vec<VariateScores>,
    /// sha256 of all forecasts, to the last bit: two runs that agree in it forecast the same. Empty where
    /// it was not recorded.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub forecasts: String,
}

/// Scores in the units of the data.
///
/// `None` where a score is not defined: MAPE where an actual value is 0, WAPE where all are,
/// MASE and RMSSE where no variate changes over its training rows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawScores {
    /// Mean of e².
    pub mse: f64,
    /// Mean of |e|.
    pub mae: f64,
    /// Square root of `mse`.
    pub rmse: f64,
    /// Mean absolute scaled error: per window and variate, the mean of |e| over the horizon,
    /// divided by the mean absolute difference of training rows one season apart; then the mean.
    /// Variates that are constant over their training rows are left out. (Hyndman & Koehler 2006)
    pub mase: Option<f64>,
    /// Root mean squared scaled error: per window and variate, the root of the mean of e² over the
    /// horizon divided by the mean squared difference of training rows one season apart; then the
    /// mean. (Makridakis et al., M5, with the season in place of one step)
    pub rmsse: Option<f64>,
    /// Mean of 200 |e| / (|forecast| + |actual|), in percent, 0 where both are 0. (M4)
    pub smape: f64,
    /// Mean of 100 |e| / |actual|, in percent.
    pub mape: Option<f64>,
    /// 100 times the sum of |e| over the sum of |actual|, in percent.
    pub wape: Option<f64>,
}

/// The error by step ahead.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Curve {
    pub mse: Vec<f64>,
    pub mae: Vec<f64>,
}

/// The error of one variate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VariateScores {
    pub name: String,
    pub mse: f64,
    pub mae: f64,
}

/// Running sums over windows.
#[derive(Clone, Debug)]
pub(super) struct Sums {
    horizon: usize,
    windows: usize,
    /// Of the scaled errors, `[variate][step]`.
    squared: Vec<f64>,
    absolute: Vec<f64>,
    raw: RawSums,
    /// Of the forecasts of a block, or of the hashes of all blocks before.
    hash: Sha256,
}

#[derive(Clone, Copy, Debug, Default)]
struct RawSums {
    squared: f64,
    absolute: f64,
    actual: f64,
    symmetric: f64,
    percentage: f64,
    zeros: usize,
    mase: f64,
    rmsse: f64,
    /// Pairs of window and variate that have a yardstick.
    measured: usize,
}

impl Sums {
    pub fn new(horizon: usize, variates: usize) -> Self {
        let zeros = vec![0.0; horizon * variates];
        Self {
            horizon,
            windows: 0,
            squared: zeros.clone(),
            absolute: zeros,
            raw: RawSums::default(),
            hash: Sha256::new(),
        }
    }

    /// Adds the errors of one forecast, `[horizon, variates]`, scaled.
    ///
    /// Gives the step and variate of the first value that is not finite, if there is one.
    pub fn window(
        &mut self,
        forecast: ArrayView2<'_, f32>,
        window: &Window<'_>,
        raw: &Series,
        yardstick: &Yardstick,
    ) -> Result<(), (usize, usize)> {
        let scaler = &yardstick.scaler;
        let mut bytes = Vec::with_capacity(forecast.len() * size_of::<f32>());
        forecast.iter().for_each(|value| bytes.extend_from_slice(&value.to_le_bytes()));
        self.hash.update(&bytes);
        for (variate, forecast) in forecast.columns().into_iter().enumerate() {
            let (mean, std) = (scaler.mean()[variate], scaler.std()[variate]);
            let actual = &raw.variate(variate)[window.row..window.row + self.horizon];
            let first = variate * self.horizon;
            let sums = self.squared[first..first + self.horizon].iter_mut();
            let sums = sums.zip(&mut self.absolute[first..first + self.horizon]);
            let (mut squared, mut absolute) = (0.0, 0.0);
            let known = window.target.column(variate);
            for (step, (((forecast, target), actual), sums)) in
                forecast.iter().zip(known).zip(actual).zip(sums).enumerate()
            {
                let forecast = f64::from(*forecast);
                let error = forecast - target;
                if !error.is_finite() {
                    return Err((step, variate));
                }
                *sums.0 += error * error;
                *sums.1 += error.abs();

                let forecast = forecast * std + mean;
                let error = (forecast - actual).abs();
                squared += error * error;
                absolute += error;
                let size = forecast.abs() + actual.abs();
                self.raw.symmetric += if size > 0.0 { error / size } else { 0.0 };
                self.raw.actual += actual.abs();
                match *actual == 0.0 {
                    true => self.raw.zeros += 1,
                    false => self.raw.percentage += error / actual.abs(),
                }
            }
            self.raw.squared += squared;
            self.raw.absolute += absolute;
            if yardstick.absolute[variate] > 0.0 {
                let steps = self.horizon as f64;
                self.raw.mase += absolute / steps / yardstick.absolute[variate];
                self.raw.rmsse += (squared / steps / yardstick.squared[variate]).sqrt();
                self.raw.measured += 1;
            }
        }
        self.windows += 1;
        Ok(())
    }

    /// Adds the sums of the block of windows that follows.
    pub fn add(&mut self, later: &Self) {
        self.hash.update(later.hash.clone().finalize());
        self.windows += later.windows;
        for (sum, later) in self.squared.iter_mut().zip(&later.squared) {
            *sum += later;
        }
        for (sum, later) in self.absolute.iter_mut().zip(&later.absolute) {
            *sum += later;
        }
        let (raw, later) = (&mut self.raw, later.raw);
        raw.squared += later.squared;
        raw.absolute += later.absolute;
        raw.actual += later.actual;
        raw.symmetric += later.symmetric;
        raw.percentage += later.percentage;
        raw.zeros += later.zeros;
        raw.mase += later.mase;
        raw.rmsse += later.rmsse;
        raw.measured += later.measured;
    }

    /// The means of at least one window.
    pub fn scores(&self, variates: &[String]) -> Scores {
        let horizon = self.horizon;
        let windows = self.windows as f64;
        let values = windows * self.squared.len() as f64;
        let per_variate = |sums: &[f64], variate: usize| {
            sums[variate * horizon..(variate + 1) * horizon].iter().sum::<f64>() / (windows * horizon as f64)
        };
        let per_step = |sums: &[f64]| -> Vec<f64> {
            (0..horizon)
                .map(|step| sums[step..].iter().step_by(horizon).sum::<f64>() / (windows * variates.len() as f64))
                .collect()
        };
        let mse = self.squared.iter().sum::<f64>() / values;
        let raw = &self.raw;
        let measured = (raw.measured > 0).then_some(raw.measured as f64);
        Scores {
            mse,
            mae: self.absolute.iter().sum::<f64>() / values,
            rmse: mse.sqrt(),
            raw: RawScores {
                mse: raw.squared / values,
                mae: raw.absolute / values,
                rmse: (raw.squared / values).sqrt(),
                mase: measured.map(|measured| raw.mase / measured),
                rmsse: measured.map(|measured| raw.rmsse / measured),
                smape: 200.0 * raw.symmetric / values,
                mape: (raw.zeros == 0).then_some(100.0 * raw.percentage / values),
                wape: (raw.actual > 0.0).then_some(100.0 * raw.absolute / raw.actual),
            },
            per_step: Curve { mse: per_step(&self.squared), mae: per_step(&self.absolute) },
            per_variate: variates
                .iter()
                .enumerate()
                .map(|(variate, name)| VariateScores {
                    name: name.clone(),
                    mse: per_variate(&self.squared, variate),
                    mae: per_variate(&self.absolute, variate),
                })
                .collect(),
            forecasts: format!("{:x}", self.hash.clone().finalize()),
        }
    }
}
