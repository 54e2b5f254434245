//! A product with a matrix that is not trained.

use candle_core::{CpuStorage, CustomOp1, D, Layout, Result, Shape, Tensor};

use super::{
    product::{Write, matrix, matrix_mut, product, rows_times},
    tape::{self, Values},
};
use crate::models::neural::pass::Pass;

/// `x [.., in]` times `matrix [in, out]`.
pub fn transform(x: &Tensor, matrix: &Tensor, pass: &Pass) -> Result<Tensor> {
    if !x.device().is_cpu() {
        return x.broadcast_matmul(matrix);
    }
    let op = Transform { matrix: matrix.contiguous()? };
    let x = x.contiguous()?;
    if pass.is_training() { x.apply_op1(op) } else { x.apply_op1_no_bwd(&op) }
}

struct Transform {
    matrix: Tensor,
}

impl CustomOp1 for Transform {
    fn name(&self) -> &'static str {
        "transform"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (inputs, outputs) = self.matrix.dims2()?;
        let fixed = Values::of(&self.matrix);
        let x = matrix(tape::slice(storage, layout)?, inputs);
        let mut out = vec![0.0; x.nrows() * outputs];
        rows_times(matrix_mut(&mut out, outputs), Write::Set, x, matrix(fixed.slice()?, outputs));
        let mut shape = layout.dims().to_vec();
        *shape.last_mut().expect("a tensor that is mapped has an axis") = outputs;
        tape::result(out, shape)
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let gradient = gradient.contiguous()?;
        let (fixed, gradient) = (Values::of(&self.matrix), Values::of(&gradient));
        let outputs = self.matrix.dim(1)?;
        let mut back = vec![0.0; x.elem_count()];
        let out = matrix_mut(&mut back, x.dim(D::Minus1)?);
        product(out, Write::Set, matrix(gradient.slice()?, outputs), matrix(fixed.slice()?, outputs).t(), 1.0);
        tape::tensor(back, x.shape()).map(Some)
    }
}
