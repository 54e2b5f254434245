//! Autoformer: each layer takes the trend out, and the best lags of the series stand in for attention.
//!
//! Wu et al., "Autoformer: Decomposition Transformers with Auto-Correlation for Long-Term Series
//! Forecasting", NeurIPS 2021, <https://arxiv.org/abs/2106.13008>. Weight names are those of the authors'
//! checkpoint. Heads are no param: lags are chosen over all channels together, as in the authors' code,
//! so that nothing depends on them.
//!
//! In training lags are chosen by the mean over the batch, so a batch goes through the network as a
//! whole; a forecast chooses for each window.

use candle_core::{Result, Tensor};
use serde::{Deserialize, Serialize};

use super::{
    Input, Network,
    kernels::{
        activation::Activation,
        auto_correlation::{Lags, auto_correlation},
        decomposition::{Component, add_decompose, decompose},
        dropout::Dropout,
        feed_forward::{TwoMaps, feed_forward},
        linear::{Map, linear},
        matmul::times_transposed,
        norm::{Affine, norm},
        part::part,
    },
    layers::StepEmbedding,
    pass::Pass,
    reference::{Conventions, Inferred, Kept, Shapes},
    weights::{Init, Weight, Weights},
};
use crate::{Error, windows::WindowShape};

/// `[network]` of a preset.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AutoformerParams {
    /// Width of a step.
    pub d_model: usize,
    /// Width inside the feed-forward network.
    pub d_ff: usize,
    pub encoder_layers: usize,
    pub decoder_layers: usize,
    /// The last steps of the lookback, which the decoder sees before the horizon; 0 is half of them.
    pub label: usize,
    /// Steps a trend is averaged over; odd.
    pub moving_average: usize,
    /// Lags for each unit of the logarithm of the length.
    pub factor: usize,
    /// Share of elements dropped in training.
    pub dropout: f64,
    pub activation: Activation,
    /// What lags are chosen by in training.
    pub lags: Lags,
}

impl Default for AutoformerParams {
    fn default() -> Self {
        Self {
            d_model: 512,
            d_ff: 2048,
            encoder_layers: 2,
            decoder_layers: 1,
            label: 0,
            moving_average: 25,
            factor: 3,
            dropout: 0.05,
            activation: Activation::Gelu,
            lags: Lags::Batch,
        }
    }
}

pub struct Autoformer {
    params: AutoformerParams,
    shape: WindowShape,
    encoder_embedding: StepEmbedding,
    decoder_embedding: StepEmbedding,
    encoder: Vec<EncoderLayer>,
    encoder_norm: Affine,
    decoder: Vec<DecoderLayer>,
    decoder_norm: Affine,
    head: Map,
}

impl Network for Autoformer {
    const NAME: &'static str = "autoformer";
    const ABOUT: &'static str = "series decomposition and auto-correlation in every layer (Wu et al., 2021)";
    type Params = AutoformerParams;

    fn infer(shapes: &mut Shapes<'_>) -> Inferred {
        super::layers::infer_steps(shapes)
            .with("d_ff", shapes.size("encoder.attn_layers.0.conv1.weight", 0))
            .with("encoder_layers", shapes.layers("encoder.attn_layers"))
            .with("decoder_layers", shapes.layers("decoder.layers"))
    }

    fn conventions(params: &AutoformerParams) -> Conventions {
        let table = |name| (format!("{name}.position_embedding.pe"), Kept::Unused { width: params.d_model });
        Conventions { kept: vec![table("enc_embedding"), table("dec_embedding")], ..Conventions::default() }
    }

    fn build(params: &AutoformerParams, shape: WindowShape, weights: &Weights) -> crate::Result<Self> {
        let AutoformerParams { d_model, d_ff, factor, moving_average, .. } = *params;
        let label = match params.label {
            0 => (shape.lookback / 2).max(1),
            label => label,
        };
        let refused = |message: String| Err(Error::params(Self::NAME, message));
        if d_model == 0 || d_ff == 0 || factor == 0 {
            return refused("d_model, d_ff and factor must be at least 1".into());
        }
        if label > shape.lookback {
            return refused(format!("label must be at most the lookback ({}), not {label}", shape.lookback));
        }
        if moving_average.is_multiple_of(2) {
            return refused(format!("moving_average must be odd, not {moving_average}"));
        }
        super::check_average(Self::NAME, moving_average, shape)?;
        super::check_dropout(Self::NAME, params.dropout)?;
        let (encoder, decoder) = (weights.at("encoder"), weights.at("decoder"));
        let embedding = |name| StepEmbedding::new(d_model, shape, false, params.dropout, &weights.at(name));
        Ok(Self {
            params: AutoformerParams { label, ..params.clone() },
            shape,
            encoder_embedding: embedding("enc_embedding")?,
            decoder_embedding: embedding("dec_embedding")?,
            encoder: (0..params.encoder_layers)
                .map(|layer| EncoderLayer::new(params, &encoder.at(format!("attn_layers.{layer}"))))
                .collect::<crate::Result<_>>()?,
            encoder_norm: encoder.affine("norm.layernorm", d_model)?,
            decoder: (0..params.decoder_layers)
                .map(|layer| DecoderLayer::new(params, shape, &decoder.at(format!("layers.{layer}"))))
                .collect::<crate::Result<_>>()?,
            decoder_norm: decoder.affine("norm.layernorm", d_model)?,
            head: decoder.linear("projection", d_model, shape.variates)?,
        })
    }

