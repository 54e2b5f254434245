//! Informer: attention in which few queries attend, an encoder that halves the sequence, and a decoder
//! that emits the whole horizon at once.
//!
//! Zhou et al., "Informer: Beyond Efficient Transformer for Long Sequence Time-Series Forecasting", AAAI
//! 2021, <https://arxiv.org/abs/2012.07436>. Weight names are those of the authors' checkpoint.
//!
//! The published code draws new keys at every call, in evaluation too, so that its forecasts differ from
//! call to call. Here training draws at every step, from the seed of the run; forecasts always try the
//! same keys, which follow from the lengths and [`sample_seed`](InformerParams::sample_seed) alone, so that
//! a forecast is a function of its window.

use candle_core::{Result, Tensor};
use serde::{Deserialize, Serialize};

use super::{
    Input, Network,
    kernels::{
        activation::Activation,
        attention::attention,
        batch_norm::{BatchNorm, batch_norm, by_running_statistics},
        dropout,
        halve::halve,
        linear::{Map, linear},
        neighbours::{self, neighbours},
        norm::{Affine, add_norm, norm},
        part::part,
        prob_sparse::{ProbSparse, Samples},
    },
    layers::{FeedForward, StepEmbedding},
    pass::Pass,
    reference::{Conventions, Inferred, Kept, Shapes},
    weights::{Init, Weights},
};
use crate::{Error, windows::WindowShape};

/// `[network]` of a preset.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct InformerParams {
    /// Width of a step.
    pub d_model: usize,
    /// Width inside the feed-forward network.
    pub d_ff: usize,
    /// Parts that attention is cut into; they divide `d_model`.
    pub heads: usize,
    pub encoder_layers: usize,
    pub decoder_layers: usize,
    /// The last steps of the lookback, which the decoder sees before the horizon; 0 is half of them.
    pub label: usize,
    /// Keys that are tried, and queries that attend, for each unit of the logarithm of the length.
    pub factor: usize,
    /// Whether the sequence is halved between encoder layers.
    pub distil: bool,
    /// Share of elements dropped in training.
    pub dropout: f64,
    pub activation: Activation,
    pub variant: Variant,
    /// What batch normalisation normalises by in training.
    pub statistics: Statistics,
    /// What the keys that forecasts try are drawn from.
    pub sample_seed: u64,
}

/// The two codes that are called Informer. Checkpoints of either load with the variant they come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Variant {
    /// The authors' code: heads lie across steps, untransposed, in the decoder's attention to itself
    /// only; all queries attend to the encoder; the convolution between layers keeps the length;
    /// embeddings have a bias.
    #[default]
    Original,
    /// The Time-Series-Library (and the code of Autoformer, from which it came): every sparse attention
    /// has its heads across steps, the one to the encoder is sparse too, the convolution adds two steps
    /// before they are halved, embeddings have no bias.
    Library,
}

/// What a batch normalisation normalises by in training; forecasts always use the running statistics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Statistics {
    /// The mean and variance of the batch, which then goes through the network as a whole.
    #[default]
    Batch,
    /// Those that were kept, which stay as they are: for going on from trained weights.
    Running,
}

impl Default for InformerParams {
    fn default() -> Self {
        Self {
            d_model: 512,
            d_ff: 2048,
            heads: 8,
            encoder_layers: 2,
            decoder_layers: 1,
            label: 0,
            factor: 5,
            distil: true,
            dropout: 0.05,
            activation: Activation::Gelu,
            variant: Variant::Original,
            statistics: Statistics::Batch,
            sample_seed: 0,
        }
    }
}

pub struct Informer {
    params: InformerParams,
    shape: WindowShape,
    encoder_embedding: StepEmbedding,
    decoder_embedding: StepEmbedding,
    encoder: Vec<EncoderLayer>,
    encoder_norm: Affine,
    decoder: Vec<DecoderLayer>,
    decoder_norm: Affine,
    head: Map,
}

