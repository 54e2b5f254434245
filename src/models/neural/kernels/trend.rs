//! The moving average over the rows of `[batch, time, width]`, and its gradient, in one pass each way.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use multiversion::multiversion;

use super::{
    moving_average,
    product::Threads,
    tape::{self, Values},
};
use crate::models::neural::pass::Pass;

/// `x [batch, time, width]` averaged over `steps` (odd) rows centred on each; beyond both ends the edge
/// row is repeated (Wu et al., "Autoformer", 2021, equation 1).
///
/// # Errors
/// If the shape is another.
pub fn trend(x: &Tensor, steps: usize, pass: &Pass) -> Result<Tensor> {
    if !pass.fuses(x) {
        return plain(x, steps);
    }
    let op = Trend { half: steps / 2, threads: pass.threads() };
    let x = x.contiguous()?;
    if pass.is_training() { x.apply_op1(op) } else { x.apply_op1_no_bwd(&op) }
}

/// The same in candle's own operations.
///
/// # Errors
/// If the shape is another.
pub fn plain(x: &Tensor, steps: usize) -> Result<Tensor> {
    moving_average::plain(&x.transpose(1, 2)?.contiguous()?, steps)?.transpose(1, 2)?.contiguous()
}

struct Trend {
    /// Rows on either side.
    half: usize,
    threads: Threads,
}

impl Trend {
    fn windows(&self, x: &[f32], block: usize, each: impl Fn(&[f32], &mut [f32]) + Sync) -> Vec<f32> {
        let mut out = vec![0.0; x.len()];
        let windows = x.chunks_exact(block).zip(out.chunks_exact_mut(block));
        self.threads.each(windows, || (), |(), (x, out)| each(x, out));
        out
    }
}

/// Adds a row, and takes another away.
#[multiversion(targets("x86_64+avx2+fma"))]
fn slide(sums: &mut [f64], add: &[f32], less: &[f32]) {
    for ((sum, add), less) in sums.iter_mut().zip(add).zip(less) {
        *sum += f64::from(*add) - f64::from(*less);
    }
}

#[multiversion(targets("x86_64+avx2+fma"))]
fn add(sums: &mut [f64], row: &[f32], factor: f64) {
    sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += factor * f64::from(*value));
}

fn put(out: &mut [f32], sums: &[f64], divisor: f64) {
    out.iter_mut().zip(sums).for_each(|(out, sum)| *out = (sum / divisor) as f32);
}

/// One window; sums are kept in f64.
fn forward(x: &[f32], width: usize, half: usize, out: &mut [f32]) {
    let time = x.len() / width;
    let row = |step: isize| &x[step.clamp(0, time as isize - 1) as usize * width..][..width];
    let half = half as isize;
    let mut sums = vec![0.0; width];
    (-half..=half).for_each(|step| add(&mut sums, row(step), 1.0));
    for (step, out) in out.chunks_exact_mut(width).enumerate() {
        let step = step as isize;
        put(out, &sums, (2 * half + 1) as f64);
        slide(&mut sums, row(step + half + 1), row(step - half));
    }
}

/// What each row gets back from the averages it is in: those around it, and the edge rows from those
/// that reach beyond the edge.
fn backward(gradient: &[f32], width: usize, half: usize, back: &mut [f32]) {
    let time = gradient.len() / width;
    let zeros = vec![0.0; width];
    let row = |step: isize| match usize::try_from(step) {
        Ok(step) if step < time => &gradient[step * width..][..width],
        _ => &zeros[..],
    };
    let (reach, half) = (half.min(time), half as isize);
    let divisor = (2 * half + 1) as f64;
    let mut sums = vec![0.0; width];
    (-half..=half).for_each(|step| add(&mut sums, row(step), 1.0));
    let edge = |first: bool| {
        let mut sums = vec![0.0; width];
        for step in 0..reach as isize {
            add(&mut sums, row(if first { step } else { time as isize - 1 - step }), (half - step) as f64);
        }
        sums
    };
    for (step, back) in back.chunks_exact_mut(width).enumerate() {
        let at = step as isize;
        put(back, &sums, divisor);
        slide(&mut sums, row(at + half + 1), row(at - half));
        for (here, first) in [(step == 0, true), (step + 1 == time, false)] {
            if here {
                back.iter_mut().zip(edge(first)).for_each(|(back, sum)| *back += (sum / divisor) as f32);
            }
        }
    }
}

impl CustomOp1 for Trend {
    fn name(&self) -> &'static str {
        "trend"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (_, time, width) = layout.shape().dims3()?;
        let each = |x: &[f32], out: &mut [f32]| forward(x, width, self.half, out);
        tape::result(self.windows(tape::slice(storage, layout)?, time * width, each), layout.shape())
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let (_, time, width) = x.dims3()?;
        let gradient = gradient.contiguous()?;
        let values = Values::of(&gradient);
        let each = |gradient: &[f32], back: &mut [f32]| backward(gradient, width, self.half, back);
        tape::tensor(self.windows(values.slice()?, time * width, each), x.shape()).map(Some)
    }
}
