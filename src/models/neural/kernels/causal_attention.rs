//! Attention of each of a few tokens to itself and those before it.
//!
//! softmax(Q Kᵀ / √d) V for each head (Vaswani et al., 2017, equation 1), the keys behind a query left
//! out. With some ten tokens a matrix product costs more to call than to do, so there is none here, and
//! the probabilities, which are few, are kept for the way back.

use std::sync::Mutex;

use candle_core::{CpuStorage, CustomOp1, D, Layout, Result, Shape, Tensor, bail};
use multiversion::multiversion;

use super::{
    dropout::{self, Dropout},
    product::Threads,
    simd::{exp, largest_of, sum_of},
    tape::{self, Values},
};
use crate::models::neural::pass::Pass;

/// `qkv` is `[batch, series · tokens, 3 · d_model]`, queries, keys and values side by side; the result `[batch,
/// series · tokens, d_model]`. The probabilities that `dropout` drops of are `[batch · series, heads, tokens,
/// tokens]`.
///
/// # Errors
/// If the shape is another.
pub fn causal_attention(
    qkv: &Tensor,
    tokens: usize,
    heads: usize,
    dropout: Option<Dropout>,
    pass: &Pass,
) -> Result<Tensor> {
    if !pass.fuses(qkv) {
        return plain(qkv, tokens, heads, dropout);
    }
    let op = CausalAttention { tokens, heads, dropout, threads: pass.threads(), kept: Mutex::default() };
    let qkv = qkv.contiguous()?;
    pass.apply1(&qkv, op)
}

/// The same in candle's own operations.
///
/// # Errors
/// If the shape is another.
pub fn plain(qkv: &Tensor, tokens: usize, heads: usize, dropout: Option<Dropout>) -> Result<Tensor> {
    let (batch, rows, width) = qkv.dims3()?;
    let (series, d_model) = (batch * rows / tokens, width / 3);
    let qkv = qkv.reshape((series, tokens, width))?;
    let part = |index: usize| {
        let part = qkv.narrow(2, index * d_model, d_model)?.contiguous()?;
        part.reshape((series, tokens, heads, d_model / heads))?.transpose(1, 2)?.contiguous()
    };
    let scores = (part(0)?.matmul(&part(1)?.t()?)? / ((d_model / heads) as f64).sqrt())?;
    let behind = |index: usize| if index % tokens > index / tokens { f32::NEG_INFINITY } else { 0.0 };
    let behind = Tensor::from_iter((0..tokens * tokens).map(behind), qkv.device())?.reshape((tokens, tokens))?;
    let scores = scores.broadcast_add(&behind)?;
    let scores = scores.broadcast_sub(&scores.max_keepdim(D::Minus1)?.detach())?.exp()?;
    let probabilities = scores.broadcast_div(&scores.sum_keepdim(D::Minus1)?)?;
    let mixed = dropout::plain(&probabilities, dropout)?.matmul(&part(2)?)?;
    mixed.transpose(1, 2)?.reshape((batch, rows, d_model))
}

struct CausalAttention {
    /// Of one series.
    tokens: usize,
    heads: usize,
    dropout: Option<Dropout>,
    threads: Threads,
    /// The probabilities before dropout, `[series, heads, tokens, tokens]`.
    kept: Mutex<Vec<f32>>,
}

/// How one series lies in memory.
#[derive(Clone, Copy)]
struct Sizes {
    tokens: usize,
    heads: usize,
    /// Of one head.
    width: usize,
}

impl Sizes {
    fn of(shape: &Shape, tokens: usize, heads: usize) -> Result<Self> {
        let (_, rows, width) = shape.dims3()?;
        if tokens == 0 || !rows.is_multiple_of(tokens) {
            bail!("{rows} rows are no series of {tokens} tokens");
        }
        Ok(Self { tokens, heads, width: width / 3 / heads })
    }

    fn d_model(self) -> usize {
        self.heads * self.width
    }

    /// Where token `token` has the part of `head` among queries (0), keys (1) or values (2).
    #[inline(always)]
    fn place(self, part: usize, token: usize, head: usize) -> std::ops::Range<usize> {
        let start = ((3 * token + part) * self.heads + head) * self.width;
        start..start + self.width
    }

    /// Where it has it in the result.
    #[inline(always)]
    fn place_out(self, token: usize, head: usize) -> std::ops::Range<usize> {
        let start = (token * self.heads + head) * self.width;
        start..start + self.width
    }

    /// The probabilities of one query, those of keys behind it included.
    #[inline(always)]
    fn row(self, head: usize, query: usize) -> usize {
        (head * self.tokens + query) * self.tokens
    }

    fn scale(self) -> f32 {
        1.0 / (self.width as f32).sqrt()
    }
}