impl Network for Informer {
    const NAME: &'static str = "informer";
    const ABOUT: &'static str = "sparse attention, a halving encoder, a generative decoder (Zhou et al., 2021)";
    type Params = InformerParams;
    const ALIASES: &'static [(&'static str, &'static str)] = &[("decoder.projection.", "projection.")];

    fn infer(shapes: &mut Shapes<'_>) -> Inferred {
        let layers = shapes.layers("encoder.attn_layers");
        let library = !shapes.has("enc_embedding.value_embedding.tokenConv.bias");
        let inferred = super::layers::infer_steps(shapes)
            .with("d_ff", shapes.size("encoder.attn_layers.0.conv1.weight", 0))
            .with("encoder_layers", layers)
            .with("decoder_layers", shapes.layers("decoder.layers"))
            .with("variant", if library { "library" } else { "original" });
        // Nothing lies between layers where there is one.
        match layers {
            0 | 1 => inferred,
            _ => inferred.with("distil", shapes.layers("encoder.conv_layers") > 0),
        }
    }

    fn conventions(params: &InformerParams) -> Conventions {
        let table = |name| (format!("{name}.position_embedding.pe"), Kept::Positions { width: params.d_model });
        let counter = |layer| (format!("encoder.conv_layers.{layer}.norm.num_batches_tracked"), Kept::Counter);
        let between = if params.distil { params.encoder_layers.saturating_sub(1) } else { 0 };
        Conventions {
            kept: ["enc_embedding", "dec_embedding"].into_iter().map(table).chain((0..between).map(counter)).collect(),
            renamed: (params.variant == Variant::Library).then_some(("projection.", "decoder.projection.")),
            ..Conventions::default()
        }
    }

    fn build(params: &InformerParams, shape: WindowShape, weights: &Weights) -> crate::Result<Self> {
        let InformerParams { d_model, d_ff, heads, dropout, variant, .. } = *params;
        let refused = |message: String| Err(Error::params(Self::NAME, message));
        if heads == 0 || d_model == 0 || !d_model.is_multiple_of(heads) || d_ff == 0 || params.factor == 0 {
            return refused(format!(
                "d_model ({d_model}), d_ff and factor must be at least 1, and heads ({heads}) divide d_model"
            ));
        }
        let label = match params.label {
            0 => (shape.lookback / 2).max(1),
            label => label,
        };
        if label > shape.lookback {
            return refused(format!("label must be at most the lookback ({}), not {label}", shape.lookback));
        }
        super::check_dropout(Self::NAME, dropout)?;
        let params = InformerParams { label, ..params.clone() };
        let steps = label + shape.horizon;
        let embedding = |name: &str, steps: usize| {
            let bias = variant == Variant::Original;
            let embedding = StepEmbedding::new(d_model, shape, bias, dropout, &weights.at(name))?;
            embedding.with_positions(steps, &weights.device())
        };
        let (at_encoder, at_decoder) = (weights.at("encoder"), weights.at("decoder"));
        let mut encoder = Vec::with_capacity(params.encoder_layers);
        let mut length = shape.lookback;
        for layer in 0..params.encoder_layers {
            let halves = params.distil && layer + 1 < params.encoder_layers;
            let number = encoder.len() as u64;
            let built = EncoderLayer::new(&params, length, halves.then_some(layer), number, layer, &at_encoder)?;
            length = built.length_after(length);
            encoder.push(built);
        }
        let decoder = (0..params.decoder_layers).map(|layer| {
            let number = (params.encoder_layers + 2 * layer) as u64;
            DecoderLayer::new(&params, (steps, length), number, &at_decoder.at(format!("layers.{layer}")))
        });
        Ok(Self {
            shape,
            encoder_embedding: embedding("enc_embedding", shape.lookback)?,
            decoder_embedding: embedding("dec_embedding", steps)?,
            encoder,
            encoder_norm: at_encoder.affine("norm", d_model)?,
            decoder: decoder.collect::<crate::Result<_>>()?,
            decoder_norm: at_decoder.affine("norm", d_model)?,
            head: weights.linear("projection", d_model, shape.variates)?,
            params,
        })
    }

