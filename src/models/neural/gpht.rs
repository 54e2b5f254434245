//! GPHT: each series by itself, cut into tokens, of which a causal Transformer forecasts the next; any
//! horizon comes of going on from its own forecast.
//!
//! Liu et al., "Generative Pretrained Hierarchical Transformer for Time Series Forecasting", KDD 2024,
//! <https://arxiv.org/abs/2402.16516>. Weight names are those of the authors' checkpoint, without the
//! tables of positions, which a formula gives.

use candle_core::{Result, Tensor};
use serde::{Deserialize, Serialize};

use super::{
    Input, Network,
    kernels::{
        activation::Activation,
        attention::attention,
        causal_attention::causal_attention,
        linear::{Map, linear},
        loss::Loss,
        matmul::mapped,
        max_pool::max_pool,
        norm::{Affine, add_norm, norm},
        part::part,
    },
    layers::{FeedForward, InstanceNorm, sinusoids},
    pass::Pass,
    reference::{Conventions, Inferred, Kept, Shapes},
    tensor_error,
    weights::{Init, Weight, Weights},
};
use crate::{Error, windows::WindowShape};

/// `[network]` of a preset.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GphtParams {
    /// Steps of a token, and of what is forecast at once; they divide the lookback.
    pub token: usize,
    /// The stages, from coarse to fine: of so many neighbouring steps each sees the largest. They divide
    /// `token`.
    pub pooling: Vec<usize>,
    /// Width of a token.
    pub d_model: usize,
    /// Width inside the feed-forward network.
    pub d_ff: usize,
    /// Parts that attention is cut into; they divide `d_model`.
    pub heads: usize,
    /// Encoder layers of each stage.
    pub layers: usize,
    /// Share of elements dropped in training.
    pub dropout: f64,
}

impl Default for GphtParams {
    fn default() -> Self {
        Self { token: 48, pooling: vec![8, 4, 2, 1], d_model: 512, d_ff: 2048, heads: 8, layers: 3, dropout: 0.1 }
    }
}

impl GphtParams {
    fn check(&self, lookback: usize) -> crate::Result<()> {
        let refused = |message: String| Err(Error::params(Gpht::NAME, message));
        let Self { token, d_model, d_ff, heads, layers, .. } = *self;
        if token == 0 || d_ff == 0 || layers == 0 || self.pooling.is_empty() {
            return refused("token, d_ff and layers must be at least 1, and pooling name at least one stage".into());
        }
        if !lookback.is_multiple_of(token) {
            let (whole, longer) = (lookback / token * token, lookback.next_multiple_of(token));
            let fits = if whole > 0 { format!("{whole} or {longer}") } else { longer.to_string() };
            let message = format!("the lookback ({lookback}) must be a multiple of token ({token}): look back {fits}");
            return refused(format!("{message} rows, or set network.token"));
        }
        if let Some(rate) = self.pooling.iter().find(|rate| **rate == 0 || !token.is_multiple_of(**rate)) {
            let message = format!("token ({token}) must be a multiple of each pooling rate, but {rate} is one");
            return refused(format!("{message}: change network.pooling or network.token"));
        }
        if heads == 0 || d_model == 0 || !d_model.is_multiple_of(heads) {
            return refused(format!("d_model ({d_model}) must be at least 1, and heads ({heads}) divide d_model"));
        }
        super::check_dropout(Gpht::NAME, self.dropout)
    }
}

pub struct Gpht {
    token: usize,
    /// Tokens of a lookback.
    tokens: usize,
    stages: Vec<Stage>,
    /// What is added to each token for its place, `[tokens, d_model]`.
    places: Tensor,
}

impl Network for Gpht {
    const NAME: &'static str = "gpht";
    const ABOUT: &'static str = "the next token of each series from coarse to fine, any horizon (Liu et al., 2024)";
    type Params = GphtParams;

    /// Lookback and horizon are no part of its weights.
    fn infer(shapes: &mut Shapes<'_>) -> Inferred {
        let token = shapes.size("encoders.0.forecast_head.weight", 0);
        let stages = shapes.layers("encoders").max(1);
        let patch = |stage| shapes.size(&format!("encoders.{stage}.patch_embedding.value_embedding.weight"), 1);
        let pooling: Vec<usize> = (0..stages).map(patch).map(|patch| token / patch).collect();
        Inferred { time_features: Some(0), ..Inferred::default() }
            .with("token", token)
            .with("pooling", format!("{pooling:?}"))
            .with("d_model", shapes.size("encoders.0.forecast_head.weight", 1))
            .with("d_ff", shapes.size("encoders.0.encoder.attn_layers.0.conv1.weight", 0))
            .with("layers", shapes.layers("encoders.0.encoder.attn_layers"))
    }

