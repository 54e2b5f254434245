//! iTransformer: the whole lookback of a variate is one token, and attention mixes variates.
//!
//! Liu et al., "iTransformer: Inverted Transformers Are Effective for Time Series Forecasting", ICLR
//! 2024, <https://arxiv.org/abs/2310.06625>. Weight names are those of the authors' checkpoint; the
//! head is called `projection` in the Time-Series-Library.

use candle_core::{Result, Tensor};
use serde::{Deserialize, Serialize};

use super::{
    Input, Network,
    kernels::{
        activation::Activation,
        attention::{attention, self_attention},
        linear::{Map, linear},
        norm::{Affine, add_norm, norm},
        part::part,
    },
    layers::{FeedForward, InstanceNorm},
    pass::Pass,
    reference::{Inferred, Shapes},
    weights::Weights,
};
use crate::{Error, windows::WindowShape};

/// `[network]` of a preset.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ITransformerParams {
    /// Width of a token.
    pub d_model: usize,
    /// Width inside the feed-forward network.
    pub d_ff: usize,
    /// Parts that attention is cut into; they divide `d_model`.
    pub heads: usize,
    /// Encoder layers.
    pub layers: usize,
    /// Share of elements dropped in training.
    pub dropout: f64,
    pub activation: Activation,
    /// Whether each lookback is brought to mean 0 and deviation 1 first.
    pub instance_norm: bool,
    /// Whether each calendar feature of the lookback is a token too.
    pub time_tokens: bool,
}

impl Default for ITransformerParams {
    fn default() -> Self {
        Self {
            d_model: 512,
            d_ff: 512,
            heads: 8,
            layers: 2,
            dropout: 0.1,
            activation: Activation::Gelu,
            instance_norm: true,
            time_tokens: true,
        }
    }
}

pub struct ITransformer {
    params: ITransformerParams,
    embedding: Map,
    layers: Vec<EncoderLayer>,
    norm: Affine,
    head: Map,
}

impl Network for ITransformer {
    const NAME: &'static str = "itransformer";
    const ABOUT: &'static str = "attention between variates, each lookback one token (Liu et al., 2024)";
    type Params = ITransformerParams;
    const ALIASES: &'static [(&'static str, &'static str)] = &[("projection.", "projector.")];

    fn infer(shapes: &mut Shapes<'_>) -> Inferred {
        let inferred = Inferred {
            lookback: Some(shapes.size("enc_embedding.value_embedding.weight", 1)),
            horizon: Some(shapes.size("projector.weight", 0)),
            ..Inferred::default()
        };
        inferred
            .with("d_model", shapes.size("enc_embedding.value_embedding.weight", 0))
            .with("d_ff", shapes.size("encoder.attn_layers.0.conv1.weight", 0))
            .with("layers", shapes.layers("encoder.attn_layers"))
    }

    fn build(params: &ITransformerParams, shape: WindowShape, weights: &Weights) -> crate::Result<Self> {
        let ITransformerParams { d_model, heads, layers, dropout, .. } = *params;
        if heads == 0 || !d_model.is_multiple_of(heads) || d_model == 0 || params.d_ff == 0 {
            let message =
                format!("d_model ({d_model}) and d_ff must be at least 1, and heads ({heads}) divide d_model");
            return Err(Error::params(Self::NAME, message));
        }
        super::check_dropout(Self::NAME, dropout)?;
        let encoder = weights.at("encoder");
        Ok(Self {
            params: params.clone(),
            embedding: weights.linear("enc_embedding.value_embedding", shape.lookback, d_model)?,
            layers: (0..layers)
                .map(|layer| EncoderLayer::new(params, &encoder.at(format!("attn_layers.{layer}"))))
                .collect::<crate::Result<_>>()?,
            norm: encoder.affine("norm", d_model)?,
            head: weights.linear("projector", d_model, shape.horizon)?,
        })
    }

    fn forward(&self, input: &Input, pass: &Pass) -> Result<Tensor> {
        let variates = input.values.dim(1)?;
        let (values, instance) = match self.params.instance_norm {
            true => InstanceNorm::of(&input.values).map(|(values, instance)| (values, Some(instance)))?,
            false => (input.values.clone(), None),
        };
        let tokens = match &input.past_time {
            Some(time) if self.params.time_tokens => Tensor::cat(&[&values, time], 1)?,
            _ => values,
        };
        let forecast = pass.together(&tokens, || self.by_tokens(&tokens, variates, pass))?;
        instance.map_or(Ok(forecast.clone()), |instance| instance.undo(&forecast))
    }
}

impl ITransformer {
    /// `tokens [batch, tokens, lookback]`, the first of them those of the variates: `[batch, variates, horizon]`.
    fn by_tokens(&self, tokens: &Tensor, variates: usize, pass: &Pass) -> Result<Tensor> {
        let tokens = linear(tokens, std::slice::from_ref(&self.embedding), pass)?;
        let mut z = pass.drop_out(tokens, self.params.dropout)?; // [batch, tokens, d_model]
        for (index, layer) in self.layers.iter().enumerate() {
            // Nothing is read off the calendar tokens in the end, so the last layer leaves them out.
            let last = index + 1 == self.layers.len();
            let kept = if last { variates } else { z.dim(1)? };
            z = layer.forward(&z, kept, pass)?;
        }
        let z = norm(&part(&z, 0..variates, pass)?, &self.norm, pass)?;
        linear(&z, std::slice::from_ref(&self.head), pass)
    }
}

struct EncoderLayer {
    heads: usize,
    dropout: f64,
    /// Queries, keys and values.
    projections: [Map; 3],
    out: Map,
    norm: Affine,
    feed_forward: FeedForward,
}

impl EncoderLayer {
    fn new(params: &ITransformerParams, weights: &Weights) -> crate::Result<Self> {
        let ITransformerParams { d_model, d_ff, heads, dropout, activation, .. } = *params;
        let projection = |name| weights.linear(format!("attention.{name}_projection"), d_model, d_model);
        Ok(Self {
            heads,
            dropout,
            projections: [projection("query")?, projection("key")?, projection("value")?],
            out: projection("out")?,
            norm: weights.affine("norm1", d_model)?,
            feed_forward: FeedForward::new(d_model, d_ff, activation, dropout, "norm2", weights)?,
        })
    }

    /// `[batch, tokens, d_model]` -> `[batch, kept, d_model]`: all tokens are attended to, the first
    /// `kept` of them go on.
    fn forward(&self, z: &Tensor, kept: usize, pass: &Pass) -> Result<Tensor> {
        let (_, tokens, d_model) = z.dims3()?;
        let dropout = pass.dropout(self.dropout, self.heads * kept * tokens);
        let (z, mixed) = if kept == tokens {
            let qkv = linear(z, &self.projections, pass)?;
            (z.clone(), self_attention(&qkv, self.heads, dropout, pass)?)
        } else {
            let first = part(z, 0..kept, pass)?;
            let queries = linear(&first, &self.projections[..1], pass)?;
            let kv = linear(z, &self.projections[1..], pass)?;
            (first, attention(&queries, &kv, self.heads, dropout, pass)?)
        };
        let mixed = linear(&mixed, std::slice::from_ref(&self.out), pass)?;
        let z = add_norm(&z, &mixed, &self.norm, pass.dropout(self.dropout, kept * d_model), pass)?;
        self.feed_forward.forward(&z, pass)
    }
}