    fn whole_batch(&self) -> bool {
        let halves = self.encoder.iter().any(|layer| layer.halving.is_some());
        halves && self.params.statistics == Statistics::Batch
    }

    fn fold(&mut self) -> crate::Result<()> {
        self.encoder.iter_mut().filter_map(|layer| layer.halving.as_mut()).try_for_each(Halving::fold)
    }

    fn forward(&self, input: &Input, pass: &Pass) -> Result<Tensor> {
        let InformerParams { label, .. } = self.params;
        let WindowShape { lookback, horizon, .. } = self.shape;
        let x = rows(&input.values)?; // [batch, lookback, variates]
        let (batch, _, variates) = x.dims3()?;
        let past = input.past_time.as_ref().map(rows).transpose()?;
        let mut z = self.encoder_embedding.forward(&x, past.as_ref(), pass)?;
        for layer in &self.encoder {
            z = layer.forward(&z, &self.params, pass)?;
        }
        let memory = norm(&z, &self.encoder_norm, pass)?;

        let last = |tensor: &Tensor| tensor.narrow(1, lookback - label, label);
        let blank = Tensor::zeros((batch, horizon, variates), x.dtype(), x.device())?;
        let known = Tensor::cat(&[last(&x)?, blank], 1)?;
        let time = match (&past, &input.future_time) {
            (Some(past), Some(future)) => Some(Tensor::cat(&[last(past)?, rows(future)?], 1)?),
            _ => None,
        };
        let mut u = self.decoder_embedding.forward(&known, time.as_ref(), pass)?;
        for (index, layer) in self.decoder.iter().enumerate() {
            // Nothing is read off the label steps in the end, so the last layer leaves them out once
            // its steps have seen one another.
            let kept = if index + 1 == self.decoder.len() { horizon } else { label + horizon };
            u = layer.forward(&u, &memory, kept, &self.params, pass)?;
        }
        let u = norm(&u.narrow(1, u.dim(1)? - horizon, horizon)?, &self.decoder_norm, pass)?;
        rows(&linear(&u, std::slice::from_ref(&self.head), pass)?)
    }
}

impl Informer {
    /// Takes these keys in all passes, one table for each sparse attention in the order of the forward
    /// pass, instead of drawing any: to be held against the reference.
    ///
    /// # Panics
    /// If there are fewer tables.
    pub(super) fn try_these(&mut self, tables: Vec<Samples>) {
        let encoder = self.encoder.iter_mut().map(|layer| &mut layer.attention);
        let decoder = self.decoder.iter_mut().flat_map(|layer| {
            let others = match &mut layer.to_memory {
                ToMemory::Sparse(attention) => Some(attention),
                ToMemory::Full(_) => None,
            };
            std::iter::once(&mut layer.to_itself).chain(others)
        });
        let mut tables = tables.into_iter();
        encoder.chain(decoder).for_each(|attention| {
            attention.samples = tables.next().expect("there is a table for each attention");
            attention.draws = false;
        });
    }
}

/// Time and columns change places: a step a row, or back.
fn rows(tensor: &Tensor) -> Result<Tensor> {
    tensor.transpose(1, 2)?.contiguous()
}

/// The last `kept` steps of `[batch, steps, width]`.
fn last_steps(tensor: &Tensor, kept: usize, pass: &Pass) -> Result<Tensor> {
    let steps = tensor.dim(1)?;
    part(tensor, steps - kept..steps, pass)
}

/// Queries, keys and values, and what their mixture is mapped by.
struct Projections {
    to_heads: [Map; 3],
    out: Map,
}

impl Projections {
    fn new(d_model: usize, weights: &Weights) -> crate::Result<Self> {
        let projection = |name| weights.linear(format!("{name}_projection"), d_model, d_model);
        let to_heads = [projection("query")?, projection("key")?, projection("value")?];
        Ok(Self { to_heads, out: projection("out")? })
    }
}