    fn conventions(params: &GphtParams) -> Conventions {
        let table = |stage| {
            let name = format!("encoders.{stage}.patch_embedding.position_embedding.pe");
            (name, Kept::Positions { width: params.d_model })
        };
        Conventions { kept: (0..params.pooling.len()).map(table).collect(), ..Conventions::default() }
    }

    fn build(params: &GphtParams, shape: WindowShape, weights: &Weights) -> crate::Result<Self> {
        params.check(shape.lookback)?;
        let tokens = shape.lookback / params.token;
        let stage =
            |(index, rate): (usize, &usize)| Stage::new(params, *rate, &weights.at(format!("encoders.{index}")));
        Ok(Self {
            token: params.token,
            tokens,
            stages: params.pooling.iter().enumerate().map(stage).collect::<crate::Result<_>>()?,
            places: sinusoids(tokens, params.d_model, &weights.device()).map_err(tensor_error)?,
        })
    }

    fn training_horizon(&self) -> Option<usize> {
        Some(self.token)
    }

    fn rows(&self, variates: usize) -> usize {
        variates * self.tokens
    }

    /// Token by token, each forecast from a lookback that the ones before it are part of.
    fn forward(&self, input: &Input, pass: &Pass) -> Result<Tensor> {
        let mut values = input.values.clone();
        let mut forecast = Vec::new();
        for _ in 0..input.horizon.div_ceil(self.token) {
            let next = self.blocks(&values, Blocks::Last, pass)?;
            values = self.moved_on(&values, &next)?;
            forecast.push(next);
        }
        Tensor::cat(&forecast, 2)?.narrow(2, 0, input.horizon)
    }

    /// The error at every position: at each token, that of the token behind it.
    fn loss(&self, input: &Input, target: &Tensor, loss: Loss, count: usize, pass: &Pass) -> Result<Tensor> {
        let (batch, variates, steps) = target.dims3()?;
        if steps != self.token {
            candle_core::bail!("a target of {steps} steps, where one of a token ({}) is learnt", self.token);
        }
        let by_token = |tensor: Tensor| tensor.reshape((batch, variates * self.tokens, self.token));
        let forecast = by_token(self.positions(input, pass)?)?;
        let target = by_token(self.moved_on(&input.values, target)?)?;
        // As many targets as there are in the whole batch, at every token of the lookback.
        loss.on_tape(&forecast, &target, count * self.tokens, pass)
    }
}

/// What is forecast of a lookback.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Blocks {
    /// What comes behind each of its tokens.
    All,
    /// What comes behind the last.
    Last,
}

impl Gpht {
    /// The forecast at every position, `[batch, variates, lookback]`: step t is that for one token after
    /// step t of the lookback, made of the tokens up to its own. (Mean and deviation are those of the
    /// whole lookback, as in the authors' code.)
    ///
    /// # Errors
    /// If the input has another shape than the network was built for.
    pub fn positions(&self, input: &Input, pass: &Pass) -> Result<Tensor> {
        self.blocks(&input.values, Blocks::All, pass)
    }

    /// `[batch, variates, lookback]` or, for the last token alone, `[batch, variates, token]`.
    fn blocks(&self, values: &Tensor, blocks: Blocks, pass: &Pass) -> Result<Tensor> {
        let (mut residual, instance) = InstanceNorm::of(values)?;
        let lookback = values.dim(2)?;
        let (last, before) = self.stages.split_last().expect("build wants at least one stage");
        let mut sum: Option<Tensor> = None;
        let mut add = |part: Tensor| -> Result<Tensor> {
            let whole = sum.take().map_or_else(|| Ok(part.clone()), |sum| sum + &part)?;
            sum = Some(whole.clone());
            Ok(whole)
        };
        for stage in before {
            // The blocks before the last are what the next stage need not explain any more.
            let out = stage.forward(&residual, &self.places, Blocks::All, pass)?;
            residual = (residual - self.one_token_later(&out)?)?;
            add(match blocks {
                Blocks::All => out,
                Blocks::Last => out.narrow(2, lookback - self.token, self.token)?,
            })?;
        }
        let whole = add(last.forward(&residual, &self.places, blocks, pass)?)?;
        instance.undo(&whole)
    }

