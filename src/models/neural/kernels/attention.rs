//! Scaled dot-product attention that keeps nothing of size queries × keys.
//!
//! softmax(Q Kᵀ / √d) V for each head (Vaswani et al., 2017, equation 1), a block of queries at a
//! time. The forward pass keeps the logarithm of each softmax's denominator; the backward pass
//! computes the probabilities from it again (Dao et al., "FlashAttention", 2022,
//! <https://arxiv.org/abs/2205.14135>, appendix B).

use std::sync::Mutex;

use candle_core::{CpuStorage, CustomOp1, CustomOp2, D, Layout, Result, Shape, Tensor};
use multiversion::multiversion;
use ndarray::{ArrayView2, ArrayViewMut2, ShapeBuilder, s};

use super::{
    dropout::{self, Dropout},
    product::{Threads, Write, matrix, matrix_mut, product},
    simd::{exp, largest_of, sum_of},
    tape::{self, Values},
};
use crate::models::neural::pass::Pass;

/// Queries whose scores are in memory at once; the unit of work, whoever does it.
const BLOCK: usize = 128;

/// Attention of each token to all: `qkv` is `[batch, tokens, 3 · d_model]`, queries, keys and values
/// side by side; the result `[batch, tokens, d_model]`.
pub fn self_attention(qkv: &Tensor, heads: usize, dropout: Option<Dropout>, pass: &Pass) -> Result<Tensor> {
    let width = qkv.dim(D::Minus1)? / 3;
    if !pass.fuses(qkv) {
        return plain(&qkv.narrow(2, 0, width)?, &qkv.narrow(2, width, 2 * width)?, heads, dropout);
    }
    let op = Attention { heads, dropout, threads: pass.threads(), kept: Mutex::default() };
    let qkv = qkv.contiguous()?;
    pass.apply1(&qkv, op)
}

/// Attention of `queries [batch, queries, d_model]` to the keys and values, side by side, of
/// `kv [batch, keys, 2 · d_model]`; the result is like the queries.
pub fn attention(queries: &Tensor, kv: &Tensor, heads: usize, dropout: Option<Dropout>, pass: &Pass) -> Result<Tensor> {
    if !pass.fuses(kv) {
        return plain(queries, kv, heads, dropout);
    }
    let op = Attention { heads, dropout, threads: pass.threads(), kept: Mutex::default() };
    let (queries, kv) = (queries.contiguous()?, kv.contiguous()?);
    pass.apply2(&queries, &kv, op)
}

/// The same in candle's own operations.
pub fn plain(queries: &Tensor, kv: &Tensor, heads: usize, dropout: Option<Dropout>) -> Result<Tensor> {
    let (batch, rows, width) = queries.dims3()?;
    let split = |tensor: Tensor| tensor.reshape((batch, (), heads, width / heads))?.transpose(1, 2)?.contiguous();
    let (q, k) = (split(queries.clone())?, split(kv.narrow(2, 0, width)?)?);
    let v = split(kv.narrow(2, width, width)?)?;
    let scores = (q.matmul(&k.t()?)? / ((width / heads) as f64).sqrt())?;
    let scores = scores.broadcast_sub(&scores.max_keepdim(D::Minus1)?.detach())?.exp()?;
    let probabilities = scores.broadcast_div(&scores.sum_keepdim(D::Minus1)?)?;
    dropout::plain(&probabilities, dropout)?.matmul(&v)?.transpose(1, 2)?.reshape((batch, rows, width))
}

/// Rows of `width` columns, `stride` apart, that begin `start` into a slice.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub rows: usize,
    pub width: usize,
    pub stride: usize,
    pub start: usize,
}

