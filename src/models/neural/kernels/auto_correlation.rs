//! Auto-correlation: the lags at which queries and keys go together, and the values rolled by them.
//!
//! Wu et al., "Autoformer", NeurIPS 2021, <https://arxiv.org/abs/2106.13008>, equations 5 and 6, as the
//! authors' code has them: the correlation is the mean over all channels, so that heads make no
//! difference; it is neither scaled nor normalised. The lags that are chosen are constants to the
//! gradient, which flows through their weights and through the values.

use std::sync::{Arc, Mutex};

use candle_core::{CpuStorage, CustomOp3, D, Layout, Result, Shape, Tensor};
use multiversion::multiversion;
use realfft::{ComplexToReal, RealFftPlanner, RealToComplex, num_complex::Complex};
use serde::{Deserialize, Serialize};

use super::{
    product::{Threads, Write, matrix, matrix_mut, product},
    simd::sum_of,
    tape::{self, Values},
};
use crate::models::neural::pass::Pass;

/// What lags are chosen by in training; in a forecast it is each window for itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Lags {
    /// The mean of all windows of a batch: what the authors' code does.
    #[default]
    Batch,
    /// Each window for itself.
    Window,
}

/// Up to this length a product of queries and keys, whose diagonals are summed, is faster than Fourier
/// transforms of each channel.
const SHORT: usize = 512;

/// `queries [batch, time, width]`, `keys` and `values [batch, other time, width]`, which are cut, or
/// continued with zeros, to the time of the queries: the mean of the values rolled by the `count` best
/// lags, weighted by the softmax of the correlations there; like the queries.
///
/// # Errors
/// If the shapes do not go together.
pub fn auto_correlation(
    queries: &Tensor,
    keys: &Tensor,
    values: &Tensor,
    count: usize,
    lags: Lags,
    pass: &Pass,
) -> Result<Tensor> {
    let lags = if pass.is_training() { lags } else { Lags::Window };
    if !pass.fuses(queries) {
        return plain(queries, keys, values, count, lags);
    }
    let op = AutoCorrelation { count, lags, threads: pass.threads(), kept: Mutex::default() };
    let (queries, keys, values) = (queries.contiguous()?, keys.contiguous()?, values.contiguous()?);
    pass.apply3(&queries, &keys, &values, op)
}

/// The same in candle's own operations.
///
/// # Errors
/// If the shapes do not go together.
pub fn plain(queries: &Tensor, keys: &Tensor, values: &Tensor, count: usize, lags: Lags) -> Result<Tensor> {
    let (batch, time, width) = queries.dims3()?;
    let as_long = |tensor: &Tensor| match tensor.dim(1)? {
        other if other >= time => tensor.narrow(1, 0, time)?.contiguous(),
        other => tensor.pad_with_zeros(1, 0, time - other),
    };
    let (keys, values) = (as_long(keys)?, as_long(values)?);
    let device = queries.device();
    let products = queries.matmul(&keys.t()?)?.reshape((batch, time * time))?;
    let diagonals = (0..time * time).map(|at| ((at / time + at % time) % time * time + at % time) as u32);
    let diagonals = Tensor::from_vec(diagonals.collect::<Vec<_>>(), time * time, device)?;
    let correlation = products.index_select(&diagonals, 1)?.reshape((batch, time, time))?.sum(2)?;
    let correlation = (correlation / width as f64)?;
    let rows: Vec<Vec<f64>> = correlation.to_dtype(candle_core::DType::F64)?.to_vec2()?;
    let chosen: Vec<u32> = choose(&rows, count, lags).into_iter().flatten().map(|lag| lag as u32).collect();
    let at = Tensor::from_slice(&chosen, (batch, count), device)?;
    let scores = correlation.gather(&at, 1)?;
    let weights = scores.broadcast_sub(&scores.max_keepdim(D::Minus1)?.detach())?.exp()?;
    let weights = weights.broadcast_div(&weights.sum_keepdim(D::Minus1)?)?;
    let flat = values.reshape((batch * time, width))?;
    let mut sum = queries.zeros_like()?.detach();
    for index in 0..count {
        let from = (0..batch * time).map(|row| {
            let (window, step) = (row / time, row % time);
            (window * time + (step + chosen[window * count + index] as usize) % time) as u32
        });
        let from = Tensor::from_vec(from.collect::<Vec<_>>(), batch * time, device)?;
        let rolled = flat.index_select(&from, 0)?.reshape((batch, time, width))?;
        sum = (sum + rolled.broadcast_mul(&weights.narrow(1, index, 1)?.unsqueeze(2)?)?)?;
    }
    Ok(sum)
}