    /// The values, and those of `next [batch, variates, token]` after them, without the first token.
    fn moved_on(&self, values: &Tensor, next: &Tensor) -> Result<Tensor> {
        Tensor::cat(&[values, next], 2)?.narrow(2, self.token, values.dim(2)?)?.contiguous()
    }

    /// Zeros for a token, and then what was there, without its last token.
    fn one_token_later(&self, out: &Tensor) -> Result<Tensor> {
        let (batch, variates, lookback) = out.dims3()?;
        let zeros = Tensor::zeros((batch, variates, self.token), out.dtype(), out.device())?;
        Tensor::cat(&[&zeros, out], 2)?.narrow(2, 0, lookback)
    }
}

/// One resolution: an embedding, an encoder and a head.
struct Stage {
    rate: usize,
    token: usize,
    dropout: f64,
    embedding: Weight,
    layers: Vec<EncoderLayer>,
    norm: Affine,
    head: Map,
}

impl Stage {
    fn new(params: &GphtParams, rate: usize, weights: &Weights) -> crate::Result<Self> {
        let GphtParams { token, d_model, dropout, .. } = *params;
        let patch = token / rate;
        let encoder = weights.at("encoder");
        let embedding = weights.at("patch_embedding.value_embedding");
        Ok(Self {
            rate,
            token,
            dropout,
            embedding: embedding.trained("weight", &[d_model, patch], Init::of_linear(patch))?,
            layers: (0..params.layers)
                .map(|layer| EncoderLayer::new(params, &encoder.at(format!("attn_layers.{layer}"))))
                .collect::<crate::Result<_>>()?,
            norm: encoder.affine("norm", d_model)?,
            head: weights.linear("forecast_head", d_model, token)?,
        })
    }

    /// `x [batch, variates, lookback]` -> what comes behind its tokens, `[batch, variates, lookback]`, or
    /// behind the last, `[batch, variates, token]`.
    fn forward(&self, x: &Tensor, places: &Tensor, blocks: Blocks, pass: &Pass) -> Result<Tensor> {
        let (batch, variates, lookback) = x.dims3()?;
        let (tokens, d_model) = places.dims2()?;
        let patches = max_pool(x, self.rate, pass)?.reshape((batch, variates, tokens, self.token / self.rate))?;
        let z = mapped(&patches, &pass.tensor(&self.embedding), places, pass)?;
        // Variates are no axis of their own: whoever drops elements takes the first axis for windows.
        let z = pass.drop_out(z, self.dropout)?.reshape((batch, variates * tokens, d_model))?;
        let out = match blocks {
            Blocks::All => pass.together(&z, || self.encoded(z.clone(), tokens, blocks, pass))?,
            Blocks::Last => self.encoded(z, tokens, blocks, pass)?,
        };
        out.reshape((batch, variates, if blocks == Blocks::All { lookback } else { self.token }))
    }

