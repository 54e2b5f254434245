//! A linear map of several copies of its input, each with a factor of its own, as a map of the input.
//!
//! W · (φ ⊗ x) = (Σₑ φₑ Wₑ) x: the copies are never made (Yue et al., "OLinear", 2025, have 16).

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor};
use multiversion::multiversion;

use super::{
    simd::sum_of,
    tape::{self, Values},
};
use crate::models::neural::{
    pass::{Pass, Sink},
    weights::Weight,
};

/// From a `weight [outputs, copies · inputs]` and `factors [1, copies]` the map of the input, Σₑ φₑ Wₑ,
/// and that of what is added to every copy, Σₑ Wₑ: `[2, outputs, inputs]`.
pub fn fold_copies(weight: &Weight, factors: &Weight, pass: &Pass) -> Result<Tensor> {
    let (tensor, by) = (pass.tensor(weight), pass.tensor(factors));
    if !pass.fuses(&tensor) {
        return plain(&tensor, &by);
    }
    let op = FoldCopies { weight: weight.clone(), factors: factors.clone(), sink: pass.sink() };
    if pass.is_training() { tensor.apply_op2(&by, op) } else { tensor.apply_op2_no_bwd(&by, &op) }
}

/// The same in candle's own operations.
pub fn plain(weight: &Tensor, factors: &Tensor) -> Result<Tensor> {
    let copies = factors.elem_count();
    let weight = weight.reshape((weight.dim(0)?, copies, ()))?;
    let of_values = weight.broadcast_mul(&factors.reshape((1, copies, 1))?)?.sum(1)?;
    Tensor::stack(&[of_values, weight.sum(1)?], 0)
}

struct FoldCopies {
    weight: Weight,
    factors: Weight,
    sink: Option<Sink>,
}

impl CustomOp2 for FoldCopies {
    fn name(&self) -> &'static str {
        "fold-copies"
    }

    fn cpu_fwd(
        &self,
        weight: &CpuStorage,
        weight_layout: &Layout,
        factors: &CpuStorage,
        factors_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (weight, factors) = (tape::slice(weight, weight_layout)?, tape::slice(factors, factors_layout)?);
        let (outputs, width) = weight_layout.shape().dims2()?;
        let inputs = width / factors.len();
        let mut out = vec![0.0; 2 * outputs * inputs];
        let (of_values, of_added) = out.split_at_mut(outputs * inputs);
        forward(weight, factors, inputs, of_values, of_added);
        tape::result(out, (2, outputs, inputs))
    }

    fn bwd(
        &self,
        weight: &Tensor,
        factors: &Tensor,
        _: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let gradient = gradient.contiguous()?;
        let (weight, factors, gradient) = (Values::of(weight), Values::of(factors), Values::of(&gradient));
        let (weight, factors, gradient) = (weight.slice()?, factors.slice()?, gradient.slice()?);
        let (of_values, of_added) = gradient.split_at(gradient.len() / 2);
        let mut to_factors = vec![0.0; factors.len()];
        let mut into = self.sink.as_ref().expect("an operation on the tape has a sink").lock();
        let (to_weight, write) = into.of(&self.weight);
        if write == super::product::Write::Set {
            to_weight.fill(0.0);
        }
        let inputs = weight.len() / factors.len() / self.weight.dims()[0];
        backward((weight, factors), inputs, (of_values, of_added), to_weight, &mut to_factors);
        into.add(&self.factors, &to_factors);
        Ok((None, None))
    }
}

#[multiversion(targets("x86_64+avx2+fma"))]
fn forward(weight: &[f32], factors: &[f32], inputs: usize, of_values: &mut [f32], of_added: &mut [f32]) {
    let rows = of_values.chunks_exact_mut(inputs).zip(of_added.chunks_exact_mut(inputs));
    for (copies, (of_values, of_added)) in weight.chunks_exact(factors.len() * inputs).zip(rows) {
        for (weight, factor) in copies.chunks_exact(inputs).zip(factors) {
            for ((value, added), weight) in of_values.iter_mut().zip(&mut *of_added).zip(weight) {
                *value = weight.mul_add(*factor, *value);
                *added += weight;
            }
        }
    }
}

/// Adds to the gradients of weight and factors.
#[multiversion(targets("x86_64+avx2+fma"))]
fn backward(
    (weight, factors): (&[f32], &[f32]),
    inputs: usize,
    (of_values, of_added): (&[f32], &[f32]),
    to_weight: &mut [f32],
    to_factors: &mut [f32],
) {
    let width = factors.len() * inputs;
    let rows = of_values.chunks_exact(inputs).zip(of_added.chunks_exact(inputs));
    for ((copies, to_copies), (of_values, of_added)) in
        weight.chunks_exact(width).zip(to_weight.chunks_exact_mut(width)).zip(rows)
    {
        let parts = copies.chunks_exact(inputs).zip(to_copies.chunks_exact_mut(inputs));
        for ((weight, to_weight), (factor, to_factor)) in parts.zip(factors.iter().zip(&mut *to_factors)) {
            *to_factor += sum_of(inputs, |input| of_values[input] * weight[input]);
            for ((to_weight, value), added) in to_weight.iter_mut().zip(of_values).zip(of_added) {
                *to_weight += value.mul_add(*factor, *added);
            }
        }
    }
}