impl Place {
    pub fn of<'a>(&self, values: &'a [f32]) -> ArrayView2<'a, f32> {
        let shape = (self.rows, self.width).strides((self.stride, 1));
        ArrayView2::from_shape(shape, &values[self.start..]).expect("heads lie inside their tensor")
    }

    pub fn of_mut<'a>(&self, values: &'a mut [f32]) -> ArrayViewMut2<'a, f32> {
        let shape = (self.rows, self.width).strides((self.stride, 1));
        ArrayViewMut2::from_shape(shape, &mut values[self.start..]).expect("heads lie inside their tensor")
    }

    pub fn set(&self, values: &mut [f32], part: &[f32]) {
        self.of_mut(values).assign(&matrix(part, self.width));
    }
}

/// Where one head of one window has its parts.
#[derive(Clone, Copy)]
pub(super) struct Head {
    /// Its number among those of all windows of this tensor.
    number: usize,
    pub q: Place,
    pub k: Place,
    pub v: Place,
    out: Place,
}

struct Attention {
    heads: usize,
    dropout: Option<Dropout>,
    threads: Threads,
    /// For each query and head, the logarithm of the denominator of its softmax.
    kept: Mutex<Vec<f32>>,
}

/// Sizes of queries and keys, and how they lie in memory.
pub(super) struct Sizes {
    pub batch: usize,
    pub queries: usize,
    pub keys: usize,
    pub d_model: usize,
    /// Row strides of queries and of keys, and where keys begin in a row of theirs.
    strides: (usize, usize),
    keys_at: usize,
}

impl Sizes {
    pub fn packed(shape: &Shape) -> Result<Self> {
        let (batch, tokens, width) = shape.dims3()?;
        let d_model = width / 3;
        Ok(Self { batch, queries: tokens, keys: tokens, d_model, strides: (width, width), keys_at: d_model })
    }

    pub fn apart(queries: &Shape, kv: &Shape) -> Result<Self> {
        let ((batch, queries, d_model), (_, keys, width)) = (queries.dims3()?, kv.dims3()?);
        Ok(Self { batch, queries, keys, d_model, strides: (d_model, width), keys_at: 0 })
    }

    fn heads(&self, heads: usize) -> impl Iterator<Item = Head> + '_ {
        (0..self.batch).flat_map(move |window| self.heads_of(window, heads))
    }

    fn heads_of(&self, window: usize, heads: usize) -> impl Iterator<Item = Head> + '_ {
        (0..heads).map(move |head| self.head(window, heads, head))
    }

    /// Number `head` of the `heads` of a window.
    pub fn head(&self, window: usize, heads: usize, head: usize) -> Head {
        let width = self.d_model / heads;
        let (number, column) = (window * heads + head, head * width);
        let place = |rows: usize, stride: usize, column: usize| {
            let start = window * rows * stride + column;
            Place { rows, width, stride, start }
        };
        Head {
            number,
            q: place(self.queries, self.strides.0, column),
            k: place(self.keys, self.strides.1, self.keys_at + column),
            v: place(self.keys, self.strides.1, self.keys_at + self.d_model + column),
            out: place(self.queries, self.d_model, column),
        }
    }

    pub fn scale(&self, heads: usize) -> f32 {
        1.0 / ((self.d_model / heads) as f32).sqrt()
    }
}

impl Attention {
    /// `q` and `kv` may be one and the same slice.
    fn forward(&self, q: &[f32], kv: &[f32], sizes: &Sizes) -> Result<(CpuStorage, Shape)> {
        let Sizes { batch, queries, d_model, .. } = *sizes;
        let mut out = vec![0.0; batch * queries * d_model];
        let mut logarithms = vec![0.0; batch * queries * self.heads];
        let windows = out.chunks_mut(queries * d_model).zip(logarithms.chunks_mut(queries * self.heads)).enumerate();
        let blocks = windows.flat_map(|(window, (out, logarithms))| {
            let blocks = out.chunks_mut(BLOCK * d_model).zip(logarithms.chunks_mut(BLOCK * self.heads)).enumerate();
            blocks.map(move |(block, (out, logarithms))| (window, block * BLOCK, out, logarithms))
        });
        self.threads.each(blocks, Vec::new, |scores, block| self.block(q, kv, sizes, block, scores));
        *self.kept.lock().expect("no thread panics holding it") = logarithms;
        tape::result(out, (batch, queries, d_model))
    }

