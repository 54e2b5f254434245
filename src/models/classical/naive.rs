//! Forecasters that learn nothing: the yardsticks every other one is held against.
//!
//! Hyndman & Athanasopoulos, "Forecasting: Principles and Practice", 3rd ed., section 5.2,
//! <https://otexts.com/fpp3/simple-methods.html>.

use std::path::Path;

use ndarray::{Array3, ArrayView1, ArrayViewMut1, Axis, Zip};
use serde::{Deserialize, Serialize};

use crate::{
    Error, Result,
    forecaster::{BuildContext, FitObserver, Forecaster},
    windows::{Lookback, Windows},
};

/// How one variate of one lookback is continued.
pub trait Rule: Send + Sync + Sized {
    type Params;

    /// # Errors
    /// If the params do not go with the shape of the windows.
    fn new(params: Self::Params, context: &BuildContext) -> Result<Self>;

    /// The fewest rows that can be continued.
    fn rows(&self) -> usize {
        1
    }

    /// Fills in the `future` of a `past`.
    fn extend(&self, past: ArrayView1<'_, f32>, future: ArrayViewMut1<'_, f32>);
}

/// A forecaster that follows a rule, variate by variate, and learns nothing.
#[derive(Clone, Debug)]
pub struct Naive<R> {
    rule: R,
    horizon: usize,
}

impl<R: Rule> Naive<R> {
    /// # Errors
    /// If the params do not go with the shape of the windows.
    pub fn new(params: R::Params, context: &BuildContext) -> Result<Self> {
        Ok(Self { rule: R::new(params, context)?, horizon: context.shape.horizon })
    }
}

impl<R: Rule> Forecaster for Naive<R> {
    fn fit(&mut self, _train: &Windows<'_>, _valid: &Windows<'_>, _observer: &mut dyn FitObserver) -> Result<()> {
        Ok(())
    }

    fn refit(&mut self, _all: &Windows<'_>, _observer: &mut dyn FitObserver) -> Result<bool> {
        Ok(true)
    }

    fn predict(&self, lookback: &Lookback) -> Result<Array3<f32>> {
        let (batch, rows, variates) = lookback.values.dim();
        let needed = self.rule.rows();
        if rows < needed {
            return Err(Error::Shape(format!("a lookback of {rows} rows, where at least {needed} are needed")));
        }
        let mut forecast = Array3::zeros((batch, self.horizon, variates));
        Zip::from(forecast.lanes_mut(Axis(1)))
            .and(lookback.values.lanes(Axis(1)))
            .for_each(|future, past| self.rule.extend(past, future));
        Ok(forecast)
    }

    fn save(&self, _dir: &Path) -> Result<()> {
        Ok(())
    }

    fn load(&mut self, _dir: &Path) -> Result<()> {
        Ok(())
    }
}

/// Params of a forecaster that has none.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NoParams {}

/// The last value, repeated: the naive forecast, "Repeat" in LTSF-Linear's tables.
#[derive(Clone, Copy, Debug)]
pub struct Repeat;

impl Rule for Repeat {
    type Params = NoParams;

    fn new(_: NoParams, _: &BuildContext) -> Result<Self> {
        Ok(Self)
    }

    fn extend(&self, past: ArrayView1<'_, f32>, mut future: ArrayViewMut1<'_, f32>) {
        future.fill(past[past.len() - 1]);
    }
}

#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SeasonalNaiveParams {
    /// Steps in a season; 0 takes that of the data (a day for hourly rows, a year for months).
    pub period: usize,
}

/// The value one season ago.
#[derive(Clone, Copy, Debug)]
pub struct SeasonalNaive {
    period: usize,
}

impl Rule for SeasonalNaive {
    type Params = SeasonalNaiveParams;

    fn new(params: SeasonalNaiveParams, context: &BuildContext) -> Result<Self> {
        let period = if params.period == 0 { context.season } else { params.period };
        let lookback = context.shape.lookback;
        if period > lookback {
            let message = format!(
                "a season of {period} steps does not fit into a lookback of {lookback}: lengthen it or set period"
            );
            return Err(Error::params("seasonal-naive", message));
        }
        Ok(Self { period })
    }

    fn rows(&self) -> usize {
        self.period
    }

    fn extend(&self, past: ArrayView1<'_, f32>, mut future: ArrayViewMut1<'_, f32>) {
        let season = past.len() - self.period;
        for (step, value) in future.iter_mut().enumerate() {
            *value = past[season + step % self.period];
        }
    }
}

/// The line through the first and the last value of the lookback, continued.
#[derive(Clone, Copy, Debug)]
pub struct Drift;

impl Rule for Drift {
    type Params = NoParams;

    fn new(_: NoParams, _: &BuildContext) -> Result<Self> {
        Ok(Self)
    }

    fn rows(&self) -> usize {
        2
    }

    fn extend(&self, past: ArrayView1<'_, f32>, mut future: ArrayViewMut1<'_, f32>) {
        let (first, last) = (f64::from(past[0]), f64::from(past[past.len() - 1]));
        let slope = (last - first) / (past.len() - 1) as f64;
        for (step, value) in future.iter_mut().enumerate() {
            *value = (last + slope * (step + 1) as f64) as f32;
        }
    }
}

/// The mean of the lookback.
#[derive(Clone, Copy, Debug)]
pub struct Mean;

impl Rule for Mean {
    type Params = NoParams;

    fn new(_: NoParams, _: &BuildContext) -> Result<Self> {
        Ok(Self)
    }

    fn extend(&self, past: ArrayView1<'_, f32>, mut future: ArrayViewMut1<'_, f32>) {
        let sum: f64 = past.iter().copied().map(f64::from).sum();
        future.fill((sum / past.len() as f64) as f32);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::windows::WindowShape;

    fn forecast(model: &dyn Forecaster, past: &[f32]) -> Vec<f32> {
        let values = Array3::from_shape_vec((1, past.len(), 1), past.to_vec()).unwrap();
        let empty = Array3::zeros((1, past.len(), 0));
        let lookback = Lookback { values, past_time: empty.clone(), future_time: empty };
        model.predict(&lookback).unwrap().into_raw_vec_and_offset().0
    }

    fn context(lookback: usize, season: usize) -> BuildContext {
        let shape = WindowShape { lookback, horizon: 4, variates: 1, time_features: 0 };
        BuildContext { season, ..BuildContext::new(shape) }
    }

    #[test]
    fn each_rule_continues_as_it_says() -> Result<()> {
        let past = [1.0, 3.0, 2.0, 7.0];
        let context = context(4, 3);
        assert_eq!(forecast(&Naive::<Repeat>::new(NoParams {}, &context)?, &past), [7.0; 4]);
        assert_eq!(forecast(&Naive::<Mean>::new(NoParams {}, &context)?, &past), [3.25; 4]);
        assert_eq!(forecast(&Naive::<Drift>::new(NoParams {}, &context)?, &past), [9.0, 11.0, 13.0, 15.0]);
        let seasonal = Naive::<SeasonalNaive>::new(SeasonalNaiveParams::default(), &context)?;
        assert_eq!(forecast(&seasonal, &past), [3.0, 2.0, 7.0, 3.0]);
        Ok(())
    }

    #[test]
    fn a_season_longer_than_the_lookback_is_refused() {
        let error = SeasonalNaive::new(SeasonalNaiveParams::default(), &context(96, 144)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "seasonal-naive: a season of 144 steps does not fit into a lookback of 96: lengthen it or set period"
        );
    }
}