/// Sparse attention with its projections.
struct SparseAttention {
    projections: Projections,
    active: usize,
    tried: usize,
    /// The lengths of queries and keys.
    lengths: (usize, usize),
    masked: bool,
    mixed: bool,
    /// Those of forecasts.
    samples: Samples,
    /// Whether training draws others at each step.
    draws: bool,
}

impl SparseAttention {
    /// The attention with this `number` in the forward pass.
    fn new(
        params: &InformerParams,
        lengths: (usize, usize),
        (masked, mixed): (bool, bool),
        number: u64,
        weights: &Weights,
    ) -> crate::Result<Self> {
        let share = |length: usize| params.factor.saturating_mul((length as f64).ln().ceil() as usize).clamp(1, length);
        let (active, tried) = (share(lengths.0), share(lengths.1));
        let key = dropout::mix(dropout::mix(params.sample_seed) ^ number);
        Ok(Self {
            projections: Projections::new(params.d_model, weights)?,
            active,
            tried,
            lengths,
            masked,
            mixed,
            samples: Samples::draw(lengths.0, lengths.1, tried, key),
            draws: true,
        })
    }

    /// How this pass attends.
    fn sparse(&self, heads: usize, pass: &Pass) -> ProbSparse {
        let key = if self.draws { pass.draw() } else { None };
        let (queries, keys) = self.lengths;
        let samples = key.map_or_else(|| self.samples.clone(), |key| Samples::draw(queries, keys, self.tried, key));
        ProbSparse { heads, active: self.active, masked: self.masked, mixed: self.mixed, samples }
    }

    /// `z [batch, steps, d_model]` to itself: the last `kept` steps.
    fn to_itself(&self, z: &Tensor, kept: usize, heads: usize, pass: &Pass) -> Result<Tensor> {
        let qkv = linear(z, &self.projections.to_heads, pass)?;
        let mixed = last_steps(&self.sparse(heads, pass).to_itself(&qkv, pass)?, kept, pass)?;
        linear(&mixed, std::slice::from_ref(&self.projections.out), pass)
    }

    /// `z [batch, steps, d_model]` to `memory [batch, other steps, d_model]`; like `z`.
    fn to_others(&self, z: &Tensor, memory: &Tensor, heads: usize, pass: &Pass) -> Result<Tensor> {
        let queries = linear(z, &self.projections.to_heads[..1], pass)?;
        let kv = linear(memory, &self.projections.to_heads[1..], pass)?;
        let mixed = self.sparse(heads, pass).to_others(&queries, &kv, pass)?;
        linear(&mixed, std::slice::from_ref(&self.projections.out), pass)
    }
}

struct EncoderLayer {
    attention: SparseAttention,
    norm: Affine,
    feed_forward: FeedForward,
    halving: Option<Halving>,
}

impl EncoderLayer {
    /// The layer `layer` for `length` steps; `halving` is the number of the convolution behind it.
    fn new(
        params: &InformerParams,
        length: usize,
        halving: Option<usize>,
        number: u64,
        layer: usize,
        encoder: &Weights,
    ) -> crate::Result<Self> {
        let InformerParams { d_model, d_ff, dropout, activation, variant, .. } = *params;
        let weights = encoder.at(format!("attn_layers.{layer}"));
        let mixed = variant == Variant::Library;
        let at = weights.at("attention");
        Ok(Self {
            attention: SparseAttention::new(params, (length, length), (false, mixed), number, &at)?,
            norm: weights.affine("norm1", d_model)?,
            feed_forward: FeedForward::new(d_model, d_ff, activation, dropout, "norm2", &weights)?,
            halving: halving
                .map(|index| Halving::new(d_model, variant, &encoder.at(format!("conv_layers.{index}"))))
                .transpose()?,
        })
    }

    fn length_after(&self, length: usize) -> usize {
        self.halving.as_ref().map_or(length, |halving| (length + 2 * (halving.padding - 1)).div_ceil(2))
    }