    /// The queries of one window from `first` on, all heads of them: their results and logarithms.
    fn block(
        &self,
        q: &[f32],
        kv: &[f32],
        sizes: &Sizes,
        (window, first, out, logarithms): (usize, usize, &mut [f32], &mut [f32]),
        scores: &mut Vec<f32>,
    ) {
        let Sizes { queries, keys, d_model, .. } = *sizes;
        let rows = out.len() / d_model;
        scores.resize(rows * keys, 0.0);
        let width = d_model / self.heads;
        for (column, head) in sizes.heads_of(window, self.heads).enumerate() {
            let q = head.q.of(q).slice_move(s![first..first + rows, ..]);
            product(matrix_mut(scores, keys), Write::Set, q, head.k.of(kv).t(), sizes.scale(self.heads));
            softmax(scores, keys, logarithms[column..].iter_mut().step_by(self.heads));
            if let Some(dropout) = &self.dropout {
                dropout.mask(scores, (head.number * queries + first) * keys);
            }
            let out = matrix_mut(out, d_model).slice_move(s![.., column * width..(column + 1) * width]);
            product(out, Write::Set, matrix(scores, keys), head.v.of(kv), 1.0);
        }
    }

    /// Gradients of the queries, keys and values of each head, given to `write`.
    fn backward(
        &self,
        q: &[f32],
        kv: &[f32],
        gradient: &[f32],
        sizes: &Sizes,
        mut write: impl FnMut(Head, [&[f32]; 3]),
    ) {
        let Sizes { queries, keys, .. } = *sizes;
        let width = sizes.d_model / self.heads;
        let logarithms = std::mem::take(&mut *self.kept.lock().expect("no thread panics holding it"));
        let rows = BLOCK.min(queries);
        let (mut probabilities, mut dropped, mut d_scores) =
            (vec![0.0; rows * keys], vec![0.0; rows * keys], vec![0.0; rows * keys]);
        let (mut dq, mut dk, mut dv) = (vec![0.0; queries * width], vec![0.0; keys * width], vec![0.0; keys * width]);
        let scale = sizes.scale(self.heads);
        for head in sizes.heads(self.heads) {
            let (k, v) = (head.k.of(kv), head.v.of(kv));
            for first in (0..queries).step_by(BLOCK) {
                let block = first..(first + BLOCK).min(queries);
                let at = head.number * queries + first;
                let size = block.len() * keys;
                let q = head.q.of(q).slice_move(s![block.clone(), ..]);
                let d_out = head.out.of(gradient).slice_move(s![block.clone(), ..]);
                let probabilities = &mut probabilities[..size];
                product(matrix_mut(probabilities, keys), Write::Set, q, k.t(), scale);
                let of_window = head.number / self.heads * queries * self.heads;
                let own = logarithms[of_window + first * self.heads + head.number % self.heads..].iter();
                again(probabilities, keys, own.step_by(self.heads));
                let dropped = &mut dropped[..size];
                dropped.copy_from_slice(probabilities);
                if let Some(dropout) = &self.dropout {
                    dropout.mask(dropped, at * keys);
                }
                let over = if first == 0 { Write::Set } else { Write::Add };
                product(matrix_mut(&mut dv, width), over, matrix_mut(dropped, keys).t(), d_out, 1.0);
                let d_scores = &mut d_scores[..size];
                product(matrix_mut(d_scores, keys), Write::Set, d_out, v.t(), 1.0);
                if let Some(dropout) = &self.dropout {
                    dropout.mask(d_scores, at * keys);
                }
                through_softmax(d_scores, probabilities, keys);
                let d_scores = matrix_mut(d_scores, keys);
                product(matrix_mut(&mut dk, width), over, d_scores.t(), q, scale);
                let dq = &mut dq[block.start * width..block.end * width];
                product(matrix_mut(dq, width), Write::Set, d_scores.view(), k, scale);
            }
            write(head, [&dq, &dk, &dv]);
        }
    }
}