/// The lags of the `count` largest correlations of each window, the first of equal ones first.
fn choose(correlations: &[Vec<f64>], count: usize, lags: Lags) -> Vec<Vec<usize>> {
    let best = |correlation: &[f64]| {
        let mut order: Vec<usize> = (0..correlation.len()).collect();
        order.sort_by(|one, other| correlation[*other].total_cmp(&correlation[*one]));
        order.truncate(count);
        order
    };
    match lags {
        Lags::Window => correlations.iter().map(|correlation| best(correlation)).collect(),
        Lags::Batch => {
            let mut sum = vec![0.0; correlations.first().map_or(0, Vec::len)];
            for correlation in correlations {
                sum.iter_mut().zip(correlation).for_each(|(sum, value)| *sum += value);
            }
            vec![best(&sum); correlations.len()]
        }
    }
}

struct AutoCorrelation {
    count: usize,
    lags: Lags,
    threads: Threads,
    /// For each window the lags and their weights.
    kept: Mutex<Vec<(Vec<usize>, Vec<f32>)>>,
}

/// Fourier transforms of one length, there and back; planned once for all windows.
struct Transforms {
    there: Arc<dyn RealToComplex<f64>>,
    back: Arc<dyn ComplexToReal<f64>>,
}

impl Transforms {
    fn new(length: usize) -> Self {
        let mut planner = RealFftPlanner::new();
        Self { there: planner.plan_fft_forward(length), back: planner.plan_fft_inverse(length) }
    }
}

/// Sizes of one window.
#[derive(Clone, Copy)]
struct Sizes {
    time: usize,
    /// Rows of keys and values, and those of them that count.
    others: usize,
    used: usize,
    width: usize,
}

impl Sizes {
    fn of(queries: &Shape, keys: &Shape) -> Result<Self> {
        let ((_, time, width), (_, others, _)) = (queries.dims3()?, keys.dims3()?);
        Ok(Self { time, others, used: others.min(time), width })
    }

    /// What longer series than [`SHORT`] are transformed by.
    fn transforms(&self) -> Option<Transforms> {
        (self.time > SHORT).then(|| Transforms::new(self.time))
    }

    /// The mean over channels of Σₜ q[t + τ] k[t], circular, for each lag τ.
    fn correlation(&self, q: &[f32], k: &[f32], transforms: Option<&Transforms>) -> Vec<f64> {
        let Self { used, width, .. } = *self;
        let k = &k[..used * width];
        let mut sums = match transforms {
            None => self.by_products(q, k),
            Some(transforms) => self.by_spectra(q, k, transforms),
        };
        sums.iter_mut().for_each(|sum| *sum /= width as f64);
        sums
    }

    fn by_products(&self, q: &[f32], k: &[f32]) -> Vec<f64> {
        let Self { time, used, width, .. } = *self;
        let mut products = vec![0.0; time * used];
        product(matrix_mut(&mut products, used), Write::Set, matrix(q, width), matrix(k, width).t(), 1.0);
        let mut sums = vec![0.0; time];
        for (later, row) in products.chunks_exact(used).enumerate() {
            for (earlier, value) in row.iter().enumerate() {
                sums[(later + time - earlier) % time] += f64::from(*value);
            }
        }
        sums
    }

    /// The spectrum of the sum over channels is the sum of spectra, so only one goes back.
    fn by_spectra(&self, q: &[f32], k: &[f32], Transforms { there, back }: &Transforms) -> Vec<f64> {
        let Self { time, width, .. } = *self;
        let (mut scratch, mut spectra) = (there.make_scratch_vec(), [there.make_output_vec(), there.make_output_vec()]);
        let mut column = there.make_input_vec();
        let mut sum = vec![Complex::new(0.0, 0.0); spectra[0].len()];
        for channel in 0..width {
            for (values, spectrum) in [q, k].into_iter().zip(&mut spectra) {
                column.fill(0.0);
                let steps = values[channel..].iter().step_by(width);
                column.iter_mut().zip(steps).for_each(|(slot, value)| *slot = f64::from(*value));
                there
                    .process_with_scratch(&mut column, spectrum, &mut scratch)
                    .expect("buffers are as long as the transform");
            }
            let [q, k] = &spectra;
            sum.iter_mut().zip(q).zip(k).for_each(|((sum, q), k)| *sum += q * k.conj());
        }
        // What rounding left there would be refused.
        sum[0].im = 0.0;
        if time.is_multiple_of(2) {
            sum[time / 2].im = 0.0;
        }
        back.process(&mut sum, &mut column).expect("buffers are as long as the transform");
        column.iter_mut().for_each(|value| *value /= time as f64);
        column
    }
}

