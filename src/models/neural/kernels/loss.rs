//! What training makes small: a mean over windows, variates and steps, as one number on the tape.

use candle_core::{CpuStorage, CustomOp1, D, Layout, Result, Shape, Tensor};
use multiversion::multiversion;
use serde::{Deserialize, Serialize};

use super::tape::{self, Values};
use crate::models::neural::pass::Pass;

/// The error of a forecast.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Loss {
    /// The mean of squared errors.
    #[default]
    Mse,
    /// The mean of absolute errors.
    L1,
    /// The mean of absolute errors, step h (from 1) weighted by 1/√h: OLinear (Yue et al., 2025), whose
    /// scripts set its exponent to 0.5. Not divided by the sum of weights.
    WeightedL1,
}

impl Loss {
    fn weight(self, step: usize) -> f32 {
        match self {
            Self::Mse | Self::L1 => 1.0,
            Self::WeightedL1 => 1.0 / ((step + 1) as f32).sqrt(),
        }
    }

    /// The sum, in f64, of the error of each element of `[.., horizon]`.
    pub fn sum(self, forecast: &[f32], target: &[f32], horizon: usize) -> f64 {
        let weights: Vec<f32> = (0..horizon).map(|step| self.weight(step)).collect();
        let rows = forecast.chunks_exact(horizon).zip(target.chunks_exact(horizon));
        rows.map(|(forecast, target)| {
            let steps = forecast.iter().zip(target).zip(&weights);
            let errors = steps.map(|((forecast, target), weight)| {
                let error = f64::from(forecast - target);
                match self {
                    Self::Mse => error * error,
                    Self::L1 | Self::WeightedL1 => error.abs() * f64::from(*weight),
                }
            });
            errors.sum::<f64>()
        })
        .sum()
    }

    /// `forecast` against `target`, both `[.., horizon]`: the sum of errors divided by `count`, as a
    /// number on the tape. A part of a batch gives its part of the mean when `count` is that of the
    /// whole.
    pub fn on_tape(self, forecast: &Tensor, target: &Tensor, count: usize, pass: &Pass) -> Result<Tensor> {
        if !pass.fuses(forecast) {
            return self.plain(forecast, target, count);
        }
        let target = target.contiguous()?;
        forecast.contiguous()?.apply_op1(Mean { loss: self, target, count })
    }

    /// The same in candle's own operations.
    pub fn plain(self, forecast: &Tensor, target: &Tensor, count: usize) -> Result<Tensor> {
        let error = (forecast - target)?;
        let horizon = error.dim(D::Minus1)?;
        let each = match self {
            Self::Mse => error.sqr()?,
            Self::L1 => error.abs()?,
            Self::WeightedL1 => {
                let weights: Vec<f32> = (0..horizon).map(|step| self.weight(step)).collect();
                error.abs()?.broadcast_mul(&Tensor::from_vec(weights, horizon, error.device())?)?
            }
        };
        each.sum_all()? / count as f64
    }
}

struct Mean {
    loss: Loss,
    target: Tensor,
    count: usize,
}

impl CustomOp1 for Mean {
    fn name(&self) -> &'static str {
        "loss"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let horizon = layout.shape().dims().last().copied().unwrap_or(1);
        let target = Values::of(&self.target);
        let sum = self.loss.sum(tape::slice(storage, layout)?, target.slice()?, horizon) / self.count as f64;
        tape::result(vec![sum as f32], ())
    }

    fn bwd(&self, forecast: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let factor = gradient.to_scalar::<f32>()? / self.count as f32;
        let horizon = forecast.dim(D::Minus1)?;
        let (forecast_values, target) = (Values::of(forecast), Values::of(&self.target));
        let (values, target) = (forecast_values.slice()?, target.slice()?);
        let weights: Vec<f32> = (0..horizon).map(|step| self.loss.weight(step) * factor).collect();
        let mut back = vec![0.0; values.len()];
        slopes(self.loss, values, target, &weights, &mut back);
        tape::tensor(back, forecast.shape()).map(Some)
    }
}

/// The gradient of each error, by the `weights` of its step.
#[multiversion(targets("x86_64+avx2+fma"))]
fn slopes(loss: Loss, values: &[f32], target: &[f32], weights: &[f32], back: &mut [f32]) {
    let horizon = weights.len();
    let rows = values.chunks_exact(horizon).zip(target.chunks_exact(horizon));
    for ((values, target), back) in rows.zip(back.chunks_exact_mut(horizon)) {
        for (((value, target), back), weight) in values.iter().zip(target).zip(back).zip(weights) {
            let error = value - target;
            *back = match loss {
                Loss::Mse => 2.0 * error * weight,
                // Zero where the forecast is exact, as PyTorch has it.
                Loss::L1 | Loss::WeightedL1 if error == 0.0 => 0.0,
                Loss::L1 | Loss::WeightedL1 => weight.copysign(error),
            };
        }
    }
}
