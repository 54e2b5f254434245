//! Products of two tensors that both may be on the tape.

use candle_core::{CpuStorage, CustomOp2, CustomOp3, D, Layout, Result, Shape, Tensor};
use multiversion::multiversion;
use ndarray::ArrayView2;

use super::{
    panels::in_turn,
    product::{Threads, Write, matrix, matrix_mut, product_of, rows_times},
    tape::{self, Values},
};
use crate::models::neural::pass::Pass;

/// `a [.., depth]` times `b [depth, columns]`.
pub fn times(a: &Tensor, b: &Tensor, pass: &Pass) -> Result<Tensor> {
    match pass.fuses(a) {
        true => apply(a, b, false, pass),
        false => a.broadcast_matmul(b),
    }
}

/// `a [.., depth]` times the transpose of `b [columns, depth]`: what a linear map does with its weight.
pub fn times_transposed(a: &Tensor, b: &Tensor, pass: &Pass) -> Result<Tensor> {
    match pass.fuses(a) {
        true => apply(a, b, true, pass),
        false => a.broadcast_matmul(&b.t()?),
    }
}

/// Rows of `x [.., depth]` through a map: times the transpose of `weight [columns, depth]`, and `bias
/// [rows, columns]` added, whose rows are taken in turn.
pub fn mapped(x: &Tensor, weight: &Tensor, bias: &Tensor, pass: &Pass) -> Result<Tensor> {
    if !pass.fuses(x) {
        return x.broadcast_matmul(&weight.t()?)?.broadcast_add(bias);
    }
    let (x, weight, bias) = (x.contiguous()?, weight.contiguous()?, bias.contiguous()?);
    let op = MatMul { transposed: true, threads: pass.threads() };
    pass.apply3(&x, &weight, &bias, op)
}

fn apply(a: &Tensor, b: &Tensor, transposed: bool, pass: &Pass) -> Result<Tensor> {
    let (a, b) = (a.contiguous()?, b.contiguous()?);
    let op = MatMul { transposed, threads: pass.threads() };
    pass.apply2(&a, &b, op)
}

struct MatMul {
    transposed: bool,
    threads: Threads,
}

impl MatMul {
    /// `b` as `[depth, columns]`.
    fn view<'a>(&self, b: &'a [f32], dims: &[usize]) -> ArrayView2<'a, f32> {
        let b = matrix(b, dims[1]);
        if self.transposed { b.reversed_axes() } else { b }
    }
}

impl CustomOp2 for MatMul {
    fn name(&self) -> &'static str {
        "matmul"
    }

    fn cpu_fwd(
        &self,
        a: &CpuStorage,
        a_layout: &Layout,
        b: &CpuStorage,
        b_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let mut shape = a_layout.dims().to_vec();
        let depth = shape.pop().expect("a tensor that is multiplied has an axis");
        let b = self.view(tape::slice(b, b_layout)?, b_layout.dims());
        let a = matrix(tape::slice(a, a_layout)?, depth);
        let mut out = vec![0.0; a.nrows() * b.ncols()];
        rows_times(matrix_mut(&mut out, b.ncols()), Write::Set, a, b, self.threads);
        shape.push(b.ncols());
        tape::result(out, shape)
    }

    fn bwd(&self, a: &Tensor, b: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let gradient = gradient.contiguous()?;
        let (a_values, b_values, gradient) = (Values::of(a), Values::of(b), Values::of(&gradient));
        let depth = a.dim(D::Minus1)?;
        let (left, right) = (matrix(a_values.slice()?, depth), self.view(b_values.slice()?, b.dims()));
        let gradient = matrix(gradient.slice()?, right.ncols());
        let to_a = a.track_op().then(|| tape::tensor(product_of(Threads::One, gradient, right.t()), a.shape()));
        let to_b = b.track_op().then(|| {
            let to_b = match self.transposed {
                true => product_of(Threads::One, gradient.t(), left),
                false => product_of(Threads::One, left.t(), gradient),
            };
            tape::tensor(to_b, b.shape())
        });
        Ok((to_a.transpose()?, to_b.transpose()?))
    }
}

impl CustomOp3 for MatMul {
    fn name(&self) -> &'static str {
        "mapped"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let mut shape = x_layout.dims().to_vec();
        let depth = shape.pop().expect("a tensor that is multiplied has an axis");
        let x = matrix(tape::slice(x, x_layout)?, depth);
        let weight = self.view(tape::slice(weight, weight_layout)?, weight_layout.dims());
        let bias = tape::slice(bias, bias_layout)?;
        let mut out = in_turn(bias, x.nrows() * weight.ncols());
        rows_times(matrix_mut(&mut out, weight.ncols()), Write::Add, x, weight, self.threads);
        shape.push(weight.ncols());
        tape::result(out, shape)
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        result: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let gradient = gradient.contiguous()?;
        let (to_x, to_weight) = CustomOp2::bwd(self, x, weight, result, &gradient)?;
        let mut to_bias = vec![0.0; bias.elem_count()];
        let values = Values::of(&gradient);
        for part in values.slice()?.chunks(to_bias.len()) {
            add_to(&mut to_bias[..part.len()], part);
        }
        let to_bias = bias.track_op().then(|| tape::tensor(to_bias, bias.shape())).transpose()?;
        Ok((to_x, to_weight, to_bias))
    }
}

#[multiversion(targets("x86_64+avx2+fma"))]
fn add_to(sums: &mut [f32], part: &[f32]) {
    sums.iter_mut().zip(part).for_each(|(sum, value)| *sum += value);
}
