//! Adam and AdamW over all weights, in place: gradients of shards added in their order, moments and
//! weights updated in one pass.

use std::sync::Mutex;

use candle_core::{CpuStorage, InplaceOp1, Layout, Result, bail};
use multiversion::multiversion;
use rayon::prelude::*;

/// Weights of one pass of the loop: few enough for all that belongs to them to stay in the cache.
const CHUNK: usize = 4096;

/// Chunks that are worth another thread.
const AT_ONCE: usize = 8;

/// One update of one weight. Kingma & Ba, 2015, <https://arxiv.org/abs/1412.6980>, as PyTorch computes
/// it; with `decay` Loshchilov & Hutter, 2019, <https://arxiv.org/abs/1711.05101>.
pub struct Update<'a> {
    /// The gradient in parts that are added up in this order; none is zero.
    pub gradients: &'a [&'a [f32]],
    /// The sum of the parts is multiplied by this.
    pub factor: f32,
    pub moments: &'a Mutex<Moments>,
    pub rule: Rule,
}

/// Running means of the gradient and of its square.
#[derive(Clone, Debug)]
pub struct Moments {
    pub mean: Vec<f32>,
    pub square: Vec<f32>,
}

impl Moments {
    pub fn zeros(len: usize) -> Self {
        Self { mean: vec![0.0; len], square: vec![0.0; len] }
    }
}

/// The numbers of one step.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    pub beta: (f32, f32),
    pub epsilon: f32,
    /// Weights are multiplied by this first: 1 − rate · decay.
    pub keep: f32,
    /// rate / (1 − β₁ᵗ).
    pub step: f32,
    /// √(1 − β₂ᵗ).
    pub root: f32,
}

impl Rule {
    /// Of step `count`, the first one being 1.
    pub fn new(rate: f64, decay: f64, count: usize) -> Self {
        const BETA: (f64, f64) = (0.9, 0.999);
        let power = i32::try_from(count).unwrap_or(i32::MAX);
        Self {
            beta: (BETA.0 as f32, BETA.1 as f32),
            epsilon: 1e-8,
            keep: (1.0 - rate * decay) as f32,
            step: (rate / (1.0 - BETA.0.powi(power))) as f32,
            root: (1.0 - BETA.1.powi(power)).sqrt() as f32,
        }
    }

    #[inline(always)]
    fn update(self, gradient: f32, weight: &mut f32, mean: &mut f32, square: &mut f32) {
        let Self { beta, epsilon, keep, step, root } = self;
        *mean = (gradient - *mean).mul_add(1.0 - beta.0, *mean);
        *square = (gradient * gradient).mul_add(1.0 - beta.1, *square * beta.1);
        *weight = *weight * keep - step * (*mean / square.sqrt().mul_add(1.0 / root, epsilon));
    }
}

impl Update<'_> {
    fn chunk(&self, start: usize, weights: &mut [f32], mean: &mut [f32], square: &mut [f32]) {
        let range = start..start + weights.len();
        let part = |index: usize| &self.gradients[index][range.clone()];
        match self.gradients.len() {
            1 => update(self.rule, self.factor, part(0), weights, mean, square),
            2 => update_by_two(self.rule, self.factor, [part(0), part(1)], weights, mean, square),
            count => {
                let mut sum = [0f32; CHUNK];
                let sum = &mut sum[..weights.len()];
                sum.copy_from_slice(part(0));
                (1..count - 1).for_each(|index| add_to(sum, part(index)));
                update_by_two(self.rule, self.factor, [sum, part(count - 1)], weights, mean, square);
            }
        }
    }
}

#[multiversion(targets("x86_64+avx2+fma"))]
fn add_to(sum: &mut [f32], part: &[f32]) {
    sum.iter_mut().zip(part).for_each(|(sum, value)| *sum += value);
}

#[multiversion(targets("x86_64+avx2+fma"))]
fn update(rule: Rule, factor: f32, gradients: &[f32], weights: &mut [f32], mean: &mut [f32], square: &mut [f32]) {
    for (((weight, gradient), mean), square) in weights.iter_mut().zip(gradients).zip(mean).zip(square) {
        rule.update(gradient * factor, weight, mean, square);
    }
}

/// The same by the sum of two.
#[multiversion(targets("x86_64+avx2+fma"))]
fn update_by_two(
    rule: Rule,
    factor: f32,
    gradients: [&[f32]; 2],
    weights: &mut [f32],
    mean: &mut [f32],
    square: &mut [f32],
) {
    let gradients = gradients[0].iter().zip(gradients[1]);
    for (((weight, (one, other)), mean), square) in weights.iter_mut().zip(gradients).zip(mean).zip(square) {
        rule.update((one + other) * factor, weight, mean, square);
    }
}

impl InplaceOp1 for Update<'_> {
    fn name(&self) -> &'static str {
        "adam"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> Result<()> {
        let (CpuStorage::F32(values), Some((start, end))) = (storage, layout.contiguous_offsets()) else {
            bail!("weights are contiguous and f32");
        };
        let mut moments = self.moments.lock().expect("no thread panics holding it");
        let Moments { mean, square } = &mut *moments;
        let weights = values[start..end].par_chunks_mut(CHUNK).with_min_len(AT_ONCE);
        weights
            .zip(mean.par_chunks_mut(CHUNK))
            .zip(square.par_chunks_mut(CHUNK))
            .enumerate()
            .for_each(|(index, ((weights, mean), square))| self.chunk(index * CHUNK, weights, mean, square));
        Ok(())
    }
}
