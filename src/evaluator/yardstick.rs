//! What the training rows of a series say about the size of an error.

use std::ops::Range;

use crate::{data::Series, windows::Scaler};

/// The scaler of a series, and the in-sample errors of the seasonal naive forecast that MASE and
/// RMSSE divide by.
#[derive(Clone, Debug)]
pub struct Yardstick {
    pub(super) scaler: Scaler,
    /// Mean absolute difference of training rows one season apart, per variate, raw units.
    pub(super) absolute: Vec<f64>,
    /// Mean squared difference of the same.
    pub(super) squared: Vec<f64>,
}

impl Yardstick {
    /// From the rows `train` of `raw`, with `season` steps in a season (1: the plain naive
    /// forecast). `scaler` is the one the forecaster's windows were scaled with.
    pub fn new(raw: &Series, train: Range<usize>, season: usize, scaler: Scaler) -> Self {
        let (absolute, squared) = (0..raw.variates().len())
            .map(|variate| seasonal_differences(&raw.variate(variate)[train.clone()], season))
            .unzip();
        Self { scaler, absolute, squared }
    }
}

// 0 where the training rows do not hold two seasons' neighbours: no yardstick, as for a constant.
fn seasonal_differences(values: &[f64], season: usize) -> (f64, f64) {
    let pairs = values.iter().zip(values.iter().skip(season));
    let count = values.len().saturating_sub(season).max(1) as f64;
    let (absolute, squared) = pairs.fold((0.0, 0.0), |(absolute, squared), (before, now)| {
        let difference = now - before;
        (absolute + difference.abs(), squared + difference * difference)
    });
    (absolute / count, squared / count)
}
