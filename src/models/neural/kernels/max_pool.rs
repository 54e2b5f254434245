//! The largest of each few neighbours along time.

use candle_core::{CpuStorage, CustomOp1, D, Layout, Result, Shape, Tensor};
use multiversion::multiversion;

use super::tape::{self, Values};
use crate::models::neural::pass::Pass;

/// `x [.., time]` to `[.., time / rate]`: the largest of each `rate` neighbours. Of equal ones the first
/// gets the gradient.
///
/// # Errors
/// If `rate` does not divide the time.
pub fn max_pool(x: &Tensor, rate: usize, pass: &Pass) -> Result<Tensor> {
    if rate == 1 {
        return Ok(x.clone());
    }
    if !pass.fuses(x) {
        return plain(x, rate);
    }
    let op = MaxPool { rate };
    let x = x.contiguous()?;
    pass.apply1(&x, op)
}

/// The same in candle's own operations.
///
/// # Errors
/// If `rate` does not divide the time.
pub fn plain(x: &Tensor, rate: usize) -> Result<Tensor> {
    let groups = x.reshape((x.elem_count() / rate, rate))?;
    // Not `max`, whose gradient goes to all that are equal.
    let largest = groups.gather(&groups.argmax_keepdim(D::Minus1)?, 1)?;
    largest.reshape(pooled(x.dims(), rate)?)
}

fn pooled(dims: &[usize], rate: usize) -> Result<Shape> {
    match dims {
        [outer @ .., time] if time.is_multiple_of(rate) => Ok([outer, &[time / rate]].concat().into()),
        _ => candle_core::bail!("{dims:?} cannot be pooled by {rate}"),
    }
}

struct MaxPool {
    rate: usize,
}

impl CustomOp1 for MaxPool {
    fn name(&self) -> &'static str {
        "max-pool"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let shape = pooled(layout.dims(), self.rate)?;
        let mut out = vec![0.0; shape.elem_count()];
        forward(tape::slice(storage, layout)?, self.rate, &mut out);
        tape::result(out, shape)
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let gradient = gradient.contiguous()?;
        let (values, gradient) = (Values::of(x), Values::of(&gradient));
        let mut back = vec![0.0; x.elem_count()];
        let groups = values.slice()?.chunks_exact(self.rate).zip(back.chunks_exact_mut(self.rate));
        for ((group, back), gradient) in groups.zip(gradient.slice()?) {
            back[place_of_largest(group)] = *gradient;
        }
        tape::tensor(back, x.shape()).map(Some)
    }
}

#[multiversion(targets("x86_64+avx2+fma"))]
fn forward(x: &[f32], rate: usize, out: &mut [f32]) {
    for (group, out) in x.chunks_exact(rate).zip(out) {
        *out = group[place_of_largest(group)];
    }
}

#[inline(always)]
fn place_of_largest(group: &[f32]) -> usize {
    let mut place = 0;
    for index in 1..group.len() {
        if group[index] > group[place] {
            place = index;
        }
    }
    place
}