impl CustomOp1 for CausalAttention {
    fn name(&self) -> &'static str {
        "causal-attention"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let sizes = Sizes::of(layout.shape(), self.tokens, self.heads)?;
        let Sizes { tokens, heads, .. } = sizes;
        let (qkv, d_model) = (tape::slice(storage, layout)?, sizes.d_model());
        let mut out = vec![0.0; qkv.len() / 3];
        let few = heads * tokens * tokens;
        let mut probabilities = vec![0.0; out.len() / (tokens * d_model) * few];
        let series = qkv.chunks_exact(3 * tokens * d_model).zip(out.chunks_exact_mut(tokens * d_model));
        let series = series.zip(probabilities.chunks_exact_mut(few)).enumerate();
        self.threads.each(
            series,
            || (),
            |(), (index, ((qkv, out), probabilities))| {
                forward(qkv, sizes, self.dropout.map(|dropout| dropout.after(index * few)), probabilities, out);
            },
        );
        *self.kept.lock().expect("no thread panics holding it") = probabilities;
        tape::result(out, (layout.dims()[0], layout.dims()[1], d_model))
    }

    fn bwd(&self, qkv: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let gradient = gradient.contiguous()?;
        let (qkv_values, gradient) = (Values::of(qkv), Values::of(&gradient));
        let sizes = Sizes::of(qkv.shape(), self.tokens, self.heads)?;
        let (values, size) = (qkv_values.slice()?, sizes.tokens * sizes.d_model());
        let few = sizes.heads * sizes.tokens * sizes.tokens;
        let probabilities = std::mem::take(&mut *self.kept.lock().expect("no thread panics holding it"));
        let mut back = vec![0.0; values.len()];
        let series = values.chunks_exact(3 * size).zip(gradient.slice()?.chunks_exact(size));
        let series = series.zip(probabilities.chunks_exact(few)).zip(back.chunks_exact_mut(3 * size)).enumerate();
        self.threads.each(
            series,
            || vec![0.0; sizes.tokens],
            |slopes, (index, (((qkv, gradient), probabilities), back))| {
                let dropout = self.dropout.map(|dropout| dropout.after(index * few));
                backward((qkv, gradient), sizes, dropout, probabilities, slopes, back);
            },
        );
        tape::tensor(back, qkv.shape()).map(Some)
    }
}

/// One series: the probabilities before dropout, and what they mix.
#[multiversion(targets("x86_64+avx2+fma"))]
fn forward(qkv: &[f32], sizes: Sizes, dropout: Option<Dropout>, probabilities: &mut [f32], out: &mut [f32]) {
    let Sizes { tokens, heads, width } = sizes;
    let scale = sizes.scale();
    for head in 0..heads {
        for query in 0..tokens {
            let row = sizes.row(head, query);
            let scores = &mut probabilities[row..=row + query];
            let q = &qkv[sizes.place(0, query, head)];
            for (key, score) in scores.iter_mut().enumerate() {
                let k = &qkv[sizes.place(1, key, head)];
                *score = scale * sum_of(width, |column| q[column] * k[column]);
            }
            let largest = largest_of(scores);
            scores.iter_mut().for_each(|score| *score = exp(*score - largest));
            let factor = 1.0 / sum_of(scores.len(), |key| scores[key]);
            let out = &mut out[sizes.place_out(query, head)];
            for (key, score) in scores.iter_mut().enumerate() {
                *score *= factor;
                let kept = dropout.as_ref().map_or(1.0, |dropout| dropout.factor(row + key));
                add_times(out, *score * kept, &qkv[sizes.place(2, key, head)]);
            }
        }
    }
}

/// One series: adds the gradients of queries, keys and values to `back`; `slopes` is for those of one
/// query's probabilities.
#[multiversion(targets("x86_64+avx2+fma"))]
fn backward(
    (qkv, gradient): (&[f32], &[f32]),
    sizes: Sizes,
    dropout: Option<Dropout>,
    probabilities: &[f32],
    slopes: &mut [f32],
    back: &mut [f32],
) {
    let Sizes { tokens, heads, width } = sizes;
    let scale = sizes.scale();
    for head in 0..heads {
        for query in 0..tokens {
            let row = sizes.row(head, query);
            let probabilities = &probabilities[row..=row + query];
            let gradient = &gradient[sizes.place_out(query, head)];
            let slopes = &mut slopes[..=query];
            for (key, (slope, probability)) in slopes.iter_mut().zip(probabilities).enumerate() {
                let v = &qkv[sizes.place(2, key, head)];
                let kept = dropout.as_ref().map_or(1.0, |dropout| dropout.factor(row + key));
                *slope = kept * sum_of(width, |column| gradient[column] * v[column]);
                add_times(&mut back[sizes.place(2, key, head)], probability * kept, gradient);
            }
            let mean = sum_of(slopes.len(), |key| slopes[key] * probabilities[key]);
            for (key, (slope, probability)) in slopes.iter().zip(probabilities).enumerate() {
                let slope = (slope - mean) * probability * scale;
                add_times(&mut back[sizes.place(0, query, head)], slope, &qkv[sizes.place(1, key, head)]);
                add_times(&mut back[sizes.place(1, key, head)], slope, &qkv[sizes.place(0, query, head)]);
            }
        }
    }
}

#[inline(always)]
fn add_times(sums: &mut [f32], factor: f32, values: &[f32]) {
    sums.iter_mut().zip(values).for_each(|(sum, value)| *sum = value.mul_add(factor, *sum));
}