/// Each row of `keys` scores becomes probabilities; the logarithms of the denominators go to `kept`.
#[multiversion(targets("x86_64+avx2+fma"))]
fn softmax<'a>(scores: &mut [f32], keys: usize, kept: impl Iterator<Item = &'a mut f32>) {
    for (row, kept) in scores.chunks_exact_mut(keys).zip(kept) {
        let largest = largest_of(row);
        row.iter_mut().for_each(|score| *score = exp(*score - largest));
        let sum = sum_of(keys, |key| row[key]);
        let factor = 1.0 / sum;
        row.iter_mut().for_each(|score| *score *= factor);
        *kept = largest + sum.ln();
    }
}

/// Scores become the probabilities they were, by the logarithms kept then.
#[multiversion(targets("x86_64+avx2+fma"))]
fn again<'a>(scores: &mut [f32], keys: usize, kept: impl Iterator<Item = &'a f32>) {
    for (row, logarithm) in scores.chunks_exact_mut(keys).zip(kept) {
        row.iter_mut().for_each(|score| *score = exp(*score - logarithm));
    }
}

/// Gradients of probabilities become those of scores.
#[multiversion(targets("x86_64+avx2+fma"))]
pub(super) fn through_softmax(gradients: &mut [f32], probabilities: &[f32], keys: usize) {
    for (gradients, probabilities) in gradients.chunks_exact_mut(keys).zip(probabilities.chunks_exact(keys)) {
        let mean = sum_of(keys, |key| gradients[key] * probabilities[key]);
        for (gradient, probability) in gradients.iter_mut().zip(probabilities) {
            *gradient = (*gradient - mean) * probability;
        }
    }
}

impl CustomOp1 for Attention {
    fn name(&self) -> &'static str {
        "self-attention"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let qkv = tape::slice(storage, layout)?;
        self.forward(qkv, qkv, &Sizes::packed(layout.shape())?)
    }

    fn bwd(&self, qkv: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let gradient = gradient.contiguous()?;
        let (qkv_values, gradient) = (Values::of(qkv), Values::of(&gradient));
        let values = qkv_values.slice()?;
        let mut back = vec![0.0; values.len()];
        self.backward(values, values, gradient.slice()?, &Sizes::packed(qkv.shape())?, |head, parts| {
            for (place, part) in [head.q, head.k, head.v].into_iter().zip(parts) {
                place.set(&mut back, part);
            }
        });
        tape::tensor(back, qkv.shape()).map(Some)
    }
}

impl CustomOp2 for Attention {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn cpu_fwd(
        &self,
        queries: &CpuStorage,
        queries_layout: &Layout,
        kv: &CpuStorage,
        kv_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let sizes = Sizes::apart(queries_layout.shape(), kv_layout.shape())?;
        self.forward(tape::slice(queries, queries_layout)?, tape::slice(kv, kv_layout)?, &sizes)
    }

    fn bwd(
        &self,
        queries: &Tensor,
        kv: &Tensor,
        _: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let gradient = gradient.contiguous()?;
        let (q_values, kv_values, gradient) = (Values::of(queries), Values::of(kv), Values::of(&gradient));
        let (q, key_values) = (q_values.slice()?, kv_values.slice()?);
        let (mut to_q, mut to_kv) = (vec![0.0; q.len()], vec![0.0; key_values.len()]);
        let sizes = Sizes::apart(queries.shape(), kv.shape())?;
        self.backward(q, key_values, gradient.slice()?, &sizes, |head, [dq, dk, dv]| {
            head.q.set(&mut to_q, dq);
            head.k.set(&mut to_kv, dk);
            head.v.set(&mut to_kv, dv);
        });
        Ok((Some(tape::tensor(to_q, queries.shape())?), Some(tape::tensor(to_kv, kv.shape())?)))
    }
}
