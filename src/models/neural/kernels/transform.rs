//! Products with a matrix that is not trained.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};

use super::{
    product::{Threads, Write, matrix, matrix_mut, product, product_of, rows_times},
    tape::{self, Values},
};
use crate::models::neural::{
    pass::{Pass, Sink},
    weights::Weight,
};

/// `x [.., in]` times `matrix [in, out]`.
pub fn transform(x: &Tensor, matrix: &Tensor, pass: &Pass) -> Result<Tensor> {
    if !pass.fuses(x) {
        return x.broadcast_matmul(matrix);
    }
    let op = Transform { matrix: matrix.contiguous()? };
    let x = x.contiguous()?;
    pass.apply1(&x, op)
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
        rows_times(matrix_mut(&mut out, outputs), Write::Set, x, matrix(fixed.slice()?, outputs), Threads::One);
        let mut shape = layout.dims().to_vec();
        *shape.last_mut().expect("a tensor that is mapped has an axis") = outputs;
        tape::result(out, shape)
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let gradient = gradient.contiguous()?;
        let (fixed, gradient) = (Values::of(&self.matrix), Values::of(&gradient));
        let outputs = self.matrix.dim(1)?;
        let (gradient, fixed) = (matrix(gradient.slice()?, outputs), matrix(fixed.slice()?, outputs));
        tape::tensor(product_of(Threads::One, gradient, fixed.t()), x.shape()).map(Some)
    }
}

/// OLinear's way back: `x [batch, variates, copies · length]` times `matrix [length, length]`, `delta
/// [1, variates, 1, length]` added to every copy, the copies of each step side by side: `[batch, variates,
/// length · copies]`.
pub fn transform_back(x: &Tensor, matrix: &Tensor, delta: &Weight, pass: &Pass) -> Result<Tensor> {
    if !pass.fuses(x) {
        return plain_back(x, matrix, &pass.tensor(delta));
    }
    let op = TransformBack { matrix: matrix.contiguous()?, delta: delta.clone(), sink: pass.sink() };
    let x = pass.input_of(&[delta], x)?;
    pass.apply1(&x, op)
}

/// The same in candle's own operations.
pub fn plain_back(x: &Tensor, matrix: &Tensor, delta: &Tensor) -> Result<Tensor> {
    let (batch, variates, width) = x.dims3()?;
    let length = matrix.dim(0)?;
    let copies = width / length;
    let back = x.reshape((batch, variates, copies, length))?.broadcast_matmul(matrix)?.broadcast_add(delta)?;
    back.transpose(2, 3)?.contiguous()?.reshape((batch, variates, length * copies))
}

struct TransformBack {
    matrix: Tensor,
    delta: Weight,
    sink: Option<Sink>,
}

impl CustomOp1 for TransformBack {
    fn name(&self) -> &'static str {
        "transform-back"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (batch, variates, block) = layout.shape().dims3()?;
        let length = self.matrix.dim(0)?;
        let copies = block / length;
        let (fixed, delta) = (Values::of(&self.matrix), Values::of(self.delta.tensor()));
        let fixed = matrix(fixed.slice()?, length);
        let x = tape::slice(storage, layout)?;
        let delta = delta.slice()?.chunks_exact(length).cycle();
        // One value for every copy of a step.
        let mut out = Vec::with_capacity(x.len());
        for delta in delta.take(batch * variates) {
            delta.iter().for_each(|value| out.extend(std::iter::repeat_n(*value, copies)));
        }
        for (x, out) in x.chunks_exact(block).zip(out.chunks_exact_mut(block)) {
            product(matrix_mut(out, copies), Write::Add, fixed.t(), matrix(x, length).t(), 1.0);
        }
        tape::result(out, (batch, variates, block))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let (_, variates, block) = x.dims3()?;
        let length = self.matrix.dim(0)?;
        let copies = block / length;
        let gradient = gradient.contiguous()?;
        let (fixed, gradient) = (Values::of(&self.matrix), Values::of(&gradient));
        let (fixed, gradient) = (matrix(fixed.slice()?, length), gradient.slice()?);
        let mut back = vec![0.0; gradient.len()];
        let mut to_delta = vec![0.0; variates * length];
        for (index, (gradient, back)) in gradient.chunks_exact(block).zip(back.chunks_exact_mut(block)).enumerate() {
            product(matrix_mut(back, length), Write::Set, matrix(gradient, copies).t(), fixed.t(), 1.0);
            let to_delta = to_delta[index % variates * length..].iter_mut();
            for (sum, copies) in to_delta.zip(gradient.chunks_exact(copies)) {
                *sum += copies.iter().sum::<f32>();
            }
        }
        self.sink.as_ref().expect("an operation on the tape has a sink").lock().add(&self.delta, &to_delta);
        tape::tensor(back, x.shape()).map(Some)
    }
}
