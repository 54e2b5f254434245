//! z-scores per variate, from the training rows alone.

use ndarray::{Array2, ArrayView2};
use serde::{Deserialize, Serialize};

use super::Split;
use crate::{Error, Result, data::Series};

/// Mean and population standard deviation (ddof 0) of each variate over the training rows.
///
/// A variate that is constant there gets deviation 1, as in scikit-learn's `StandardScaler`:
/// it is centred and nothing divides by zero.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scaler {
    mean: Vec<f64>,
    std: Vec<f64>,
}

impl Scaler {
    /// The scaler of the training rows of `split`; no other row is looked at.
    pub fn fit(series: &Series, split: &Split) -> Self {
        let (mean, std) =
            (0..series.variates().len()).map(|variate| moments(&series.variate(variate)[split.train.clone()])).unzip();
        Self { mean, std }
    }

    /// The scaler that leaves `variates` variates as they are.
    pub fn identity(variates: usize) -> Self {
        Self { mean: vec![0.0; variates], std: vec![1.0; variates] }
    }

    /// The mean of each variate, in the units of the data.
    pub fn mean(&self) -> &[f64] {
        &self.mean
    }

    /// The deviation each variate is divided by, in the units of the data.
    pub fn std(&self) -> &[f64] {
        &self.std
    }

    /// The series with each variate centred and divided by its deviation.
    ///
    /// # Errors
    /// If the series has another number of variates.
    pub fn transform(&self, series: &Series) -> Result<Series> {
        self.check(series.variates().len())?;
        let mut values = series.values().to_owned();
        for ((mut column, mean), std) in values.columns_mut().into_iter().zip(&self.mean).zip(&self.std) {
            column.mapv_inplace(|value| (value - mean) / std);
        }
        series.with_values(values)
    }

    /// Forecasts `[time, variates]` back in the units of the data.
    ///
    /// # Errors
    /// If there is another number of variates.
    pub fn inverse(&self, scaled: ArrayView2<'_, f32>) -> Result<Array2<f64>> {
        self.check(scaled.ncols())?;
        Ok(Array2::from_shape_fn(scaled.dim(), |(time, variate)| {
            f64::from(scaled[[time, variate]]) * self.std[variate] + self.mean[variate]
        }))
    }

    fn check(&self, variates: usize) -> Result<()> {
        match self.mean.len() {
            known if known == variates => Ok(()),
            known => Err(Error::Shape(format!("the scaler knows {known} variates, the data has {variates}"))),
        }
    }
}

fn moments(values: &[f64]) -> (f64, f64) {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count;
    // Rounding in the mean alone makes a constant column look like it varies this much.
    let noise = count * f64::EPSILON * mean.abs();
    let std = variance.sqrt();
    (mean, if std <= noise { 1.0 } else { std })
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;
    use crate::windows::SplitRule;

    fn series(values: Array2<f64>) -> Series {
        let variates = (0..values.ncols()).map(|v| v.to_string()).collect();
        Series::new("s", vec![], variates, values).unwrap()
    }

    #[test]
    fn training_rows_get_mean_zero_and_deviation_one() -> Result<()> {
        let series = series(array![[1.0], [3.0], [100.0], [200.0]]);
        let scaler = Scaler::fit(&series, &SplitRule::Rows([2, 1, 1]).split(4)?);
        assert_eq!((scaler.mean[0], scaler.std[0]), (2.0, 1.0));
        assert_eq!(scaler.transform(&series)?.variate(0), [-1.0, 1.0, 98.0, 198.0]);
        Ok(())
    }

    #[test]
    fn a_constant_variate_is_centred_and_not_divided() -> Result<()> {
        let series = series(Array2::from_elem((10, 1), 0.1));
        let scaler = Scaler::fit(&series, &SplitRule::Rows([8, 1, 1]).split(10)?);
        assert_eq!(scaler.std[0], 1.0);
        Ok(())
    }

    #[test]
    fn inverse_undoes_transform() -> Result<()> {
        let series = series(array![[1.0, 5.0], [3.0, 9.0], [2.0, 1.0]]);
        let scaler = Scaler::fit(&series, &SplitRule::Rows([1, 1, 1]).split(3)?);
        let scaled = scaler.transform(&series)?.values().mapv(|value| value as f32);
        let raw = scaler.inverse(scaled.view())?;
        assert!(raw.iter().zip(series.values()).all(|(a, b)| (a - b).abs() < 1e-6));
        Ok(())
    }
}