    fn forward(&self, z: &Tensor, params: &InformerParams, pass: &Pass) -> Result<Tensor> {
        let (_, steps, d_model) = z.dims3()?;
        let mixed = self.attention.to_itself(z, steps, params.heads, pass)?;
        let z = add_norm(z, &mixed, &self.norm, pass.dropout(params.dropout, steps * d_model), pass)?;
        let z = self.feed_forward.forward(&z, pass)?;
        match &self.halving {
            Some(halving) => halving.forward(&z, params.statistics, pass),
            None => Ok(z),
        }
    }
}

/// A circular convolution, a batch normalisation, and the largest of neighbours: half as many steps.
struct Halving {
    convolution: Map,
    norm: BatchNorm,
    padding: usize,
    /// Convolution and normalisation in one, for forecasts.
    folded: Option<Map>,
}

impl Halving {
    fn new(d_model: usize, variant: Variant, weights: &Weights) -> crate::Result<Self> {
        let at = weights.at("downConv");
        let init = Init::of_linear(neighbours::WIDTH * d_model);
        let weight = at.trained("weight", &[d_model, d_model, neighbours::WIDTH], init)?;
        let padding = if variant == Variant::Library { 2 } else { 1 };
        let convolution = Map { weight, bias: Some(at.trained("bias", &[d_model], init)?) };
        Ok(Self { convolution, norm: weights.batch_norm("norm", d_model)?, padding, folded: None })
    }

    fn fold(&mut self) -> crate::Result<()> {
        let (mut weight, mut bias) = self.convolution.values()?;
        let (factors, shifts) = self.norm.map()?;
        let width = weight.len() / bias.len();
        for (row, factor) in weight.chunks_exact_mut(width).zip(&factors) {
            row.iter_mut().for_each(|value| *value *= factor);
        }
        bias.iter_mut().zip(factors).zip(shifts).for_each(|((bias, factor), shift)| *bias = *bias * factor + shift);
        let device = self.convolution.weight.device();
        let folded = Map::fixed(&[bias.len(), width], weight, bias, &device)?;
        folded.weight.lay_out(true)?;
        self.folded = Some(folded);
        Ok(())
    }

    fn forward(&self, z: &Tensor, statistics: Statistics, pass: &Pass) -> Result<Tensor> {
        let z = neighbours(z, self.padding, pass)?;
        let map = |map: &Map| linear(&z, std::slice::from_ref(map), pass);
        let z = match (pass.is_training(), &self.folded, statistics) {
            (false, Some(folded), _) => map(folded)?,
            (true, _, Statistics::Batch) => batch_norm(&map(&self.convolution)?, &self.norm, pass)?,
            _ => by_running_statistics(&map(&self.convolution)?, &self.norm, pass)?,
        };
        halve(&z, pass)
    }
}

struct DecoderLayer {
    to_itself: SparseAttention,
    to_memory: ToMemory,
    norms: [Affine; 2],
    feed_forward: FeedForward,
}

enum ToMemory {
    Full(Projections),
    Sparse(SparseAttention),
}

impl DecoderLayer {
    /// For these numbers of steps, of its own and of the encoder.
    fn new(
        params: &InformerParams,
        (steps, memory): (usize, usize),
        number: u64,
        weights: &Weights,
    ) -> crate::Result<Self> {
        let InformerParams { d_model, d_ff, dropout, activation, .. } = *params;
        let at = weights.at("cross_attention");
        let to_memory = match params.variant {
            Variant::Original => ToMemory::Full(Projections::new(d_model, &at)?),
            Variant::Library => {
                let ways = (false, true);
                ToMemory::Sparse(SparseAttention::new(params, (steps, memory), ways, number + 1, &at)?)
            }
        };
        let at = weights.at("self_attention");
        Ok(Self {
            to_itself: SparseAttention::new(params, (steps, steps), (true, true), number, &at)?,
            to_memory,
            norms: [weights.affine("norm1", d_model)?, weights.affine("norm2", d_model)?],
            feed_forward: FeedForward::new(d_model, d_ff, activation, dropout, "norm3", weights)?,
        })
    }