    fn whole_batch(&self) -> bool {
        self.params.lags == Lags::Batch
    }

    fn forward(&self, input: &Input, pass: &Pass) -> Result<Tensor> {
        let AutoformerParams { label, moving_average, .. } = self.params;
        let WindowShape { lookback, horizon, .. } = self.shape;
        let x = rows(&input.values)?; // [batch, lookback, variates]
        let (batch, _, variates) = x.dims3()?;
        let slow = decompose(&x, Component::Trend, moving_average, pass)?;
        let last = |tensor: &Tensor| tensor.narrow(1, lookback - label, label);
        let blank = Tensor::zeros((batch, horizon, variates), x.dtype(), x.device())?;
        let seasonal = Tensor::cat(&[last(&(&x - &slow)?)?, blank], 1)?;
        let mean = x.mean_keepdim(1)?.broadcast_as((batch, horizon, variates))?.contiguous()?;
        let mut sum = Tensor::cat(&[last(&slow)?, mean], 1)?; // [batch, label + horizon, variates]

        let past = input.past_time.as_ref().map(rows).transpose()?;
        let mut z = self.encoder_embedding.forward(&x, past.as_ref(), pass)?;
        for layer in &self.encoder {
            z = layer.forward(&z, &self.params, pass)?;
        }
        let memory = seasonal_norm(&z, &self.encoder_norm, pass)?;

        let time = match (&past, &input.future_time) {
            (Some(past), Some(future)) => Some(Tensor::cat(&[last(past)?, rows(future)?], 1)?),
            _ => None,
        };
        let mut u = self.decoder_embedding.forward(&seasonal, time.as_ref(), pass)?;
        for layer in &self.decoder {
            let (next, slow) = layer.forward(&u, &memory, &self.params, pass)?;
            u = next;
            sum = (sum + slow)?;
        }
        let u = seasonal_norm(&u, &self.decoder_norm, pass)?.narrow(1, label, horizon)?;
        let seasonal = linear(&u, std::slice::from_ref(&self.head), pass)?;
        rows(&(seasonal + sum.narrow(1, label, horizon)?)?)
    }
}

/// Time and columns change places: a step a row, or back.
fn rows(tensor: &Tensor) -> Result<Tensor> {
    tensor.transpose(1, 2)?.contiguous()
}

/// Each row normalised, and the mean over time taken away.
fn seasonal_norm(z: &Tensor, affine: &Affine, pass: &Pass) -> Result<Tensor> {
    let z = norm(z, affine, pass)?;
    z.broadcast_sub(&z.mean_keepdim(1)?)
}

fn without_bias(weight: Weight) -> Map {
    Map { weight, bias: None }
}

/// Auto-correlation with its projections.
struct Attention {
    queries: Map,
    keys: Map,
    values: Map,
    out: Map,
}

impl Attention {
    fn new(d_model: usize, weights: &Weights) -> crate::Result<Self> {
        let projection = |name| weights.linear(format!("{name}_projection"), d_model, d_model);
        Ok(Self {
            queries: projection("query")?,
            keys: projection("key")?,
            values: projection("value")?,
            out: projection("out")?,
        })
    }

    /// `z [batch, time, d_model]` and what it looks at, `[batch, other time, d_model]`.
    fn forward(&self, z: &Tensor, at: &Tensor, params: &AutoformerParams, pass: &Pass) -> Result<Tensor> {
        let time = z.dim(1)?;
        let map = |x: &Tensor, map: &Map| linear(x, std::slice::from_ref(map), pass);
        // What lies beyond the queries is never used.
        let at = part(at, 0..time.min(at.dim(1)?), pass)?;
        let (q, k, v) = (map(z, &self.queries)?, map(&at, &self.keys)?, map(&at, &self.values)?);
        let count = ((params.factor as f64 * (time as f64).ln()) as usize).clamp(1, time);
        let mixed = auto_correlation(&q, &k, &v, count, params.lags, pass)?;
        map(&mixed, &self.out)
    }
}

/// Two maps of each step without bias, dropout behind the first.
struct FeedForward {
    maps: TwoMaps,
}