/// What one window brings to its backward pass, and where its gradients go.
struct Part<'a> {
    q: &'a [f32],
    k: &'a [f32],
    v: &'a [f32],
    gradient: &'a [f32],
    chosen: &'a (Vec<usize>, Vec<f32>),
    dq: &'a mut [f32],
    dk: &'a mut [f32],
    dv: &'a mut [f32],
}

/// The softmax of some correlations.
fn softmax(scores: impl Iterator<Item = f64> + Clone) -> Vec<f32> {
    let largest = scores.clone().fold(f64::NEG_INFINITY, f64::max);
    let exponentials: Vec<f64> = scores.map(|score| (score - largest).exp()).collect();
    let sum: f64 = exponentials.iter().sum();
    exponentials.iter().map(|value| (value / sum) as f32).collect()
}

/// Adds `factor` times one row to another.
#[multiversion(targets("x86_64+avx2+fma"))]
fn add_row(into: &mut [f32], row: &[f32], factor: f32) {
    into.iter_mut().zip(row).for_each(|(into, value)| *into = value.mul_add(factor, *into));
}

#[multiversion(targets("x86_64+avx2+fma"))]
fn dot(one: &[f32], other: &[f32]) -> f32 {
    sum_of(one.len(), |index| one[index] * other[index])
}

impl Sizes {
    /// The weighted mean of rolled values.
    fn roll(&self, v: &[f32], (lags, weights): &(Vec<usize>, Vec<f32>), out: &mut [f32]) {
        let Self { time, used, width, .. } = *self;
        for (step, out) in out.chunks_exact_mut(width).enumerate() {
            for (lag, weight) in lags.iter().zip(weights) {
                let from = (step + lag) % time;
                if from < used {
                    add_row(out, &v[from * width..][..width], *weight);
                }
            }
        }
    }

    /// Gradients of queries, keys and values of one window.
    fn back(&self, part: Part<'_>) {
        let Part { q, k, v, gradient, chosen: (lags, weights), dq, dk, dv } = part;
        let Self { time, used, width, .. } = *self;
        let row = |step: usize| step * width..(step + 1) * width;
        let mut slopes = vec![0f64; lags.len()];
        for (step, gradient) in gradient.chunks_exact(width).enumerate() {
            for ((lag, weight), slope) in lags.iter().zip(weights).zip(&mut slopes) {
                let from = (step + lag) % time;
                if from < used {
                    add_row(&mut dv[row(from)], gradient, *weight);
                    *slope += f64::from(dot(gradient, &v[row(from)]));
                }
            }
        }
        // Through the softmax, and the mean over channels.
        let mean: f64 = slopes.iter().zip(weights).map(|(slope, weight)| slope * f64::from(*weight)).sum();
        for ((lag, weight), slope) in lags.iter().zip(weights).zip(&slopes) {
            let slope = (f64::from(*weight) * (slope - mean) / width as f64) as f32;
            for step in 0..used {
                let later = (step + lag) % time;
                add_row(&mut dq[row(later)], &k[row(step)], slope);
                add_row(&mut dk[row(step)], &q[row(later)], slope);
            }
        }
    }
}

