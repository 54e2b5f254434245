//! A linear map of several copies of its input, each with a factor of its own, as a map of the input.
//!
//! W · (φ ⊗ x) = (Σₑ φₑ Wₑ) x: the copies are never made (Yue et al., "OLinear", 2025, have 16).

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor};
use multiversion::multiversion;
use rayon::prelude::*;

use super::{
    product::Write,
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
    pass.apply2(&tensor, &by, op)
}

/// The same in candle's own operations.
pub fn plain(weight: &Tensor, factors: &Tensor) -> Result<Tensor> {
    let copies = factors.elem_count();
    let weight = weight.reshape((weight.dim(0)?, copies, ()))?;
    let of_values = weight.broadcast_mul(&factors.reshape((1, copies, 1))?)?.sum(1)?;
    Tensor::stack(&[of_values, weight.sum(1)?], 0)
}

/// Outputs that are worth another thread.
const AT_ONCE: usize = 32;

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
        let rows = of_values.par_chunks_mut(AT_ONCE * inputs).zip(of_added.par_chunks_mut(AT_ONCE * inputs));
        rows.zip(weight.par_chunks(AT_ONCE * width))
            .for_each(|((of_values, of_added), weight)| forward(weight, factors, inputs, of_values, of_added));
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
        let mut into = self.sink.as_ref().expect("an operation on the tape has a sink").lock();
        let (to_weight, write) = into.of(&self.weight);
        let outputs = self.weight.dims()[0];
        let (inputs, width) = (of_values.len() / outputs, weight.len() / outputs);
        let mut by_output = vec![0.0; outputs * factors.len()];
        let rows = weight.par_chunks(AT_ONCE * width).zip(to_weight.par_chunks_mut(AT_ONCE * width));
        let gradients = of_values.par_chunks(AT_ONCE * inputs).zip(of_added.par_chunks(AT_ONCE * inputs));
        rows.zip(gradients).zip(by_output.par_chunks_mut(AT_ONCE * factors.len())).for_each(
            |(((weight, to_weight), gradients), to_factors)| {
                backward((weight, factors), inputs, gradients, write, to_weight, to_factors);
            },
        );
        // Whoever worked on them, outputs are added in their order.
        let mut to_factors = vec![0.0; factors.len()];
        for of_output in by_output.chunks_exact(factors.len()) {
            to_factors.iter_mut().zip(of_output).for_each(|(sum, part)| *sum += part);
        }
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

/// Writes the gradient of the weight; that of the factors is left in parts, one for each output.
#[multiversion(targets("x86_64+avx2+fma"))]
fn backward(
    (weight, factors): (&[f32], &[f32]),
    inputs: usize,
    (of_values, of_added): (&[f32], &[f32]),
    write: Write,
    to_weight: &mut [f32],
    to_factors: &mut [f32],
) {
    let width = factors.len() * inputs;
    let gradients = of_values.chunks_exact(inputs).zip(of_added.chunks_exact(inputs));
    let rows = weight.chunks_exact(width).zip(to_weight.chunks_exact_mut(width));
    for (((copies, to_copies), (of_values, of_added)), to_factors) in
        rows.zip(gradients).zip(to_factors.chunks_exact_mut(factors.len()))
    {
        let parts = copies.chunks_exact(inputs).zip(to_copies.chunks_exact_mut(inputs));
        for ((weight, to_weight), (factor, to_factor)) in parts.zip(factors.iter().zip(to_factors)) {
            *to_factor = sum_of(inputs, |input| of_values[input] * weight[input]);
            let each = to_weight.iter_mut().zip(of_values).zip(of_added);
            match write {
                Write::Set => each.for_each(|((to, value), added)| *to = value.mul_add(*factor, *added)),
                Write::Add => each.for_each(|((to, value), added)| *to += value.mul_add(*factor, *added)),
            }
        }
    }
}