impl FeedForward {
    fn new(params: &AutoformerParams, weights: &Weights) -> crate::Result<Self> {
        let map = |name, inputs, outputs| {
            weights.at(name).trained("weight", &[outputs, inputs, 1], Init::of_linear(inputs)).map(without_bias)
        };
        let inner = map("conv1", params.d_model, params.d_ff)?;
        let outer = map("conv2", params.d_ff, params.d_model)?;
        Ok(Self { maps: TwoMaps { inner, outer, activation: params.activation } })
    }

    fn forward(&self, z: &Tensor, params: &AutoformerParams, pass: &Pass) -> Result<Tensor> {
        let between = z.dim(1)? * params.d_ff;
        feed_forward(z, &self.maps, pass.dropout(params.dropout, between), pass)
    }
}

struct EncoderLayer {
    attention: Attention,
    feed_forward: FeedForward,
}

impl EncoderLayer {
    fn new(params: &AutoformerParams, weights: &Weights) -> crate::Result<Self> {
        Ok(Self {
            attention: Attention::new(params.d_model, &weights.at("attention"))?,
            feed_forward: FeedForward::new(params, weights)?,
        })
    }

    fn forward(&self, z: &Tensor, params: &AutoformerParams, pass: &Pass) -> Result<Tensor> {
        let z = Sum::of(z, self.attention.forward(z, z, params, pass)?, params, pass)?.seasonal(pass)?;
        Sum::of(&z, self.feed_forward.forward(&z, params, pass)?, params, pass)?.seasonal(pass)
    }
}

struct DecoderLayer {
    to_itself: Attention,
    to_memory: Attention,
    feed_forward: FeedForward,
    /// A circular convolution of width 3 from trends to variates, `[variates, d_model, 3]`.
    trend: Weight,
}

impl DecoderLayer {
    fn new(params: &AutoformerParams, shape: WindowShape, weights: &Weights) -> crate::Result<Self> {
        let d_model = params.d_model;
        Ok(Self {
            to_itself: Attention::new(d_model, &weights.at("self_attention"))?,
            to_memory: Attention::new(d_model, &weights.at("cross_attention"))?,
            feed_forward: FeedForward::new(params, weights)?,
            trend: weights.trained("projection.weight", &[shape.variates, d_model, 3], Init::of_linear(3 * d_model))?,
        })
    }

    /// What goes on, and what the layer adds to the trend `[batch, time, variates]`.
    fn forward(&self, u: &Tensor, memory: &Tensor, params: &AutoformerParams, pass: &Pass) -> Result<(Tensor, Tensor)> {
        let sum = Sum::of(u, self.to_itself.forward(u, u, params, pass)?, params, pass)?;
        let (u, first) = (sum.seasonal(pass)?, sum.trend(pass)?);
        let sum = Sum::of(&u, self.to_memory.forward(&u, memory, params, pass)?, params, pass)?;
        let (u, second) = (sum.seasonal(pass)?, sum.trend(pass)?);
        let sum = Sum::of(&u, self.feed_forward.forward(&u, params, pass)?, params, pass)?;
        let (u, third) = (sum.seasonal(pass)?, sum.trend(pass)?);
        let slow = self.convolved(&((first + second)? + third)?, pass)?;
        Ok((u, slow))
    }

    /// Mapped first and rolled then: there are far fewer variates than channels.
    fn convolved(&self, trends: &Tensor, pass: &Pass) -> Result<Tensor> {
        let &[variates, d_model, width] = self.trend.dims() else {
            candle_core::bail!("a convolution has three axes");
        };
        let maps = pass.tensor(&self.trend).permute((2, 0, 1))?.reshape((width * variates, d_model))?;
        let mapped = times_transposed(trends, &maps, pass)?;
        let part = |index: usize| mapped.narrow(2, index * variates, variates)?.contiguous();
        (part(0)?.roll(1, 1)? + part(1)?)? + part(2)?.roll(-1, 1)?
    }
}

/// A series and what is added to it, with elements dropped, to be decomposed.
struct Sum<'a> {
    series: &'a Tensor,
    branch: Tensor,
    dropout: Option<Dropout>,
    steps: usize,
}

impl<'a> Sum<'a> {
    fn of(series: &'a Tensor, branch: Tensor, params: &AutoformerParams, pass: &Pass) -> Result<Self> {
        let dropout = pass.dropout(params.dropout, branch.elem_count() / branch.dim(0)?);
        Ok(Self { series, branch, dropout, steps: params.moving_average })
    }

    fn seasonal(&self, pass: &Pass) -> Result<Tensor> {
        add_decompose(self.series, &self.branch, Component::Seasonal, self.steps, self.dropout, pass)
    }

    fn trend(&self, pass: &Pass) -> Result<Tensor> {
        add_decompose(self.series, &self.branch, Component::Trend, self.steps, self.dropout, pass)
    }
}
