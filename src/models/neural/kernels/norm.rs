//! Layer normalisation, alone or of a sum with a residual, in one pass each way.
//!
//! Ba, Kiros & Hinton, "Layer Normalization", 2016, <https://arxiv.org/abs/1607.06450>. Over the last
//! axis, with PyTorch's epsilon inside the root.

use std::sync::Mutex;

use candle_core::{CpuStorage, CustomOp1, CustomOp2, D, Layout, Result, Shape, Tensor};
use multiversion::multiversion;

use super::{
    dropout::{self, Dropout},
    product::Threads,
    simd::sum_of,
    tape::{self, Values},
};
use crate::models::neural::{
    pass::{Pass, Sink},
    weights::Weight,
};

const EPSILON: f64 = 1e-5;

/// Scale and shift, `[width]` each.
#[derive(Clone)]
pub struct Affine {
    pub weight: Weight,
    pub bias: Weight,
}

/// `x` normalised over its last axis.
pub fn norm(x: &Tensor, affine: &Affine, pass: &Pass) -> Result<Tensor> {
    if !pass.fuses(x) {
        return plain(x, affine, pass);
    }
    let op = Norm::new(affine, None, pass);
    let x = pass.input_of(&[&affine.weight, &affine.bias], x)?;
    pass.apply1(&x, op)
}

/// `x + dropout(branch)`, normalised over its last axis.
pub fn add_norm(x: &Tensor, branch: &Tensor, affine: &Affine, dropout: Option<Dropout>, pass: &Pass) -> Result<Tensor> {
    if !pass.fuses(x) {
        return plain(&(x + dropout::plain(branch, dropout)?)?, affine, pass);
    }
    let op = Norm::new(affine, dropout, pass);
    let (x, branch) = (pass.input_of(&[&affine.weight, &affine.bias], x)?, branch.contiguous()?);
    pass.apply2(&x, &branch, op)
}

/// The same in candle's own operations.
pub fn plain(x: &Tensor, affine: &Affine, pass: &Pass) -> Result<Tensor> {
    let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
    let variance = centred.sqr()?.mean_keepdim(D::Minus1)?;
    let normal = centred.broadcast_div(&(variance + EPSILON)?.sqrt()?)?;
    normal.broadcast_mul(&pass.tensor(&affine.weight))?.broadcast_add(&pass.tensor(&affine.bias))
}

/// Rows that one of several threads takes at a time.
const ROWS: usize = 256;

struct Norm {
    affine: Affine,
    dropout: Option<Dropout>,
    sink: Option<Sink>,
    threads: Threads,
    /// What the backward pass needs: the normalised values, and 1/σ of each row.
    kept: Mutex<(Vec<f32>, Vec<f32>)>,
}

impl Norm {
    fn new(affine: &Affine, dropout: Option<Dropout>, pass: &Pass) -> Self {
        Self { affine: affine.clone(), dropout, sink: pass.sink(), threads: pass.threads(), kept: Mutex::default() }
    }

    /// Elements of the rows that are done at a time, of `len` of them.
    fn block(&self, len: usize, width: usize) -> usize {
        match self.threads {
            Threads::One => len.max(width),
            Threads::All => ROWS * width,
        }
    }

    fn forward(&self, x: &[f32], branch: Option<&[f32]>, shape: &Shape) -> Result<(CpuStorage, Shape)> {
        let (weight, bias) = (Values::of(self.affine.weight.tensor()), Values::of(self.affine.bias.tensor()));
        let affine = (weight.slice()?, bias.slice()?);
        let width = affine.0.len();
        let block = self.block(x.len(), width);
        let mut out = vec![0.0; x.len()];
        let keep = self.sink.is_some();
        let mut normal = vec![0.0; if keep { x.len() } else { 0 }];
        let mut inverses = vec![0.0; x.len() / width];
        {
            let mut kept = normal.chunks_mut(block);
            let results = out.chunks_mut(block).zip(inverses.chunks_mut(block / width)).enumerate();
            let blocks = results.map(|(index, (out, inverses))| (index * block, out, inverses, kept.next()));
            self.threads.each(
                blocks,
                || vec![0.0; width],
                |scratch, (start, out, inverses, normal)| {
                    let part = start..start + out.len();
                    let branch = branch.map(|branch| &branch[part.clone()]);
                    let dropout = self.dropout.map(|dropout| dropout.after(start));
                    let normal = normal.unwrap_or(scratch);
                    forward(&x[part], branch, dropout, affine, keep, normal, inverses, out);
                },
            );
        }
        if keep {
            *self.kept.lock().expect("no thread panics holding it") = (normal, inverses);
        }
        tape::result(out, shape)
    }

