//! Some of the tokens or steps of each window.

use std::ops::Range;

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor, bail};

use super::tape::{self, Values};
use crate::models::neural::pass::Pass;

/// The `rows` of each window of `x [batch, tokens, width]`: `[batch, rows, width]`.
///
/// # Errors
/// If there are no such rows.
pub fn part(x: &Tensor, rows: Range<usize>, pass: &Pass) -> Result<Tensor> {
    let (_, tokens, width) = x.dims3()?;
    if rows == (0..tokens) {
        return Ok(x.clone());
    }
    if !pass.fuses(x) {
        return plain(x, rows);
    }
    if rows.start > rows.end || rows.end > tokens {
        bail!("a window of {tokens} rows has no rows {rows:?}");
    }
    pass.apply1(&x.contiguous()?, Part { window: tokens * width, numbers: rows.start * width..rows.end * width })
}

/// The same in candle's own operations.
///
/// # Errors
/// If there are no such rows.
pub fn plain(x: &Tensor, rows: Range<usize>) -> Result<Tensor> {
    x.narrow(1, rows.start, rows.len())?.contiguous()
}

struct Part {
    /// How many numbers a window has, and which of them are taken.
    window: usize,
    numbers: Range<usize>,
}

impl CustomOp1 for Part {
    fn name(&self) -> &'static str {
        "part"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = tape::slice(storage, layout)?;
        let (batch, _, width) = layout.shape().dims3()?;
        let mut out = Vec::with_capacity(batch * self.numbers.len());
        x.chunks_exact(self.window).for_each(|window| out.extend_from_slice(&window[self.numbers.clone()]));
        tape::result(out, (batch, self.numbers.len() / width, width))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let gradient = gradient.contiguous()?;
        let gradient = Values::of(&gradient);
        let mut back = vec![0.0; x.elem_count()];
        let windows = back.chunks_exact_mut(self.window);
        for (window, gradient) in windows.zip(gradient.slice()?.chunks_exact(self.numbers.len())) {
            window[self.numbers.clone()].copy_from_slice(gradient);
        }
        tape::tensor(back, x.shape()).map(Some)
    }
}
