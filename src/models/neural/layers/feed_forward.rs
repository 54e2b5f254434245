//! The second half of an encoder layer: two maps of each token alone, a residual, a normalisation.

use candle_core::{Result, Tensor};

use crate::models::neural::{
    kernels::{
        activation::Activation,
        feed_forward::{TwoMaps, feed_forward},
        norm::{Affine, add_norm},
    },
    pass::Pass,
    weights::Weights,
};

/// z ← norm(z + dropout(conv2(dropout(activation(conv1(z)))))), as in Autoformer's library and all that
/// grew from it: the maps are kept as convolutions of width 1.
pub struct FeedForward {
    maps: TwoMaps,
    norm: Affine,
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
            maps: TwoMaps {
                inner: weights.pointwise("conv1", d_model, d_ff)?,
                outer: weights.pointwise("conv2", d_ff, d_model)?,
                activation,
            },
            norm: weights.affine(norm, d_model)?,
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
        let outer = feed_forward(z, &self.maps, pass.dropout(self.dropout, tokens * self.d_ff), pass)?;
        add_norm(z, &outer, &self.norm, pass.dropout(self.dropout, tokens * d_model), pass)
    }
}