    /// The gradients of the sum that is normalised, and of the branch in it.
    fn backward(&self, gradient: &Tensor) -> Result<(Tensor, Tensor)> {
        let gradient = gradient.contiguous()?;
        let shape = gradient.shape();
        let gradient = Values::of(&gradient);
        let gradient = gradient.slice()?;
        let weight = Values::of(self.affine.weight.tensor());
        let weight = weight.slice()?;
        let width = weight.len();
        let (normal, inverses) = std::mem::take(&mut *self.kept.lock().expect("no thread panics holding it"));
        let block = self.block(gradient.len(), width);
        let mut back = vec![0.0; gradient.len()];
        // The gradients of scale and shift from each block, added in order.
        let mut parts = vec![0.0; gradient.len().div_ceil(block) * 2 * width];
        let results = back.chunks_mut(block).zip(parts.chunks_exact_mut(2 * width));
        let kept = normal.chunks(block).zip(inverses.chunks(block / width));
        self.threads.each(
            gradient.chunks(block).zip(kept).zip(results),
            || (),
            |(), ((gradient, (normal, inverses)), (back, part))| {
                backward(gradient, weight, normal, inverses, part.split_at_mut(width), back);
            },
        );
        {
            let mut into = self.sink.as_ref().expect("an operation on the tape has a sink").lock();
            for part in parts.chunks_exact(2 * width) {
                for (weight, gradient) in [(&self.affine.weight, &part[..width]), (&self.affine.bias, &part[width..])] {
                    if weight.is_trained() {
                        into.add(weight, gradient);
                    }
                }
            }
        }
        let branch = self.dropout.as_ref().map(|dropout| dropout.masked(&back, self.threads));
        let back = tape::tensor(back, shape)?;
        let branch = branch.map_or_else(|| Ok(back.clone()), |branch| tape::tensor(branch, shape))?;
        Ok((back, branch))
    }
}

#[multiversion(targets("x86_64+avx2+fma"))]
#[expect(clippy::too_many_arguments, reason = "all slices of one loop")]
fn forward(
    x: &[f32],
    branch: Option<&[f32]>,
    dropout: Option<Dropout>,
    (weight, bias): (&[f32], &[f32]),
    keep: bool,
    normal: &mut [f32],
    inverses: &mut [f32],
    out: &mut [f32],
) {
    let width = weight.len();
    for (row, inverse) in inverses.iter_mut().enumerate() {
        let at = row * width;
        let normal = if keep { &mut normal[at..at + width] } else { &mut normal[..width] };
        let (out, x) = (&mut out[at..at + width], &x[at..at + width]);
        normal.copy_from_slice(x);
        if let Some(branch) = branch {
            let branch = &branch[at..at + width];
            match dropout {
                None => normal.iter_mut().zip(branch).for_each(|(sum, branch)| *sum += branch),
                Some(dropout) => {
                    for (column, (sum, branch)) in normal.iter_mut().zip(branch).enumerate() {
                        *sum = branch.mul_add(dropout.factor(at + column), *sum);
                    }
                }
            }
        }
        let mean = sum_of(width, |column| normal[column]) / width as f32;
        let variance = sum_of(width, |column| (normal[column] - mean) * (normal[column] - mean)) / width as f32;
        *inverse = 1.0 / (variance + EPSILON as f32).sqrt();
        for (((normal, out), weight), bias) in normal.iter_mut().zip(out).zip(weight).zip(bias) {
            *normal = (*normal - mean) * *inverse;
            *out = normal.mul_add(*weight, *bias);
        }
    }
}

#[multiversion(targets("x86_64+avx2+fma"))]
fn backward(
    gradient: &[f32],
    weight: &[f32],
    normal: &[f32],
    inverses: &[f32],
    (to_weight, to_bias): (&mut [f32], &mut [f32]),
    back: &mut [f32],
) {
    let width = weight.len();
    let rows = gradient.chunks_exact(width).zip(normal.chunks_exact(width)).zip(back.chunks_exact_mut(width));
    for (((gradient, normal), back), inverse) in rows.zip(inverses) {
        for column in 0..width {
            to_bias[column] += gradient[column];
            to_weight[column] = gradient[column].mul_add(normal[column], to_weight[column]);
            back[column] = gradient[column] * weight[column];
        }
        let mean = sum_of(width, |column| back[column]) / width as f32;
        let along = sum_of(width, |column| back[column] * normal[column]) / width as f32;
        for (back, normal) in back.iter_mut().zip(normal) {
            *back = (*back - mean - normal * along) * inverse;
        }
    }
}

impl CustomOp1 for Norm {
    fn name(&self) -> &'static str {
        "norm"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        self.forward(tape::slice(storage, layout)?, None, layout.shape())
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(self.backward(gradient)?.0))
    }
}

impl CustomOp2 for Norm {
    fn name(&self) -> &'static str {
        "add-norm"
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
        let (back, branch) = self.backward(gradient)?;
        Ok((Some(back), Some(branch)))
    }
}