    /// `z [batch, variates · tokens, d_model]` through all layers and the head.
    fn encoded(&self, mut z: Tensor, tokens: usize, blocks: Blocks, pass: &Pass) -> Result<Tensor> {
        for (index, layer) in self.layers.iter().enumerate() {
            // Up to the last layer tokens are looked at by those behind them.
            let last = index + 1 == self.layers.len();
            z = layer.forward(&z, tokens, if last { blocks } else { Blocks::All }, pass)?;
        }
        linear(&norm(&z, &self.norm, pass)?, std::slice::from_ref(&self.head), pass)
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
    fn new(params: &GphtParams, weights: &Weights) -> crate::Result<Self> {
        let GphtParams { d_model, d_ff, heads, dropout, .. } = *params;
        let projection = |name| weights.linear(format!("attention.{name}_projection"), d_model, d_model);
        Ok(Self {
            heads,
            dropout,
            projections: [projection("query")?, projection("key")?, projection("value")?],
            out: projection("out")?,
            norm: weights.affine("norm1", d_model)?,
            feed_forward: FeedForward::new(d_model, d_ff, Activation::Gelu, dropout, "norm2", weights)?,
        })
    }

    /// `z [batch, variates · tokens, d_model]` -> the same again, or of each variate only its last token,
    /// `[batch, variates, d_model]`.
    fn forward(&self, z: &Tensor, tokens: usize, blocks: Blocks, pass: &Pass) -> Result<Tensor> {
        let (batch, rows, d_model) = z.dims3()?;
        let variates = rows / tokens;
        let by_series = |tensor: &Tensor| tensor.reshape((batch * variates, tokens, ()));
        let kept = if blocks == Blocks::All { rows } else { variates };
        let dropout = pass.dropout(self.dropout, self.heads * kept * tokens);
        let (z, mixed) = match blocks {
            Blocks::All => {
                let qkv = linear(z, &self.projections, pass)?;
                (z.clone(), causal_attention(&qkv, tokens, self.heads, dropout, pass)?)
            }
            Blocks::Last => {
                let last = part(&by_series(z)?, tokens - 1..tokens, pass)?;
                let query = linear(&last, &self.projections[..1], pass)?;
                let kv = by_series(&linear(z, &self.projections[1..], pass)?)?;
                // The last token looks at all.
                let mixed = attention(&query, &kv, self.heads, dropout, pass)?;
                let by_window = |tensor: &Tensor| tensor.reshape((batch, kept, d_model));
                (by_window(&last)?, by_window(&mixed)?)
            }
        };
        let mixed = linear(&mixed, std::slice::from_ref(&self.out), pass)?;
        let z = add_norm(&z, &mixed, &self.norm, pass.dropout(self.dropout, kept * d_model), pass)?;
        self.feed_forward.forward(&z, pass)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    const TOKEN: usize = 6;
    const LOOKBACK: usize = 24;

    fn network(pooling: &[usize], seed: u64) -> crate::Result<(Gpht, Weights)> {
        let params = GphtParams {
            token: TOKEN,
            pooling: pooling.to_vec(),
            d_model: 16,
            d_ff: 24,
            heads: 2,
            layers: 2,
            dropout: 0.0,
        };
        let weights = Weights::new(seed, Device::Cpu);
        let shape = WindowShape { lookback: LOOKBACK, horizon: 8, variates: 2, time_features: 0 };
        Ok((Gpht::build(&params, shape, &weights)?, weights))
    }

    fn input(series: &[Vec<f32>], variates: usize, horizon: usize) -> Result<Input> {
        let values = Tensor::from_vec(series.concat(), (series.len() / variates, variates, LOOKBACK), &Device::Cpu)?;
        Ok(Input { values, past_time: None, future_time: None, horizon })
    }

    fn series(number: usize) -> Vec<f32> {
        let value = |step: usize| ((step * (7 + number) + 13 * number) % 17) as f32 / 4.0 + (step as f32 / 3.0).sin();
        (0..LOOKBACK).map(value).collect()
    }

    fn flat(tensor: &Tensor) -> Result<Vec<f32>> {
        tensor.flatten_all()?.to_vec1()
    }

    fn forecast(network: &Gpht, series: &[Vec<f32>], variates: usize, horizon: usize) -> Result<Vec<Vec<f32>>> {
        let out = flat(&network.forward(&input(series, variates, horizon)?, &Pass::inference())?)?;
        Ok(out.chunks(horizon).map(<[f32]>::to_vec).collect())
    }

    fn close(left: &[f32], right: &[f32]) -> bool {
        left.len() == right.len() && left.iter().zip(right).all(|(left, right)| (left - right).abs() < 2e-5)
    }

    // Put in another order, the values of the last token have the mean and the deviation they had.
    #[test]
    fn no_token_sees_those_behind_it() -> crate::Result<()> {
        let (network, _) = network(&[3, 2, 1], 1)?;
        let positions = |series: &[f32]| -> Result<Vec<f32>> {
            flat(&network.positions(&input(&[series.to_vec()], 1, TOKEN)?, &Pass::inference())?)
        };
        for token in 0..LOOKBACK / TOKEN {
            let before = series(1);
            let mut after = before.clone();
            after[token * TOKEN..(token + 1) * TOKEN].reverse();
            let (before, after) = (positions(&before).unwrap(), positions(&after).unwrap());
            let at = token * TOKEN;
            assert!(close(&before[..at], &after[..at]), "token {token} is seen before it");
            assert!(!close(&before[at..], &after[at..]), "token {token} is not seen");
        }
        Ok(())
    }

    #[test]
    fn a_forecast_moves_and_grows_with_its_series() -> crate::Result<()> {
        let (network, _) = network(&[2, 1], 2)?;
        let before = series(2);
        let after: Vec<f32> = before.iter().map(|value| 3.0 * value - 5.0).collect();
        let forecast = forecast(&network, &[before, after], 1, 8).unwrap();
        let moved: Vec<f32> = forecast[0].iter().map(|value| 3.0 * value - 5.0).collect();
        assert!(close(&moved, &forecast[1]), "{moved:?} and {:?}", forecast[1]);
        Ok(())
    }

    #[test]
    fn series_do_not_see_one_another() -> crate::Result<()> {
        let (network, _) = network(&[2, 1], 3)?;
        let all: Vec<Vec<f32>> = (0..6).map(series).collect();
        let together = forecast(&network, &all, 2, 8).unwrap();
        assert_eq!(together, forecast(&network, &all, 3, 8).unwrap());
        for (series, expected) in all.iter().zip(&together) {
            assert_eq!(&forecast(&network, std::slice::from_ref(series), 1, 8).unwrap()[0], expected);
        }
        Ok(())
    }

    #[test]
    fn without_heads_the_forecast_is_the_mean() -> crate::Result<()> {
        let (network, weights) = network(&[2, 1], 4)?;
        for (_, weight) in weights.all().iter().filter(|(name, _)| name.contains("forecast_head")) {
            weight.set(&vec![0.0; weight.len()])?;
        }
        let series = series(4);
        let mean = series.iter().sum::<f32>() / LOOKBACK as f32;
        assert!(close(&forecast(&network, &[series], 1, TOKEN).unwrap()[0], &[mean; TOKEN]));
        Ok(())
    }

    #[test]
    fn a_longer_forecast_begins_with_the_shorter_one() -> crate::Result<()> {
        let (network, _) = network(&[3, 1], 5)?;
        let of = |horizon| forecast(&network, &[series(5)], 1, horizon).map(|mut all| all.remove(0)).unwrap();
        let long = of(20);
        for horizon in [1, TOKEN, TOKEN + 1, 19] {
            assert_eq!(of(horizon), long[..horizon]);
        }
        // Up to a token it is one pass, of which only the last token was computed.
        let positions = network.positions(&input(&[series(5)], 1, TOKEN).unwrap(), &Pass::inference()).unwrap();
        assert!(close(&flat(&positions).unwrap()[LOOKBACK - TOKEN..], &long[..TOKEN]));
        Ok(())
    }

    // A step of one token: forecast again with what was forecast, the way it is defined.
    #[test]
    fn a_forecast_goes_on_from_itself() -> crate::Result<()> {
        let (network, _) = network(&[2, 1], 6)?;
        let first = series(6);
        let of = |series: &[f32], horizon| forecast(&network, &[series.to_vec()], 1, horizon).unwrap().remove(0);
        let next = of(&first, TOKEN);
        let second = [&first[TOKEN..], &next].concat();
        assert_eq!(of(&first, 2 * TOKEN), [next, of(&second, TOKEN)].concat());
        Ok(())
    }

    #[test]
    fn a_lookback_of_one_token_is_enough() -> crate::Result<()> {
        let params = GphtParams { token: LOOKBACK, pooling: vec![4, 1], d_model: 16, d_ff: 16, ..Default::default() };
        let shape = WindowShape { lookback: LOOKBACK, horizon: 8, variates: 1, time_features: 0 };
        let network = Gpht::build(&params, shape, &Weights::new(7, Device::Cpu))?;
        assert_eq!(forecast(&network, &[series(7)], 1, 30).unwrap()[0].len(), 30);
        Ok(())
    }

    #[test]
    fn sizes_that_do_not_fit_are_refused_with_what_would() {
        let error = |lookback: usize, params: GphtParams| {
            let shape = WindowShape { lookback, horizon: 8, variates: 1, time_features: 0 };
            Gpht::build(&params, shape, &Weights::new(0, Device::Cpu)).err().map(|error| error.to_string())
        };
        let small = GphtParams { d_model: 16, d_ff: 16, layers: 1, ..Default::default() };
        assert_eq!(
            error(100, small.clone()).unwrap(),
            "gpht: the lookback (100) must be a multiple of token (48): look back 96 or 144 rows, or set network.token"
        );
        assert!(error(24, small.clone()).unwrap().contains("look back 48 rows"));
        assert_eq!(
            error(96, GphtParams { pooling: vec![4, 5], ..small.clone() }).unwrap(),
            "gpht: token (48) must be a multiple of each pooling rate, but 5 is one: change network.pooling or \
             network.token"
        );
        assert!(error(96, GphtParams { heads: 3, ..small.clone() }).unwrap().contains("heads (3) divide d_model"));
        assert!(error(96, GphtParams { pooling: vec![], ..small.clone() }).is_some());
        assert!(error(96, GphtParams { dropout: 1.0, ..small.clone() }).is_some());
        assert_eq!(error(96, small), None);
    }
}
