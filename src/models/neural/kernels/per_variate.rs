//! A learnt scale and shift for each variate, and the way back: the affine part of reversible instance
//! normalisation.
//!
//! Kim et al., "Reversible Instance Normalization", ICLR 2022.

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor};

use super::tape::{self, Values};
use crate::models::neural::{pass::Pass, weights::Weight};

/// Added to a scale that is divided by.
const EPSILON: f32 = 1e-10;

/// The weights, `[variates]` each.
#[derive(Clone)]
pub struct PerVariate {
    pub scale: Weight,
    pub shift: Weight,
}

impl PerVariate {
    /// `x [batch, variates, time]`, scaled and shifted.
    ///
    /// # Errors
    /// If the shape is another.
    pub fn apply(&self, x: &Tensor, pass: &Pass) -> Result<Tensor> {
        self.either(x, Way::There, pass)
    }

    /// The way back.
    ///
    /// # Errors
    /// If the shape is another.
    pub fn undo(&self, x: &Tensor, pass: &Pass) -> Result<Tensor> {
        self.either(x, Way::Back, pass)
    }

    fn either(&self, x: &Tensor, way: Way, pass: &Pass) -> Result<Tensor> {
        if !pass.fuses(x) {
            return self.plain(x, way, pass);
        }
        pass.apply3(&x.contiguous()?, &pass.tensor(&self.scale), &pass.tensor(&self.shift), Affine(way))
    }

    /// The same in candle's own operations.
    ///
    /// # Errors
    /// If the shape is another.
    pub fn plain(&self, x: &Tensor, way: Way, pass: &Pass) -> Result<Tensor> {
        let of = |weight: &Weight| pass.tensor(weight).reshape((1, (), 1));
        let (scale, shift) = (of(&self.scale)?, of(&self.shift)?);
        match way {
            Way::There => x.broadcast_mul(&scale)?.broadcast_add(&shift),
            Way::Back => x.broadcast_sub(&shift)?.broadcast_div(&(scale + f64::from(EPSILON))?),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    There,
    Back,
}

struct Affine(Way);

impl CustomOp3 for Affine {
    fn name(&self) -> &'static str {
        "per-variate"
    }

    fn cpu_fwd(
        &self,
        storage: &CpuStorage,
        layout: &Layout,
        scale: &CpuStorage,
        scale_layout: &Layout,
        shift: &CpuStorage,
        shift_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let x = tape::slice(storage, layout)?;
        let time = layout.shape().dims3()?.2;
        let (scale, shift) = (tape::slice(scale, scale_layout)?, tape::slice(shift, shift_layout)?);
        let mut out = Vec::with_capacity(x.len());
        for (row, (scale, shift)) in x.chunks_exact(time).zip(scale.iter().zip(shift).cycle()) {
            match self.0 {
                Way::There => out.extend(row.iter().map(|x| x * scale + shift)),
                Way::Back => {
                    let scale = scale + EPSILON;
                    out.extend(row.iter().map(|x| (x - shift) / scale));
                }
            }
        }
        tape::result(out, layout.shape())
    }

    fn bwd(
        &self,
        x: &Tensor,
        scale: &Tensor,
        shift: &Tensor,
        _: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let gradient = gradient.contiguous()?;
        let (x_values, gradient) = (Values::of(x), Values::of(&gradient));
        let (windows, variates, time) = x.dims3()?;
        let (factors, shifts) = (Values::of(scale), Values::of(shift));
        let (factors, shifts) = (factors.slice()?, shifts.slice()?);
        // The gradients of scale and shift from one number.
        let terms = |variate: usize, x: f32, gradient: f32| match self.0 {
            Way::There => (gradient * x, gradient),
            Way::Back => {
                let factor = factors[variate] + EPSILON;
                (-(gradient * (x - shifts[variate]) / (factor * factor)), -(gradient / factor))
            }
        };
        let (mut to_scale, mut to_shift) = (vec![0.0; variates], vec![0.0; variates]);
        let mut back = Vec::with_capacity(x.elem_count());
        let rows = x_values.slice()?.chunks_exact(time).zip(gradient.slice()?.chunks_exact(time));
        for (index, (x, gradient)) in rows.enumerate() {
            let variate = index % variates;
            let terms = x.iter().zip(gradient).map(|(x, gradient)| terms(variate, *x, *gradient));
            if windows == 1 {
                // In the order in which candle adds up along the last axis alone, as it would here.
                let (of_scale, of_shift): (Vec<f32>, Vec<f32>) = terms.unzip();
                let sum = |terms| tape::tensor(terms, &time.into())?.sum_all()?.to_scalar();
                (to_scale[variate], to_shift[variate]) = (sum(of_scale)?, sum(of_shift)?);
            } else {
                for (of_scale, of_shift) in terms {
                    to_scale[variate] += of_scale;
                    to_shift[variate] += of_shift;
                }
            }
            match self.0 {
                Way::There => back.extend(gradient.iter().map(|gradient| gradient * factors[variate])),
                Way::Back => back.extend(gradient.iter().map(|gradient| gradient / (factors[variate] + EPSILON))),
            }
        }
        let over_tape = |of: &Tensor, gradient| of.track_op().then(|| tape::tensor(gradient, of.shape())).transpose();
        Ok((over_tape(x, back)?, over_tape(scale, to_scale)?, over_tape(shift, to_shift)?))
    }
}
