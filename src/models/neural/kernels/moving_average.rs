//! The moving average over time, and its gradient, in one pass each way.

use candle_core::{CpuStorage, CustomOp1, D, Device, Layout, Result, Shape, Tensor};

use super::tape::{self, Values};
use crate::models::neural::pass::Pass;

/// `[.., time]` averaged over `width` (odd) steps centred on each; beyond both ends the edge value is
/// repeated (Wu et al., "Autoformer", 2021, equation 1).
pub fn moving_average(x: &Tensor, width: usize, pass: &Pass) -> Result<Tensor> {
    if !pass.fuses(x) {
        return plain(x, width);
    }
    let op = MovingAverage { width };
    let x = x.contiguous()?;
    pass.apply1(&x, op)
}

/// The same as a product with a matrix.
pub fn plain(x: &Tensor, width: usize) -> Result<Tensor> {
    let time = x.dim(D::Minus1)?;
    let mut weights = vec![0f32; time * time];
    for to in 0..time {
        for offset in 0..width {
            let from = (to + offset).saturating_sub(width / 2).min(time - 1);
            weights[from * time + to] += 1.0 / width as f32;
        }
    }
    x.broadcast_matmul(&Tensor::from_vec(weights, (time, time), &Device::Cpu)?.to_device(x.device())?)
}

struct MovingAverage {
    width: usize,
}

impl MovingAverage {
    /// One series; the sum that slides along is kept in f64.
    fn forward(&self, x: &[f32], out: &mut [f32]) {
        let (time, half) = (x.len(), self.width / 2);
        let at = |position: isize| f64::from(x[position.clamp(0, time as isize - 1) as usize]);
        let half = half as isize;
        let mut sum: f64 = (-half..=half).map(at).sum();
        for (step, out) in out.iter_mut().enumerate() {
            let step = step as isize;
            *out = (sum / self.width as f64) as f32;
            sum += at(step + half + 1) - at(step - half);
        }
    }

    /// What each value gets back from the averages it is in: those around it, and the edge values
    /// from those that reach beyond the edge.
    fn backward(&self, gradient: &[f32], back: &mut [f32]) {
        let (time, half) = (gradient.len() as isize, (self.width / 2) as isize);
        let at = |position: isize| match gradient.get(position as usize) {
            Some(value) if position >= 0 => f64::from(*value),
            _ => 0.0,
        };
        let mut sum: f64 = (-half..=half).map(at).sum();
        for (step, back) in back.iter_mut().enumerate() {
            let step = step as isize;
            *back = (sum / self.width as f64) as f32;
            sum += at(step + half + 1) - at(step - half);
        }
        let beyond_start: f64 = (0..half.min(time)).map(|step| at(step) * (half - step) as f64).sum();
        let beyond_end: f64 = (0..half.min(time)).map(|step| at(time - 1 - step) * (half - step) as f64).sum();
        back[0] += (beyond_start / self.width as f64) as f32;
        back[time as usize - 1] += (beyond_end / self.width as f64) as f32;
    }
}

impl CustomOp1 for MovingAverage {
    fn name(&self) -> &'static str {
        "moving-average"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = tape::slice(storage, layout)?;
        let time = layout.shape().dims().last().copied().unwrap_or(1);
        let mut out = vec![0.0; x.len()];
        for (x, out) in x.chunks_exact(time).zip(out.chunks_exact_mut(time)) {
            self.forward(x, out);
        }
        tape::result(out, layout.shape())
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let gradient = gradient.contiguous()?;
        let values = Values::of(&gradient);
        let gradient = values.slice()?;
        let back = transposed(gradient, self.width, x.dim(D::Minus1)?);
        tape::tensor(back, x.shape()).map(Some)
    }
}

/// Rows of `time` values times the matrix of the average: what a gradient becomes on its way back, and
/// a map of averaged values a map of the values.
pub fn transposed(rows: &[f32], width: usize, time: usize) -> Vec<f32> {
    let mut back = vec![0.0; rows.len()];
    for (row, back) in rows.chunks_exact(time).zip(back.chunks_exact_mut(time)) {
        MovingAverage { width }.backward(row, back);
    }
    back
}
