//! Batch normalisation of the channels of `[batch, time, channels]`.
//!
//! Ioffe & Szegedy, "Batch Normalization", 2015, <https://arxiv.org/abs/1502.03167>, with PyTorch's epsilon
//! and momentum. Sums over the batch are kept window by window and added in order, so that the number
//! of threads changes no bit.

use std::sync::Mutex;

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use multiversion::multiversion;

use super::{
    norm::Affine,
    product::Threads,
    tape::{self, Values},
};
use crate::models::neural::{
    pass::{Pass, Sink},
    weights::Weight,
};

const EPSILON: f64 = 1e-5;
/// Share of the new batch in the running statistics.
pub const MOMENTUM: f32 = 0.1;

/// Scale and shift of each channel, and the mean and variance of what was seen in training.
#[derive(Clone)]
pub struct BatchNorm {
    pub affine: Affine,
    pub mean: Weight,
    pub variance: Weight,
}

/// `x [batch, time, channels]` normalised by the statistics of this batch, which move the running ones
/// when the step is taken.
///
/// # Errors
/// If the shape is another.
///
/// # Panics
/// If the pass is not for training.
pub fn batch_norm(x: &Tensor, norm: &BatchNorm, pass: &Pass) -> Result<Tensor> {
    if !pass.fuses(x) {
        return plain(x, norm, pass);
    }
    let sink = pass.sink().expect("the statistics of a batch are for training");
    let op = Normalise { norm: norm.clone(), sink, threads: pass.threads(), kept: Mutex::default() };
    pass.apply1(&pass.input_of(&[&norm.affine.weight, &norm.affine.bias], x)?, op)
}

/// The same in candle's own operations.
///
/// # Errors
/// If the shape is another.
///
/// # Panics
/// If the pass is not for training.
pub fn plain(x: &Tensor, norm: &BatchNorm, pass: &Pass) -> Result<Tensor> {
    let (batch, time, _) = x.dims3()?;
    let mean = x.mean_keepdim((0, 1))?;
    let centred = x.broadcast_sub(&mean)?;
    let variance = centred.sqr()?.mean_keepdim((0, 1))?;
    let flat = |tensor: &Tensor| tensor.flatten_all()?.to_vec1::<f32>();
    let sink = pass.sink().expect("the statistics of a batch are for training");
    norm.note(&flat(&mean)?, &flat(&variance)?, batch * time, &sink)?;
    let normal = centred.broadcast_div(&(variance + EPSILON)?.sqrt()?)?;
    normal.broadcast_mul(&pass.tensor(&norm.affine.weight))?.broadcast_add(&pass.tensor(&norm.affine.bias))
}

/// `x` normalised by the running statistics.
///
/// # Errors
/// If the shape is another.
pub fn by_running_statistics(x: &Tensor, norm: &BatchNorm, pass: &Pass) -> Result<Tensor> {
    let (mean, variance) = (norm.mean.tensor().detach(), norm.variance.tensor().detach());
    let normal = x.broadcast_sub(&mean)?.broadcast_div(&(variance + EPSILON)?.sqrt()?)?;
    normal.broadcast_mul(&pass.tensor(&norm.affine.weight))?.broadcast_add(&pass.tensor(&norm.affine.bias))
}

impl BatchNorm {
    /// What [`by_running_statistics`] multiplies each channel by, and adds then.
    ///
    /// # Errors
    /// If the values cannot be read.
    pub fn map(&self) -> crate::Result<(Vec<f32>, Vec<f32>)> {
        let (weight, bias) = (self.affine.weight.values()?, self.affine.bias.values()?);
        let (mean, variance) = (self.mean.values()?, self.variance.values()?);
        let factors = weight.iter().zip(&variance);
        let factors: Vec<f64> =
            factors.map(|(weight, variance)| f64::from(*weight) / (f64::from(*variance) + EPSILON).sqrt()).collect();
        let shift =
            |((bias, mean), factor): ((&f32, &f32), &f64)| (f64::from(*bias) - f64::from(*mean) * factor) as f32;
        let shifts = bias.iter().zip(&mean).zip(&factors).map(shift).collect();
        Ok((factors.into_iter().map(|factor| factor as f32).collect(), shifts))
    }

    /// Leaves with `sink` what the running statistics become if the step is taken; `variance` is that over
    /// `count` rows, divided by their number.
    fn note(&self, mean: &[f32], variance: &[f32], count: usize, sink: &Sink) -> Result<()> {
        let unbiased = count as f32 / (count.max(2) - 1) as f32;
        let note = |old: &Weight, new: &[f32], factor: f32| -> Result<()> {
            let flat = old.tensor().to_vec1::<f32>()?;
            let mixed = flat.iter().zip(new).map(|(old, new)| (1.0 - MOMENTUM) * old + MOMENTUM * factor * new);
            sink.lock().note(old, mixed.collect());
            Ok(())
        };
        note(&self.mean, mean, 1.0)?;
        note(&self.variance, variance, unbiased)
    }
}

struct Normalise {
    norm: BatchNorm,
    sink: Sink,
    threads: Threads,
    /// Mean and 1/σ of each channel.
    kept: Mutex<(Vec<f32>, Vec<f32>)>,
}

/// The sums over all windows of what `each` adds up over one: `count` of them.
fn sums<'a>(
    threads: Threads,
    windows: impl Iterator<Item = &'a [f32]>,
    count: usize,
    each: impl Fn(usize, &[f32], &mut [f64]) + Sync + Send,
) -> Vec<f64> {
    let windows: Vec<&[f32]> = windows.collect();
    let mut parts = vec![0.0; windows.len() * count];
    let pairs = windows.iter().zip(parts.chunks_exact_mut(count)).enumerate();
    threads.each(pairs, || (), |(), (window, (values, sums))| each(window, values, sums));
    let mut total = vec![0.0; count];
    for part in parts.chunks_exact(count) {
        total.iter_mut().zip(part).for_each(|(total, part)| *total += part);
    }
    total
}