impl CustomOp3 for AutoCorrelation {
    fn name(&self) -> &'static str {
        "auto-correlation"
    }

    fn cpu_fwd(
        &self,
        queries: &CpuStorage,
        queries_layout: &Layout,
        keys: &CpuStorage,
        keys_layout: &Layout,
        values: &CpuStorage,
        values_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let sizes = Sizes::of(queries_layout.shape(), keys_layout.shape())?;
        let q = tape::slice(queries, queries_layout)?;
        let k = tape::slice(keys, keys_layout)?;
        let block = (sizes.time * sizes.width, sizes.others * sizes.width);
        let mut correlations = vec![Vec::new(); q.len() / block.0];
        let windows = q.chunks_exact(block.0).zip(k.chunks_exact(block.1)).zip(&mut correlations);
        let transforms = sizes.transforms();
        self.threads.each(windows, || (), |(), ((q, k), slot)| *slot = sizes.correlation(q, k, transforms.as_ref()));
        let chosen: Vec<(Vec<usize>, Vec<f32>)> = choose(&correlations, self.count, self.lags)
            .into_iter()
            .zip(&correlations)
            .map(|(lags, correlation)| {
                let weights = softmax(lags.iter().map(|lag| correlation[*lag]));
                (lags, weights)
            })
            .collect();
        let v = tape::slice(values, values_layout)?;
        let mut out = vec![0.0; q.len()];
        let windows = out.chunks_exact_mut(block.0).zip(v.chunks_exact(block.1)).zip(&chosen);
        self.threads.each(windows, || (), |(), ((out, v), chosen)| sizes.roll(v, chosen, out));
        *self.kept.lock().expect("no thread panics holding it") = chosen;
        tape::result(out, queries_layout.shape())
    }

    fn bwd(
        &self,
        queries: &Tensor,
        keys: &Tensor,
        values: &Tensor,
        _: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let gradient = gradient.contiguous()?;
        let sizes = Sizes::of(queries.shape(), keys.shape())?;
        let (q, k, v, g) = (Values::of(queries), Values::of(keys), Values::of(values), Values::of(&gradient));
        let chosen = std::mem::take(&mut *self.kept.lock().expect("no thread panics holding it"));
        let [mut dq, mut dk, mut dv] = [queries, keys, values].map(|tensor| vec![0.0; tensor.elem_count()]);
        let (own, other) = (sizes.time * sizes.width, sizes.others * sizes.width);
        let (q, k, v, g) = (q.slice()?, k.slice()?, v.slice()?, g.slice()?);
        let back = dq.chunks_exact_mut(own).zip(dk.chunks_exact_mut(other)).zip(dv.chunks_exact_mut(other));
        let parts = chosen.iter().zip(back).enumerate().map(|(window, (chosen, ((dq, dk), dv)))| Part {
            q: &q[window * own..][..own],
            k: &k[window * other..][..other],
            v: &v[window * other..][..other],
            gradient: &g[window * own..][..own],
            chosen,
            dq,
            dk,
            dv,
        });
        self.threads.each(parts, || (), |(), part| sizes.back(part));
        Ok((
            Some(tape::tensor(dq, queries.shape())?),
            Some(tape::tensor(dk, keys.shape())?),
            Some(tape::tensor(dv, values.shape())?),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wave(len: usize, step: f32) -> Vec<f32> {
        (0..len).map(|index| (index as f32 * step).sin()).collect()
    }

    #[test]
    fn spectra_and_products_give_what_the_definition_says() {
        for (time, others) in [(12, 12), (15, 9), (9, 20)] {
            let width = 3;
            let sizes = Sizes { time, others, used: others.min(time), width };
            let (q, k) = (wave(time * width, 0.7), wave(others * width, 1.3));
            let k = &k[..sizes.used * width];
            let transforms = Transforms::new(time);
            let (products, spectra) = (sizes.by_products(&q, k), sizes.by_spectra(&q, k, &transforms));
            for lag in 0..time {
                let terms = (0..sizes.used).flat_map(|step| {
                    let (q, k) = (&q[(step + lag) % time * width..], &k[step * width..]);
                    (0..width).map(move |channel| f64::from(q[channel]) * f64::from(k[channel]))
                });
                let exact: f64 = terms.sum();
                assert!((products[lag] - exact).abs() < 1e-5, "{time} {others} {lag}");
                assert!((spectra[lag] - exact).abs() < 1e-9, "{time} {others} {lag}");
            }
        }
    }

    #[test]
    fn the_best_lags_of_a_sine_are_its_periods() {
        let time = 48;
        let sizes = Sizes { time, others: time, used: time, width: 1 };
        let sine: Vec<f32> = (0..time).map(|step| (step as f32 / 12.0 * std::f32::consts::TAU).sin()).collect();
        let correlation = sizes.correlation(&sine, &sine, None);
        let mut lags = choose(&[correlation], 4, Lags::Window).remove(0);
        lags.sort_unstable();
        assert_eq!(lags, [0, 12, 24, 36]);
    }
}
