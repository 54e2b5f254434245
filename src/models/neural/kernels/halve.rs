//! The largest of three neighbouring steps at every second one, through the exponential linear unit:
//! half as many steps.
//!
//! Zhou et al., "Informer", AAAI 2021, <https://arxiv.org/abs/2012.07436>, equation 5, has the unit first. It
//! grows with its argument, so that it may as well come after the choice, on half of the elements.

use std::sync::Mutex;

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use multiversion::multiversion;

use super::{
    product::Threads,
    simd::exp,
    tape::{self, Values},
};
use crate::models::neural::pass::Pass;

/// Steps from one maximum to the next.
const STRIDE: usize = 2;

/// `x [batch, time, width]` -> `[batch, ⌈time / 2⌉, width]`.
///
/// # Errors
/// If the shape is another.
pub fn halve(x: &Tensor, pass: &Pass) -> Result<Tensor> {
    if !pass.fuses(x) {
        return plain(x);
    }
    let op = Halve { threads: pass.threads(), kept: Mutex::default() };
    let x = x.contiguous()?;
    pass.apply1(&x, op)
}

/// The same in candle's own operations.
///
/// # Errors
/// If the shape is another.
pub fn plain(x: &Tensor) -> Result<Tensor> {
    let time = x.dim(1)?;
    // A step beyond an end is the one at the end once more, which changes no maximum.
    let part = |offset: usize| {
        let from = (0..time.div_ceil(STRIDE)).map(|step| (STRIDE * step + offset).clamp(1, time) as u32 - 1);
        x.index_select(&Tensor::from_vec(from.collect::<Vec<_>>(), time.div_ceil(STRIDE), x.device())?, 1)
    };
    part(0)?.maximum(&part(1)?)?.maximum(&part(2)?)?.elu(1.0)
}

struct Halve {
    threads: Threads,
    /// Which step each element came from: 0 is the one before.
    kept: Mutex<Vec<u8>>,
}

#[multiversion(targets("x86_64+avx2+fma"))]
fn forward(x: &[f32], width: usize, out: &mut [f32], chosen: &mut [u8]) {
    let time = x.len() / width;
    let row = |step: usize| &x[step * width..][..width];
    for (step, (out, chosen)) in out.chunks_exact_mut(width).zip(chosen.chunks_exact_mut(width)).enumerate() {
        let middle = STRIDE * step;
        out.copy_from_slice(row(middle));
        chosen.fill(1);
        for (offset, other) in [(0, middle.wrapping_sub(1)), (2, middle + 1)] {
            if other < time {
                for ((out, chosen), x) in out.iter_mut().zip(&mut *chosen).zip(row(other)) {
                    if *x > *out {
                        (*out, *chosen) = (*x, offset);
                    }
                }
            }
        }
        out.iter_mut().for_each(|value| *value = if *value > 0.0 { *value } else { exp(*value) - 1.0 });
    }
}

fn backward(gradient: &[f32], out: &[f32], chosen: &[u8], width: usize, back: &mut [f32]) {
    for (index, ((gradient, out), chosen)) in gradient.iter().zip(out).zip(chosen).enumerate() {
        let from = STRIDE * (index / width) + usize::from(*chosen) - 1;
        back[from * width + index % width] += if *out > 0.0 { *gradient } else { gradient * (out + 1.0) };
    }
}

impl CustomOp1 for Halve {
    fn name(&self) -> &'static str {
        "halve"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (batch, time, width) = layout.shape().dims3()?;
        let x = tape::slice(storage, layout)?;
        let steps = time.div_ceil(STRIDE);
        let (mut out, mut chosen) = (vec![0.0; batch * steps * width], vec![0; batch * steps * width]);
        let results = out.chunks_exact_mut(steps * width).zip(chosen.chunks_exact_mut(steps * width));
        let windows = x.chunks_exact(time * width).zip(results);
        self.threads.each(windows, || (), |(), (x, (out, chosen))| forward(x, width, out, chosen));
        *self.kept.lock().expect("no thread panics holding it") = chosen;
        tape::result(out, (batch, steps, width))
    }

    fn bwd(&self, x: &Tensor, out: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let (_, time, width) = x.dims3()?;
        let gradient = gradient.contiguous()?;
        let (out, gradient) = (Values::of(out), Values::of(&gradient));
        let chosen = std::mem::take(&mut *self.kept.lock().expect("no thread panics holding it"));
        let block = time.div_ceil(STRIDE) * width;
        let mut back = vec![0.0; x.elem_count()];
        let results = gradient.slice()?.chunks_exact(block).zip(out.slice()?.chunks_exact(block));
        let windows = back.chunks_exact_mut(time * width).zip(results.zip(chosen.chunks_exact(block)));
        self.threads.each(
            windows,
            || (),
            |(), (back, ((gradient, out), chosen))| backward(gradient, out, chosen, width, back),
        );
        tape::tensor(back, x.shape()).map(Some)
    }
}
