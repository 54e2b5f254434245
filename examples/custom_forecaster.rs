//! A forecaster of one's own in the whole program: `bench`, `evaluate`, `models` and reports know it.
//!
//! ```text
//! cargo run --example custom_forecaster -- evaluate --dataset Synthetic --model median --lookback 48 --horizon 12
//! ```

use std::{path::Path, process::ExitCode};

use longcast::{
    Error, Result,
    forecaster::{BuildContext, FitObserver, Forecaster},
    windows::{Lookback, Windows},
};
use ndarray::{Array3, Axis, Zip};
use serde::{Deserialize, Serialize};

/// What a user may set: `--set rows=12`, or `params = { rows = 12 }` in a suite.
#[derive(Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct MedianParams {
    /// The latest rows that are looked at.
    rows: usize,
}

impl Default for MedianParams {
    fn default() -> Self {
        Self { rows: 24 }
    }
}

/// The median of the latest rows.
struct Median {
    rows: usize,
    horizon: usize,
}

impl Median {
    fn new(params: MedianParams, context: &BuildContext) -> Result<Self> {
        if params.rows == 0 || params.rows > context.shape.lookback {
            return Err(Error::other(format!("rows must lie between 1 and the lookback, {}", context.shape.lookback)));
        }
        Ok(Self { rows: params.rows, horizon: context.shape.horizon })
    }
}

impl Forecaster for Median {
    fn fit(&mut self, _train: &Windows<'_>, _valid: &Windows<'_>, _observer: &mut dyn FitObserver) -> Result<()> {
        Ok(())
    }

    fn predict(&self, lookback: &Lookback) -> Result<Array3<f32>> {
        let (batch, rows, variates) = lookback.values.dim();
        let skip = rows.checked_sub(self.rows).ok_or_else(|| Error::Shape(format!("{rows} rows are too few")))?;
        let mut forecast = Array3::zeros((batch, self.horizon, variates));
        Zip::from(forecast.lanes_mut(Axis(1))).and(lookback.values.lanes(Axis(1))).for_each(|mut future, past| {
            let mut latest: Vec<f32> = past.iter().skip(skip).copied().collect();
            latest.sort_by(f32::total_cmp);
            future.fill(latest[latest.len() / 2]);
        });
        Ok(forecast)
    }

    fn save(&self, _dir: &Path) -> Result<()> {
        Ok(())
    }

    fn load(&mut self, _dir: &Path) -> Result<()> {
        Ok(())
    }
}

fn main() -> ExitCode {
    let mut models = longcast::models::builtin();
    models.register("median", "the median of the latest rows", Median::new);
    longcast::cli::main(models)
}
