//! Each window of each variate brought to mean 0 and deviation 1, and its forecast back.

use candle_core::{D, Result, Tensor};

/// Mean and deviation of the lookbacks of one batch, `[batch, variates, 1]` each.
///
/// Kim et al., "Reversible Instance Normalization", ICLR 2022; without its learnt scale and shift.
pub struct InstanceNorm {
    mean: Tensor,
    deviation: Tensor,
}

impl InstanceNorm {
    /// What was added to the variance.
    const EPSILON: f64 = 1e-5;

    /// The normalised `values [batch, variates, lookback]`, and how to undo it.
    ///
    /// # Errors
    /// If the shape is another.
    pub fn of(values: &Tensor) -> Result<(Tensor, Self)> {
        let mean = values.mean_keepdim(D::Minus1)?;
        let centred = values.broadcast_sub(&mean)?;
        let variance = centred.sqr()?.mean_keepdim(D::Minus1)?;
        let deviation = (variance + Self::EPSILON)?.sqrt()?;
        Ok((centred.broadcast_div(&deviation)?, Self { mean, deviation }))
    }

    /// A forecast `[batch, variates, horizon]` in the units of the values.
    ///
    /// # Errors
    /// If the shape is another.
    pub fn undo(&self, forecast: &Tensor) -> Result<Tensor> {
        forecast.broadcast_mul(&self.deviation)?.broadcast_add(&self.mean)
    }
}