    /// `u [batch, steps, d_model]` -> its last `kept` steps, or, where sparse attention needs all of
    /// them, all.
    fn forward(
        &self,
        u: &Tensor,
        memory: &Tensor,
        kept: usize,
        params: &InformerParams,
        pass: &Pass,
    ) -> Result<Tensor> {
        let (_, steps, d_model) = u.dims3()?;
        // Which queries attend is a matter of all of them.
        let kept = if matches!(self.to_memory, ToMemory::Full(_)) { kept } else { steps };
        let dropout = || pass.dropout(params.dropout, kept * d_model);
        let mixed = self.to_itself.to_itself(u, kept, params.heads, pass)?;
        let u = add_norm(&last_steps(u, kept, pass)?, &mixed, &self.norms[0], dropout(), pass)?;
        let mixed = match &self.to_memory {
            ToMemory::Sparse(attention) => attention.to_others(&u, memory, params.heads, pass)?,
            ToMemory::Full(Projections { to_heads, out }) => {
                let queries = linear(&u, &to_heads[..1], pass)?;
                let kv = linear(memory, &to_heads[1..], pass)?;
                let mask = pass.dropout(params.dropout, params.heads * kept * memory.dim(1)?);
                linear(&attention(&queries, &kv, params.heads, mask, pass)?, std::slice::from_ref(out), pass)?
            }
        };
        let u = add_norm(&u, &mixed, &self.norms[1], dropout(), pass)?;
        self.feed_forward.forward(&u, pass)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    fn network(params: &InformerParams, lookback: usize) -> (Informer, Weights) {
        let weights = Weights::new(1, Device::Cpu);
        let shape = WindowShape { lookback, horizon: 12, variates: 2, time_features: 0 };
        (Informer::build(params, shape, &weights).unwrap(), weights)
    }

    fn small(variant: Variant) -> InformerParams {
        InformerParams { d_model: 16, d_ff: 16, heads: 2, encoder_layers: 2, factor: 1, variant, ..Default::default() }
    }

    fn input(lookback: usize) -> Input {
        let value = |at: usize| ((at * 7 % 31) as f32 * 0.4).sin();
        let values = (0..2 * 2 * lookback).map(value).collect();
        let values = Tensor::from_vec(values, (2, 2, lookback), &Device::Cpu).unwrap();
        Input { values, past_time: None, future_time: None, horizon: 12 }
    }

    #[test]
    fn a_sequence_is_halved_as_in_either_code() {
        for (variant, lengths) in [
            (Variant::Original, [(96, 48), (97, 49), (168, 84), (720, 360)].as_slice()),
            (Variant::Library, [(96, 49), (36, 19)].as_slice()),
        ] {
            for (before, after) in lengths {
                let (network, _) = network(&small(variant), *before);
                assert_eq!(network.encoder[0].length_after(*before), *after, "{variant:?}");
                assert_eq!(network.encoder[1].attention.lengths, (*after, *after), "{variant:?}");
                let forecast = network.forward(&input(*before), &Pass::inference()).unwrap();
                assert_eq!(forecast.dims(), [2, 2, 12]);
            }
        }
    }

    // The reference would give another forecast at each call.
    #[test]
    fn forecasts_follow_from_the_window_and_the_sample_seed() {
        let forecast = |sample_seed| -> Vec<f32> {
            let params = InformerParams { sample_seed, ..small(Variant::Original) };
            let (network, _) = network(&params, 96);
            let of = || network.forward(&input(96), &Pass::inference()).unwrap().flatten_all().unwrap().to_vec1();
            let first: Vec<f32> = of().unwrap();
            assert_eq!(first, of().unwrap());
            first
        };
        assert_ne!(forecast(0), forecast(1));
    }

    #[test]
    fn positions_are_those_of_the_reference() {
        let golden = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/informer.safetensors");
        let tensors = candle_core::safetensors::load(golden, &Device::Cpu).unwrap();
        let expected = &tensors["pe_head"];
        let (steps, width) = expected.dims2().unwrap();
        let found = crate::models::neural::layers::sinusoids(steps, width, &Device::Cpu).unwrap();
        let apart = (found - expected).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
        assert!(apart < 1e-5, "{apart}");
    }
}
