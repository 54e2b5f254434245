//! An activation and the dropout behind it, in one pass each way.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use multiversion::multiversion;
use serde::{Deserialize, Serialize};

use super::{
    dropout::{self, Dropout},
    product::Threads,
    simd::normal,
    tape::{self, Values},
};
use crate::models::neural::pass::Pass;

/// What stands between two linear maps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Activation {
    /// x Φ(x), with the normal distribution itself and not an approximation by tanh: Hendrycks &
    /// Gimpel, 2016, <https://arxiv.org/abs/1606.08415>.
    #[default]
    Gelu,
    Relu,
}

/// `activation(x)` with elements dropped.
pub fn activate(x: &Tensor, activation: Activation, dropout: Option<Dropout>, pass: &Pass) -> Result<Tensor> {
    if !pass.fuses(x) {
        return plain(x, activation, dropout);
    }
    let op = Activate { activation, dropout, threads: pass.threads() };
    let x = x.contiguous()?;
    pass.apply1(&x, op)
}

/// The same in candle's own operations; spelt out, as the gradient of candle's own GELU has but six
/// digits.
pub fn plain(x: &Tensor, activation: Activation, dropout: Option<Dropout>) -> Result<Tensor> {
    let out = match activation {
        Activation::Gelu => (x * ((x * std::f64::consts::FRAC_1_SQRT_2)?.erf()? + 1.0)?)? * 0.5,
        Activation::Relu => x.relu(),
    };
    dropout::plain(&out?, dropout)
}

struct Activate {
    activation: Activation,
    dropout: Option<Dropout>,
    threads: Threads,
}

/// Elements that one thread takes at a time.
const CHUNK: usize = 1 << 16;

impl Activate {
    /// Runs `each` on both slices, cut alike, and the dropout of each part.
    fn run(&self, x: &[f32], out: &mut [f32], each: impl Fn(Option<Dropout>, &[f32], &mut [f32]) + Sync) {
        let parts = x.chunks(CHUNK).zip(out.chunks_mut(CHUNK)).enumerate();
        self.threads.each(
            parts,
            || (),
            |(), (index, (x, out))| {
                each(self.dropout.map(|dropout| dropout.after(index * CHUNK)), x, out);
            },
        );
    }
}

impl CustomOp1 for Activate {
    fn name(&self) -> &'static str {
        "activate"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = tape::slice(storage, layout)?;
        let mut out = vec![0.0; x.len()];
        self.run(x, &mut out, |dropout, x, out| forward(self.activation, dropout, x, out));
        tape::result(out, layout.shape())
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let gradient = gradient.contiguous()?;
        let x_values = Values::of(x);
        let values = x_values.slice()?;
        let mut back = Values::of(&gradient).slice()?.to_vec();
        self.run(values, &mut back, |dropout, x, back| backward(self.activation, dropout, x, back));
        tape::tensor(back, x.shape()).map(Some)
    }
}

/// `out = activation(x)` with elements dropped.
#[multiversion(targets("x86_64+avx2+fma"))]
pub(super) fn forward(activation: Activation, dropout: Option<Dropout>, x: &[f32], out: &mut [f32]) {
    match (activation, dropout) {
        (Activation::Gelu, None) => out.iter_mut().zip(x).for_each(|(out, x)| *out = x * normal(*x).0),
        (Activation::Gelu, Some(dropout)) => {
            for (index, (out, x)) in out.iter_mut().zip(x).enumerate() {
                *out = x * normal(*x).0 * dropout.factor(index);
            }
        }
        (Activation::Relu, dropout) => {
            out.iter_mut().zip(x).for_each(|(out, x)| *out = if *x < 0.0 { 0.0 } else { *x });
            if let Some(dropout) = dropout {
                dropout.mask(out, 0);
            }
        }
    }
}

/// The gradient of the output becomes that of `x`.
#[multiversion(targets("x86_64+avx2+fma"))]
pub(super) fn backward(activation: Activation, dropout: Option<Dropout>, x: &[f32], gradient: &mut [f32]) {
    if let Some(dropout) = dropout {
        dropout.mask(gradient, 0);
    }
    match activation {
        Activation::Gelu => {
            for (gradient, x) in gradient.iter_mut().zip(x) {
                let (below, density) = normal(*x);
                *gradient *= x.mul_add(density, below);
            }
        }
        Activation::Relu => {
            gradient.iter_mut().zip(x).for_each(|(gradient, x)| *gradient = if *x > 0.0 { *gradient } else { 0.0 });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A product with a subnormal number takes some cores a hundred times as long.
    #[test]
    fn units_that_are_off_give_no_subnormal_numbers() {
        let x: Vec<f32> = (-4000..=4000).map(|index| index as f32 / 100.0).collect();
        let mut out = vec![0.0; x.len()];
        forward(Activation::Gelu, None, &x, &mut out);
        let mut back = vec![1e-8; x.len()];
        backward(Activation::Gelu, None, &x, &mut back);
        assert!(out.iter().chain(&back).all(|value| !value.is_subnormal()));
        assert!(out[0] == 0.0 && back[0] == 0.0 && out[8000] == 40.0 && back[8000] == 1e-8);
    }
}