#[multiversion(targets("x86_64+avx2+fma"))]
fn add_rows(rows: &[f32], sums: &mut [f64]) {
    for row in rows.chunks_exact(sums.len()) {
        sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += f64::from(*value));
    }
}

#[multiversion(targets("x86_64+avx2+fma"))]
fn add_squares(rows: &[f32], mean: &[f32], sums: &mut [f64]) {
    for row in rows.chunks_exact(mean.len()) {
        for ((sum, value), mean) in sums.iter_mut().zip(row).zip(mean) {
            let apart = f64::from(value - mean);
            *sum += apart * apart;
        }
    }
}

#[multiversion(targets("x86_64+avx2+fma"))]
fn normalise(x: &[f32], (mean, inverse): (&[f32], &[f32]), (weight, bias): (&[f32], &[f32]), out: &mut [f32]) {
    let width = mean.len();
    for (x, out) in x.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
        for column in 0..width {
            out[column] = ((x[column] - mean[column]) * inverse[column]).mul_add(weight[column], bias[column]);
        }
    }
}

/// Adds up gradients, and gradients times normalised values.
#[multiversion(targets("x86_64+avx2+fma"))]
fn add_gradients(gradient: &[f32], x: &[f32], (mean, inverse): (&[f32], &[f32]), sums: &mut [f64]) {
    let width = mean.len();
    let (plain, along) = sums.split_at_mut(width);
    for (gradient, x) in gradient.chunks_exact(width).zip(x.chunks_exact(width)) {
        for column in 0..width {
            plain[column] += f64::from(gradient[column]);
            along[column] += f64::from(gradient[column] * (x[column] - mean[column]) * inverse[column]);
        }
    }
}

/// `means` are those of the gradients, and of gradients times normalised values.
#[multiversion(targets("x86_64+avx2+fma"))]
fn back(
    gradient: &[f32],
    x: &[f32],
    (mean, inverse): (&[f32], &[f32]),
    (weight, means): (&[f32], &[f32]),
    out: &mut [f32],
) {
    let width = mean.len();
    let (plain, along) = means.split_at(width);
    for ((gradient, x), out) in gradient.chunks_exact(width).zip(x.chunks_exact(width)).zip(out.chunks_exact_mut(width))
    {
        for column in 0..width {
            let normal = (x[column] - mean[column]) * inverse[column];
            out[column] =
                (gradient[column] - plain[column] - normal * along[column]) * weight[column] * inverse[column];
        }
    }
}

impl CustomOp1 for Normalise {
    fn name(&self) -> &'static str {
        "batch-norm"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (batch, time, width) = layout.shape().dims3()?;
        let x = tape::slice(storage, layout)?;
        let (rows, block) = (batch * time, time * width);
        let mean = |sums: Vec<f64>| -> Vec<f32> { sums.iter().map(|sum| (sum / rows as f64) as f32).collect() };
        let means = mean(sums(self.threads, x.chunks_exact(block), width, |_, rows, sums| add_rows(rows, sums)));
        let squares = sums(self.threads, x.chunks_exact(block), width, |_, rows, sums| add_squares(rows, &means, sums));
        let variances = mean(squares);
        self.norm.note(&means, &variances, rows, &self.sink)?;
        let inverses: Vec<f32> =
            variances.iter().map(|variance| (1.0 / (f64::from(*variance) + EPSILON).sqrt()) as f32).collect();
        let (weight, bias) = (Values::of(self.norm.affine.weight.tensor()), Values::of(self.norm.affine.bias.tensor()));
        let affine = (weight.slice()?, bias.slice()?);
        let mut out = vec![0.0; x.len()];
        let windows = x.chunks_exact(block).zip(out.chunks_exact_mut(block));
        self.threads.each(windows, || (), |(), (x, out)| normalise(x, (&means, &inverses), affine, out));
        *self.kept.lock().expect("no thread panics holding it") = (means, inverses);
        tape::result(out, layout.shape())
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let (batch, time, width) = x.dims3()?;
        let block = time * width;
        let gradient = gradient.contiguous()?;
        let (x_values, gradient, weight) =
            (Values::of(x), Values::of(&gradient), Values::of(self.norm.affine.weight.tensor()));
        let (values, gradient, weight) = (x_values.slice()?, gradient.slice()?, weight.slice()?);
        let (means, inverses) = std::mem::take(&mut *self.kept.lock().expect("no thread panics holding it"));
        let statistics = (&means[..], &inverses[..]);
        let sums = sums(self.threads, gradient.chunks_exact(block), 2 * width, |window, gradient, sums| {
            add_gradients(gradient, &values[window * block..][..block], statistics, sums);
        });
        let to_f32 =
            |sums: &[f64], divisor: f64| -> Vec<f32> { sums.iter().map(|sum| (sum / divisor) as f32).collect() };
        let of_rows = to_f32(&sums, (batch * time) as f64);
        let mut out = vec![0.0; values.len()];
        let windows = out.chunks_exact_mut(block).zip(gradient.chunks_exact(block)).zip(values.chunks_exact(block));
        self.threads.each(
            windows,
            || (),
            |(), ((out, gradient), x)| back(gradient, x, statistics, (weight, &of_rows), out),
        );
        let mut into = self.sink.lock();
        into.add(&self.norm.affine.bias, &to_f32(&sums[..width], 1.0));
        into.add(&self.norm.affine.weight, &to_f32(&sums[width..], 1.0));
        drop(into);
        tape::tensor(out, x.shape()).map(Some)
    }
}
