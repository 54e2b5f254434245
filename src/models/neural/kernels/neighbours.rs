//! Each step beside the one before it and the one after it, around the ends: the input of a circular
//! convolution of width 3.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};

use super::{
    product::Threads,
    tape::{self, Values},
};
use crate::models::neural::pass::Pass;

/// Steps that one output looks at.
pub const WIDTH: usize = 3;

/// `x [batch, time, channels]`, continued around both ends by `padding` steps, as `[batch, time + 2 ·
/// padding - 2, channels · 3]`: each channel's three steps side by side, as PyTorch keeps the weights of
/// a convolution.
///
/// # Errors
/// If the shape is another.
pub fn neighbours(x: &Tensor, padding: usize, pass: &Pass) -> Result<Tensor> {
    if !pass.fuses(x) {
        return plain(x, padding);
    }
    let op = Neighbours { padding, threads: pass.threads() };
    let x = x.contiguous()?;
    pass.apply1(&x, op)
}

/// The same in candle's own operations.
///
/// # Errors
/// If the shape is another.
pub fn plain(x: &Tensor, padding: usize) -> Result<Tensor> {
    let (batch, time, channels) = x.dims3()?;
    let steps = time + 2 * padding + 1 - WIDTH;
    let parts = (0..WIDTH).map(|offset| {
        let from = (0..steps).map(|step| source(step, offset, padding, time) as u32);
        x.index_select(&Tensor::from_vec(from.collect::<Vec<_>>(), steps, x.device())?, 1)
    });
    Tensor::stack(&parts.collect::<Result<Vec<_>>>()?, 3)?.reshape((batch, steps, channels * WIDTH))
}

/// The step that stands at place `offset` of three of output `step`.
fn source(step: usize, offset: usize, padding: usize, time: usize) -> usize {
    (step + offset + time * padding - padding) % time
}

struct Neighbours {
    padding: usize,
    threads: Threads,
}

impl Neighbours {
    fn steps(&self, time: usize) -> usize {
        time + 2 * self.padding + 1 - WIDTH
    }
}

impl CustomOp1 for Neighbours {
    fn name(&self) -> &'static str {
        "neighbours"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (batch, time, channels) = layout.shape().dims3()?;
        let x = tape::slice(storage, layout)?;
        let steps = self.steps(time);
        let mut out = vec![0.0; batch * steps * channels * WIDTH];
        let windows = x.chunks_exact(time * channels).zip(out.chunks_exact_mut(steps * channels * WIDTH));
        self.threads.each(
            windows,
            || (),
            |(), (x, out)| {
                for (step, out) in out.chunks_exact_mut(channels * WIDTH).enumerate() {
                    for offset in 0..WIDTH {
                        let x = &x[source(step, offset, self.padding, time) * channels..][..channels];
                        out[offset..].iter_mut().step_by(WIDTH).zip(x).for_each(|(out, x)| *out = *x);
                    }
                }
            },
        );
        tape::result(out, (batch, steps, channels * WIDTH))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let (_, time, channels) = x.dims3()?;
        let gradient = gradient.contiguous()?;
        let values = Values::of(&gradient);
        let mut back = vec![0.0; x.elem_count()];
        let steps = self.steps(time);
        let windows =
            back.chunks_exact_mut(time * channels).zip(values.slice()?.chunks_exact(steps * channels * WIDTH));
        self.threads.each(
            windows,
            || (),
            |(), (back, gradient)| {
                for (step, gradient) in gradient.chunks_exact(channels * WIDTH).enumerate() {
                    for offset in 0..WIDTH {
                        let back = &mut back[source(step, offset, self.padding, time) * channels..][..channels];
                        let gradient = gradient[offset..].iter().step_by(WIDTH);
                        back.iter_mut().zip(gradient).for_each(|(back, gradient)| *back += gradient);
                    }
                }
            },
        );
        tape::tensor(back, x.shape()).map(Some)
    }
}
