//! Series decomposition: a sum with a residual, its moving average over the rows of `[batch, time, width]`,
//! or what is left without it, in one pass each way. Nothing is kept for the way back.

use candle_core::{CpuStorage, CustomOp1, CustomOp2, Layout, Result, Shape, Tensor};
use multiversion::multiversion;

use super::{
    dropout::{self, Dropout},
    moving_average,
    product::Threads,
    tape::{self, Values},
};
use crate::models::neural::pass::Pass;

/// The two parts of a series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Component {
    /// The mean of the rows around each; beyond both ends the edge row is repeated.
    Trend,
    /// What is left.
    Seasonal,
}

/// A component of `x [batch, time, width]`, averaged over `steps` (odd) rows centred on each (Wu et al.,
/// "Autoformer", 2021, equation 1).
///
/// # Errors
/// If the shape is another.
pub fn decompose(x: &Tensor, component: Component, steps: usize, pass: &Pass) -> Result<Tensor> {
    if !pass.fuses(x) {
        return plain(x, component, steps);
    }
    let op = Decomposition { component, half: steps / 2, dropout: None, threads: pass.threads() };
    let x = x.contiguous()?;
    pass.apply1(&x, op)
}

/// A component of `x + dropout(branch)`.
///
/// # Errors
/// If the shapes are others.
pub fn add_decompose(
    x: &Tensor,
    branch: &Tensor,
    component: Component,
    steps: usize,
    dropout: Option<Dropout>,
    pass: &Pass,
) -> Result<Tensor> {
    if !pass.fuses(x) {
        return plain(&(x + dropout::plain(branch, dropout)?)?, component, steps);
    }
    let op = Decomposition { component, half: steps / 2, dropout, threads: pass.threads() };
    let (x, branch) = (x.contiguous()?, branch.contiguous()?);
    pass.apply2(&x, &branch, op)
}

/// [`decompose`] in candle's own operations.
///
/// # Errors
/// If the shape is another.
pub fn plain(x: &Tensor, component: Component, steps: usize) -> Result<Tensor> {
    let trend = moving_average::plain(&x.transpose(1, 2)?.contiguous()?, steps)?.transpose(1, 2)?.contiguous()?;
    match component {
        Component::Trend => Ok(trend),
        Component::Seasonal => x - trend,
    }
}

struct Decomposition {
    component: Component,
    /// Rows on either side.
    half: usize,
    dropout: Option<Dropout>,
    threads: Threads,
}

impl Decomposition {
    fn forward(&self, x: &[f32], branch: Option<&[f32]>, shape: &Shape) -> Result<(CpuStorage, Shape)> {
        let (_, time, width) = shape.dims3()?;
        let block = time * width;
        let mut out = vec![0.0; x.len()];
        let windows = out.chunks_exact_mut(block).zip(x.chunks_exact(block)).enumerate();
        self.threads.each(windows, Vec::new, |scratch: &mut Vec<f32>, (window, (out, x))| {
            let sum = match branch {
                None => x,
                Some(branch) => {
                    scratch.clear();
                    scratch.extend_from_slice(&branch[window * block..][..block]);
                    if let Some(dropout) = self.dropout {
                        dropout.mask(scratch, window * block);
                    }
                    scratch.iter_mut().zip(x).for_each(|(sum, x)| *sum += x);
                    &scratch[..]
                }
            };
            forward(sum, width, self.half, out);
            if self.component == Component::Seasonal {
                out.iter_mut().zip(sum).for_each(|(out, sum)| *out = sum - *out);
            }
        });
        tape::result(out, shape)
    }

    /// The gradients of the sum, and of the branch in it.
    fn backward(&self, gradient: &Tensor, branch: bool) -> Result<(Tensor, Tensor)> {
        let (_, time, width) = gradient.dims3()?;
        let block = time * width;
        let gradient = gradient.contiguous()?;
        let values = Values::of(&gradient);
        let values = values.slice()?;
        let mut back = vec![0.0; values.len()];
        let windows = back.chunks_exact_mut(block).zip(values.chunks_exact(block));
        self.threads.each(
            windows,
            || (),
            |(), (back, gradient)| {
                backward(gradient, width, self.half, back);
                if self.component == Component::Seasonal {
                    back.iter_mut().zip(gradient).for_each(|(back, gradient)| *back = gradient - *back);
                }
            },
        );
        let masked = self.dropout.filter(|_| branch).map(|dropout| dropout.masked(&back, self.threads));
        let back = tape::tensor(back, gradient.shape())?;
        let branch = masked.map_or_else(|| Ok(back.clone()), |branch| tape::tensor(branch, gradient.shape()))?;
        Ok((back, branch))
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

impl CustomOp1 for Decomposition {
    fn name(&self) -> &'static str {
        "decompose"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        self.forward(tape::slice(storage, layout)?, None, layout.shape())
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(self.backward(gradient, false)?.0))
    }
}

impl CustomOp2 for Decomposition {
    fn name(&self) -> &'static str {
        "add-decompose"
    }

    fn cpu_fwd(
        &self,
        storage: &CpuStorage,
        layout: &Layout,
        branch: &CpuStorage,
        branch_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let branch = tape::slice(branch, branch_layout)?;
        self.forward(tape::slice(storage, layout)?, Some(branch), layout.shape())
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (back, branch) = self.backward(gradient, true)?;
        Ok((Some(back), Some(branch)))
    }
}
