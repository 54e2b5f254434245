//! NormLin: a learnt matrix, the same for every input, that mixes variates as attention would.
//!
//! Yue et al., "OLinear", NeurIPS 2025, <https://arxiv.org/abs/2505.08550>.

use candle_core::{CpuStorage, CustomOp1, CustomOp2, D, Layout, Result, Shape, Tensor};

use super::{
    product::{Write, matrix, matrix_mut, product},
    simd::sum_of,
    tape::{self, Values},
};
use crate::models::neural::{
    pass::{Pass, Sink},
    weights::Weight,
};

/// softplus of a weight `[1, variates, variates]`, each row divided by its sum.
pub fn normalised_softplus(weight: &Weight, pass: &Pass) -> Result<Tensor> {
    let tensor = pass.tensor(weight);
    if !pass.fuses(&tensor) {
        return plain_softplus(&tensor);
    }
    let op = NormalisedSoftplus { weight: weight.clone(), sink: pass.sink() };
    pass.apply1(&tensor, op)
}

/// The same in candle's own operations.
pub fn plain_softplus(weight: &Tensor) -> Result<Tensor> {
    // log(1 + eˣ) = max(x, 0) + log(1 + e⁻|ˣ|), which does not overflow.
    let positive = (weight.relu()? + (weight.abs()?.neg()?.exp()? + 1.0)?.log()?)?;
    positive.broadcast_div(&positive.sum_keepdim(D::Minus1)?)
}

struct NormalisedSoftplus {
    weight: Weight,
    sink: Option<Sink>,
}

fn softplus(x: f32) -> f32 {
    // PyTorch's threshold; above it log(1 + eˣ) is x in f32.
    if x > 20.0 { x } else { x.exp().ln_1p() }
}

impl CustomOp1 for NormalisedSoftplus {
    fn name(&self) -> &'static str {
        "normalised-softplus"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let width = layout.dims().last().copied().unwrap_or(1);
        let mut out: Vec<f32> = tape::slice(storage, layout)?.iter().map(|x| softplus(*x)).collect();
        for row in out.chunks_exact_mut(width) {
            let sum: f64 = row.iter().map(|value| f64::from(*value)).sum();
            // As PyTorch's `normalize`.
            let sum = sum.max(1e-12) as f32;
            row.iter_mut().for_each(|value| *value /= sum);
        }
        tape::result(out, layout.shape())
    }

    fn bwd(&self, weight: &Tensor, result: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let gradient = gradient.contiguous()?;
        let width = weight.dim(D::Minus1)?;
        let (weight, result, gradient) = (Values::of(weight), Values::of(result), Values::of(&gradient));
        let rows = weight.slice()?.chunks_exact(width).zip(result.slice()?.chunks_exact(width));
        let mut back = Vec::with_capacity(weight.slice()?.len());
        for ((weight, result), gradient) in rows.zip(gradient.slice()?.chunks_exact(width)) {
            let sum = weight.iter().map(|x| f64::from(softplus(*x))).sum::<f64>().max(1e-12) as f32;
            let mean = sum_of(width, |column| gradient[column] * result[column]);
            back.extend(weight.iter().zip(gradient).map(|(x, gradient)| {
                let slope = 1.0 / (1.0 + (-x).exp());
                (gradient - mean) / sum * slope
            }));
        }
        self.sink.as_ref().expect("an operation on the tape has a sink").lock().add(&self.weight, &back);
        Ok(None)
    }
}

/// `matrix [1, variates, variates]` times each window of `x [batch, variates, width]`.
pub fn mix(matrix: &Tensor, x: &Tensor, pass: &Pass) -> Result<Tensor> {
    if !pass.fuses(x) {
        return matrix.broadcast_as((x.dim(0)?, matrix.dim(1)?, matrix.dim(2)?))?.contiguous()?.matmul(x);
    }
    let (matrix, x) = (matrix.contiguous()?, x.contiguous()?);
    pass.apply2(&matrix, &x, Mix)
}

struct Mix;

impl CustomOp2 for Mix {
    fn name(&self) -> &'static str {
        "mix"
    }

    fn cpu_fwd(
        &self,
        mixing: &CpuStorage,
        mixing_layout: &Layout,
        x: &CpuStorage,
        x_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (_, variates, width) = x_layout.shape().dims3()?;
        let mixing = matrix(tape::slice(mixing, mixing_layout)?, variates);
        let x = tape::slice(x, x_layout)?;
        let mut out = vec![0.0; x.len()];
        for (x, out) in x.chunks_exact(variates * width).zip(out.chunks_exact_mut(variates * width)) {
            product(matrix_mut(out, width), Write::Set, mixing, matrix(x, width), 1.0);
        }
        tape::result(out, x_layout.shape())
    }

    fn bwd(
        &self,
        mixing: &Tensor,
        x: &Tensor,
        _: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let gradient = gradient.contiguous()?;
        let (_, variates, width) = x.dims3()?;
        let (mixing_values, x_values, gradient) = (Values::of(mixing), Values::of(x), Values::of(&gradient));
        let weights = matrix(mixing_values.slice()?, variates);
        let (values, gradient) = (x_values.slice()?, gradient.slice()?);
        let (mut to_mixing, mut to_x) = (vec![0.0; weights.len()], vec![0.0; values.len()]);
        let mut write = Write::Set;
        let window = variates * width;
        let windows = values.chunks_exact(window).zip(gradient.chunks_exact(window));
        for ((x, gradient), to_x) in windows.zip(to_x.chunks_exact_mut(window)) {
            let gradient = matrix(gradient, width);
            product(matrix_mut(&mut to_mixing, variates), write, gradient, matrix(x, width).t(), 1.0);
            product(matrix_mut(to_x, width), Write::Set, weights.t(), gradient, 1.0);
            write = Write::Add;
        }
        // A matrix that is not trained has no place on the tape.
        let to_mixing = mixing.track_op().then(|| tape::tensor(to_mixing, mixing.shape())).transpose()?;
        Ok((to_mixing, Some(tape::tensor(to_x, x.shape())?)))
    }
}
