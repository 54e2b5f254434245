//! The second half of an encoder layer: two maps of each token alone, a residual, a normalisation.

use candle_core::{Result, Tensor};

use crate::models::neural::{
    kernels::{
        activation::{Activation, activate},
        linear::{Map, linear},
        norm::{Affine, add_norm},
    },
    pass::Pass,
    weights::Weights,
};

/// z ← norm(z + dropout(conv2(dropout(activation(conv1(z)))))), as in Autoformer's library and all that
/// grew from it: the maps are kept as convolutions of width 1.
pub struct FeedForward {
    inner: Map,
    outer: Map,
    norm: Affine,
    activation: Activation,
    dropout: f64,
    d_ff: usize,
}

impl FeedForward {
    /// `norm` is the name that the weights of the normalisation have.
    ///
    /// # Errors
    /// If the weights cannot be made.
    pub fn new(
        d_model: usize,
        d_ff: usize,
        activation: Activation,
        dropout: f64,
        norm: &str,
        weights: &Weights,
    ) -> crate::Result<Self> {
        Ok(Self {
            inner: weights.pointwise("conv1", d_model, d_ff)?,
            outer: weights.pointwise("conv2", d_ff, d_model)?,
            norm: weights.affine(norm, d_model)?,
            activation,
            dropout,
            d_ff,
        })
    }

    /// `[batch, tokens, d_model]`, and the same again.
    ///
    /// # Errors
    /// If the shape is another.
    pub fn forward(&self, z: &Tensor, pass: &Pass) -> Result<Tensor> {
        let (_, tokens, d_model) = z.dims3()?;
        let inner = linear(z, std::slice::from_ref(&self.inner), pass)?;
        let inner = activate(&inner, self.activation, pass.dropout(self.dropout, tokens * self.d_ff), pass)?;
        let outer = linear(&inner, std::slice::from_ref(&self.outer), pass)?;
        add_norm(z, &outer, &self.norm, pass.dropout(self.dropout, tokens * d_model), pass)
    }
}
