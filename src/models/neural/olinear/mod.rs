//! OLinear and OLinear-C: linear layers in a basis where time is decorrelated.
//!
//! Yue et al., "OLinear: A Linear Model for Time Series Forecasting in Orthogonally Transformed
//! Domain", NeurIPS 2025, <https://arxiv.org/abs/2505.08550>. Weight names are those of the authors'
//! checkpoint, which has the encoder a second time below `ortho_trans.1`. Its two bases are no part of a
//! checkpoint of theirs; they are of ours.
//!
//! The basis follows from the training rows. The authors take the first 60 or 70 % of the file, which reaches into
//! the validation rows where less is trained on, as on the ETT sets: `basis_share` does so too.
//!
//! Before its first normalisation, and between its last one and its last activation, the network is
//! linear, and its embedding has rank one. So the embedding, 16 times wider than the window, is never
//! made: its weights are folded first, once for all windows of a step. The same holds for the way back;
//! there folding pays for many rows, and in inference.

mod basis;

use std::ops::Range;

use candle_core::{Result, Tensor};
use ndarray::{Array2, s};
use serde::{Deserialize, Serialize};

pub use self::basis::Correlation;
use super::{
    Input, Network,
    kernels::{
        activation::{Activation, activate},
        copies::fold_copies,
        linear::{Map, linear},
        matmul::{mapped, times, times_transposed},
        mixing::{mix, normalised_softplus},
        norm::{Affine, add_norm, norm},
        panels::Fixed,
        per_variate::PerVariate,
        transform::{transform, transform_back},
    },
    layers::{FeedForward, InstanceNorm},
    pass::Pass,
    reference::{Beside, Conventions, Inferred, Rule, Shapes},
    tensor_error,
    weights::{Init, Weight, Weights},
};
use crate::{
    Error,
    data::Series,
    windows::{Run, WindowShape, Windows},
};

/// `[network]` of a preset for OLinear and OLinear-C.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OLinearParams {
    /// Copies of each value, each with a factor of its own.
    pub embed_size: usize,
    pub d_model: usize,
    pub d_ff: usize,
    /// Encoder layers.
    pub layers: usize,
    /// Share of elements dropped in training.
    pub dropout: f64,
    /// What the basis diagonalises.
    pub correlation: Correlation,
    /// The share of a series, from its first row on, that basis and correlation of variates follow from. Without
    /// it the training rows; with the authors' 0.6 and 0.7 it may reach into the validation rows, never beyond.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub basis_share: Option<f64>,
}

impl Default for OLinearParams {
    fn default() -> Self {
        let correlation = Correlation::LowerTriangle;
        Self { embed_size: 16, d_model: 512, d_ff: 512, layers: 2, dropout: 0.1, correlation, basis_share: None }
    }
}

/// The authors' checkpoint holds the encoder under two names.
const ENCODER_TWICE: &[(&str, &str)] = &[("ortho_trans.1.", "encoder.")];

const BASES: [Beside; 2] =
    [Beside { name: "q_mat", rule: Rule::Orthogonal }, Beside { name: "q_out_mat", rule: Rule::Orthogonal }];
const BASES_AND_MIXING: [Beside; 3] = [BASES[0], BASES[1], Beside { name: "mixing", rule: Rule::RowsSumToOne }];

/// OLinear; its variates are mixed by weights that are learnt (NormLin), or by the softmax of their correlation.
pub struct Mixed<const LEARNT: bool>(Body);

pub type OLinear = Mixed<true>;
pub type OLinearC = Mixed<false>;

impl<const LEARNT: bool> Network for Mixed<LEARNT> {
    const NAME: &'static str = if LEARNT { "olinear" } else { "olinear-c" };
    const ABOUT: &'static str = if LEARNT {
        "linear layers in a basis where time is decorrelated (Yue et al., 2025)"
    } else {
        "OLinear, its variates mixed by their correlation (Yue et al., 2025)"
    };
    type Params = OLinearParams;
    const ALIASES: &'static [(&'static str, &'static str)] = ENCODER_TWICE;

    fn infer(shapes: &mut Shapes<'_>) -> Inferred {
        let inferred = Inferred {
            lookback: Some(shapes.size("delta1", 3)),
            horizon: Some(shapes.size("delta2", 3)),
            variates: Some(shapes.size("revin_layer.affine_weight", 0)),
            time_features: Some(0),
            ..Inferred::default()
        };
        inferred
            .with("embed_size", shapes.size("embeddings", 1))
            .with("d_model", shapes.size("ortho_trans.0.weight", 0))
            .with("d_ff", shapes.size("fc.0.weight", 0))
            .with("layers", shapes.layers("encoder.attn_layers"))
    }

    fn conventions(_: &OLinearParams) -> Conventions {
        let beside: &'static [Beside] = if LEARNT { &BASES } else { &BASES_AND_MIXING };
        Conventions { beside, twice: Some(("encoder.", "ortho_trans.1.")), ..Conventions::default() }
    }

    fn build(params: &OLinearParams, shape: WindowShape, weights: &Weights) -> crate::Result<Self> {
        Body::new(Self::NAME, params, shape, weights, LEARNT).map(Self)
    }

    fn forward(&self, input: &Input, pass: &Pass) -> Result<Tensor> {
        self.0.forward(input, pass)
    }

    fn calibrate(&mut self, train: &Windows<'_>, valid: Option<&Windows<'_>>) -> crate::Result<()> {
        self.0.calibrate(train, valid)
    }

    fn derive(&self, windows: usize, pass: &Pass) -> Result<Vec<Tensor>> {
        self.0.derive(windows, pass)
    }

    fn fold(&mut self) -> crate::Result<()> {
        self.0.fold()
    }
}

struct Body {
    name: &'static str,
    params: OLinearParams,
    shape: WindowShape,
    /// The bases of lookback and horizon, `[length, length]`, one vector a row.
    bases: [Weight; 2],
    affine: PerVariate,
    embedding: Weight,
    /// Added in the basis of the lookback, and behind that of the horizon.
    deltas: [Weight; 2],
    inner: Map,
    layers: Vec<Layer>,
    norm: Affine,
    outer: Map,
    head: [Map; 2],
    /// The mixing of OLinear-C.
    mixing: Option<Weight>,
    folded: Option<Folded>,
}

struct Layer {
    mixing: Option<Weight>,
    value: Map,
    out: Map,
    norm: Affine,
    feed_forward: FeedForward,
}

/// What is the same for every window; a map has a bias for each variate or for all.
struct Folded {
    inner: Fixed,
    /// Of each layer: how variates are mixed, and both of its maps in one.
    layers: Vec<(Tensor, Fixed)>,
    outer: Fixed,
}

impl Body {
    fn new(
        name: &'static str,
        params: &OLinearParams,
        shape: WindowShape,
        weights: &Weights,
        learnt: bool,
    ) -> crate::Result<Self> {
        let OLinearParams { embed_size, d_model, d_ff, layers, dropout, .. } = *params;
        // The published network leaves the embedding out where it is a single number; this one has none without.
        if embed_size < 2 || d_model == 0 || d_ff == 0 {
            let message = "embed_size must be at least 2, d_model and d_ff at least 1";
            return Err(Error::params(name, message));
        }
        super::check_dropout(name, dropout)?;
        if let Some(share) = params.basis_share.filter(|share| !(*share > 0.0 && *share <= 1.0)) {
            let message = format!("basis_share is a share of the rows, more than 0 and at most 1, and not {share}");
            return Err(Error::params(name, message));
        }
        let WindowShape { lookback, horizon, variates, .. } = shape;
        let encoder = weights.at("encoder");
        let layer = |index| -> crate::Result<Layer> {
            let weights = encoder.at(format!("attn_layers.{index}"));
            let mixing = || weights.trained("weight_mat", &[1, variates, variates], Init::IdentityPlusNormal);
            Ok(Layer {
                mixing: learnt.then(mixing).transpose()?,
                value: weights.linear("v_proj", d_model, d_model)?,
                out: weights.linear("out_proj", d_model, d_model)?,
                norm: weights.affine("norm1", d_model)?,
                feed_forward: FeedForward::new(d_model, d_ff, Activation::Gelu, dropout, "norm2", &weights)?,
            })
        };
        let constant = |name, dims: &[usize], value| weights.trained(name, dims, Init::Constant(value));
        Ok(Self {
            name,
            params: params.clone(),
            shape,
            bases: [
                weights.buffer("q_mat", &[lookback, lookback], 0.0)?,
                weights.buffer("q_out_mat", &[horizon, horizon], 0.0)?,
            ],
            affine: PerVariate {
                scale: constant("revin_layer.affine_weight", &[variates], 1.0)?,
                shift: constant("revin_layer.affine_bias", &[variates], 0.0)?,
            },
            embedding: weights.trained("embeddings", &[1, embed_size], Init::Normal(1.0))?,
            deltas: [
                constant("delta1", &[1, variates, 1, lookback], 0.0)?,
                constant("delta2", &[1, variates, 1, horizon], 0.0)?,
            ],
            inner: weights.linear("ortho_trans.0", embed_size * lookback, d_model)?,
            layers: (0..layers).map(layer).collect::<crate::Result<_>>()?,
            norm: encoder.affine("norm", d_model)?,
            outer: weights.linear("ortho_trans.2", d_model, embed_size * horizon)?,
            head: [weights.linear("fc.0", embed_size * horizon, d_ff)?, weights.linear("fc.2", d_ff, horizon)?],
            mixing: (!learnt).then(|| weights.buffer("mixing", &[1, variates, variates], 0.0)).transpose()?,
            folded: None,
        })
    }

    fn calibrate(&mut self, train: &Windows<'_>, valid: Option<&Windows<'_>>) -> crate::Result<()> {
        let parts = self.basis_rows(train, valid)?;
        for basis in &self.bases {
            let length = basis.dims()[0];
            let variates = parts.iter().flat_map(|(series, rows)| {
                let rows = series.values().slice_move(s![rows.clone(), ..]);
                (0..self.shape.variates).map(move |variate| rows.index_axis_move(ndarray::Axis(1), variate))
            });
            // Where nothing varies, one basis is as good as another.
            let lower = basis::correlation(variates, length, self.params.correlation);
            let (vectors, _) = basis::eigenvectors(&lower.unwrap_or_else(|| Array2::eye(length)))?;
            basis.set(&vectors.iter().map(|entry| *entry as f32).collect::<Vec<_>>())?;
        }
        if let Some(mixing) = &self.mixing {
            let column = |variate| -> Vec<f64> {
                parts.iter().flat_map(|(series, rows)| series.variate(variate)[rows.clone()].iter().copied()).collect()
            };
            let columns: Vec<_> = (0..self.shape.variates).map(column).collect();
            mixing.set(&softmax_rows(&basis::between_variates(&columns)))?;
        }
        Ok(())
    }

    /// The rows of each series that bases and correlation of variates follow from.
    fn basis_rows<'a>(
        &self,
        train: &Windows<'a>,
        valid: Option<&Windows<'a>>,
    ) -> crate::Result<Vec<(&'a Series, Range<usize>)>> {
        let Some(share) = self.params.basis_share else {
            return Ok(train.runs().map(|run| (run.series, run.rows)).collect());
        };
        let rows_of = |run: Run<'a>| {
            let ends = valid.into_iter().flat_map(Windows::runs).filter(|other| std::ptr::eq(other.series, run.series));
            let reach = ends.map(|other| other.rows.end).fold(run.rows.end, usize::max);
            let rows = run.series.len();
            let end = (share * rows as f64) as usize;
            if end > reach {
                let message = format!(
                    "basis_share {share} is {end} of the {rows} rows of {}, of which training and validation have {reach}",
                    run.series.name()
                );
                return Err(Error::params(self.name, message));
            }
            let longest = self.shape.lookback.max(self.shape.horizon);
            if end <= run.rows.start + longest {
                let message = format!("basis_share {share} leaves {end} rows, for windows of {longest}");
                return Err(Error::params(self.name, message));
            }
            Ok((run.series, run.rows.start..end))
        };
        train.runs().map(rows_of).collect()
    }

    /// The mixing of each layer, what the embedding's map is folded into, and, where it pays, what the
    /// way back is.
    fn derive(&self, windows: usize, pass: &Pass) -> Result<Vec<Tensor>> {
        let mut derived = Vec::new();
        for layer in &self.layers {
            let mixing = layer.mixing(self.mixing.as_ref(), pass)?;
            // One mask for all windows of a batch: what is dropped is a weight.
            derived.push(match pass.dropout(self.params.dropout, 0) {
                Some(mask) => mask.apply(&mixing, pass)?,
                None => mixing,
            });
        }
        derived.extend(self.folded_inner(pass)?);
        // Products with as many rows as there are windows and variates, against a few with d_model rows.
        if windows * self.shape.variates > 2 * self.params.d_model {
            derived.extend(self.folded_outer(pass)?);
        }
        Ok(derived)
    }

    fn forward(&self, input: &Input, pass: &Pass) -> Result<Tensor> {
        let (windows, _, _) = input.values.dims3()?;
        let (values, instance) = InstanceNorm::of(&input.values)?;
        let operations = || {
            let forecast = self.normalised(&self.affine.apply(&values, pass)?, windows, pass)?;
            self.affine.undo(&forecast, pass)
        };
        // What is derived in this pass is on candle's tape.
        let forecast = match pass.derived() {
            Some(_) => pass.together(&values, operations)?,
            None => operations()?,
        };
        instance.undo(&forecast)
    }

    /// From the values of windows, normalised, to those of their forecasts.
    fn normalised(&self, values: &Tensor, windows: usize, pass: &Pass) -> Result<Tensor> {
        let inner = match &self.folded {
            Some(folded) if !pass.is_training() => {
                let mut z = folded.inner.of(values, pass)?;
                for (layer, (mixing, maps)) in self.layers.iter().zip(&folded.layers) {
                    let mixed = maps.of(&mix(mixing, &z, pass)?, pass)?;
                    z = layer.feed_forward.forward(&add_norm(&z, &mixed, &layer.norm, None, pass)?, pass)?;
                }
                folded.outer.of(&norm(&z, &self.norm, pass)?, pass)?
            }
            _ => {
                let own = || self.derive(windows, pass);
                let derived = pass.derived().map_or_else(own, |derived| Ok(derived.to_vec()))?;
                let (mixing, folded) = derived.split_at(self.layers.len());
                let values = transform(values, &self.basis(0, pass).t()?, pass)?;
                let mut z = mapped(&values, &folded[0], &folded[1], pass)?; // [batch, variates, d_model]
                for (layer, mixing) in self.layers.iter().zip(mixing) {
                    z = layer.forward(&z, mixing, self.params.dropout, pass)?;
                }
                let z = norm(&z, &self.norm, pass)?;
                match folded {
                    [_, _, weight, bias] => mapped(&z, weight, bias, pass)?,
                    _ => self.outer(&z, pass)?,
                }
            }
        };
        let inner = activate(&inner, Activation::Gelu, None, pass)?;
        let forecast = linear(&inner, std::slice::from_ref(&self.head[1]), pass)?;
        pass.drop_out(forecast, self.params.dropout)
    }

    /// From the last normalisation to the last activation, step by step.
    fn outer(&self, z: &Tensor, pass: &Pass) -> Result<Tensor> {
        let wide = linear(z, std::slice::from_ref(&self.outer), pass)?;
        // The head wants the copies of each step side by side.
        let wide = transform_back(&wide, &self.basis(1, pass), &self.deltas[1], pass)?;
        linear(&wide, std::slice::from_ref(&self.head[0]), pass)
    }

    /// The map from the basis of the lookback to the first layer: with φ the embedding and W its weight,
    /// Σₑ φₑ Wₑ for the values and Σₑ Wₑ for what is added to them.
    fn folded_inner(&self, pass: &Pass) -> Result<[Tensor; 2]> {
        let folded = fold_copies(&self.inner.weight, &self.embedding, pass)?; // [2, d_model, lookback]
        let delta = pass.tensor(&self.deltas[0]).reshape(((), self.shape.lookback))?;
        let bias = times_transposed(&delta, &folded.get(1)?, pass)?;
        Ok([folded.get(0)?, bias.broadcast_add(&self.bias(&self.inner, pass))?])
    }

    /// The map from the last layer to the last activation.
    fn folded_outer(&self, pass: &Pass) -> Result<[Tensor; 2]> {
        let (d_ff, horizon, embed_size) = (self.params.d_ff, self.shape.horizon, self.params.embed_size);
        let head = pass.tensor(&self.head[0].weight).reshape((d_ff, horizon, embed_size))?;
        let by_copy = head.transpose(1, 2)?.contiguous()?; // [d_ff, embed_size, horizon]
        let back = transform(&by_copy, &self.basis(1, pass).t()?, pass)?.reshape((d_ff, embed_size * horizon))?;
        let weight = times(&back, &pass.tensor(&self.outer.weight), pass)?;
        let delta = pass.tensor(&self.deltas[1]).reshape(((), horizon))?;
        let of_bias = times_transposed(&self.bias(&self.outer, pass).unsqueeze(0)?, &back, pass)?;
        let bias = times_transposed(&delta, &head.sum(2)?, pass)?.broadcast_add(&of_bias)?;
        Ok([weight, bias.broadcast_add(&self.bias(&self.head[0], pass))?])
    }

    fn basis(&self, index: usize, pass: &Pass) -> Tensor {
        pass.tensor(&self.bases[index]).detach()
    }

    fn bias(&self, map: &Map, pass: &Pass) -> Tensor {
        pass.tensor(map.bias.as_ref().expect("the maps of this network have a bias"))
    }

    fn fold(&mut self) -> crate::Result<()> {
        let pass = Pass::inference();
        let fold = || -> Result<Folded> {
            let [inner, inner_bias] = self.folded_inner(&pass)?;
            let [outer, outer_bias] = self.folded_outer(&pass)?;
            let layers = self.layers.iter().map(|layer| layer.fold(self.mixing.as_ref(), &pass));
            Ok(Folded {
                inner: Fixed::new(times(&inner, &self.basis(0, &pass), &pass)?, inner_bias)?,
                layers: layers.collect::<Result<_>>()?,
                outer: Fixed::new(outer, outer_bias)?,
            })
        };
        self.folded = Some(fold().map_err(|error| match tensor_error(error) {
            Error::Other(error) => Error::other(format!("{}: {error}", self.name)),
            error => error,
        })?);
        Ok(())
    }
}

impl Layer {
    fn mixing(&self, fixed: Option<&Weight>, pass: &Pass) -> Result<Tensor> {
        match (&self.mixing, fixed) {
            (Some(learnt), _) => normalised_softplus(learnt, pass),
            (None, Some(fixed)) => Ok(pass.tensor(fixed).detach()),
            (None, None) => unreachable!("variates are mixed by learnt or by fixed weights"),
        }
    }

    fn forward(&self, z: &Tensor, mixing: &Tensor, dropout: f64, pass: &Pass) -> Result<Tensor> {
        let (_, variates, d_model) = z.dims3()?;
        let values = linear(z, std::slice::from_ref(&self.value), pass)?;
        let mixed = linear(&mix(mixing, &values, pass)?, std::slice::from_ref(&self.out), pass)?;
        let z = add_norm(z, &mixed, &self.norm, pass.dropout(dropout, variates * d_model), pass)?;
        self.feed_forward.forward(&z, pass)
    }

    /// Rows of the mixing sum to 1, so that a bias goes through it unchanged, and both maps are one.
    fn fold(&self, fixed: Option<&Weight>, pass: &Pass) -> Result<(Tensor, Fixed)> {
        let (value, out) = (pass.tensor(&self.value.weight), pass.tensor(&self.out.weight));
        let bias = |map: &Map| pass.tensor(map.bias.as_ref().expect("the maps of this network have a bias"));
        let through = times_transposed(&bias(&self.value).unsqueeze(0)?, &out, pass)?.squeeze(0)?;
        let bias = (through + bias(&self.out))?.unsqueeze(0)?;
        Ok((self.mixing(fixed, pass)?, Fixed::new(times(&out, &value, pass)?, bias)?))
    }
}

/// The softmax of each row, one row after the other.
fn softmax_rows(matrix: &Array2<f64>) -> Vec<f32> {
    let mut values = Vec::with_capacity(matrix.len());
    for row in matrix.rows() {
        let exponentials = row.mapv(f64::exp);
        let sum = exponentials.sum();
        values.extend(exponentials.iter().map(|value| (value / sum) as f32));
    }
    values
}

#[cfg(test)]
mod tests {
    use ndarray::Array2;

    use super::*;
    use crate::data::Series;

    const SHAPE: WindowShape = WindowShape { lookback: 6, horizon: 4, variates: 2, time_features: 0 };

    fn series() -> Series {
        let values = Array2::from_shape_fn((100, 2), |(row, variate)| {
            let row = row as f64;
            (row * 0.7 + variate as f64).sin() + (row * row) % 13.0 / 5.0 + row / 50.0
        });
        Series::new("waves", vec![], vec!["a".into(), "b".into()], values).unwrap()
    }

    /// The bases of rows `0..train`, with `valid` as the end of the validation rows.
    fn bases(share: Option<f64>, train: usize, valid: Option<usize>) -> crate::Result<Vec<Vec<f32>>> {
        let all = [series()];
        let params = OLinearParams { d_model: 4, d_ff: 4, layers: 1, basis_share: share, ..Default::default() };
        let weights = Weights::new(1, candle_core::Device::Cpu);
        let mut network = OLinearC::build(&params, SHAPE, &weights)?;
        let windows = |rows| Windows::new(&all, &[rows], SHAPE);
        let valid = valid.map(|end| windows(train..end)).transpose()?;
        network.calibrate(&windows(0..train)?, valid.as_ref())?;
        let buffers = weights.buffers().into_iter();
        Ok(buffers.map(|(_, buffer)| buffer.tensor().flatten_all().unwrap().to_vec1().unwrap()).collect())
    }

    #[test]
    fn the_basis_follows_from_a_share_of_the_series() -> crate::Result<()> {
        let of_training = bases(None, 70, None)?;
        assert_eq!(of_training.len(), 3);
        assert_eq!(bases(Some(0.7), 70, None)?, of_training);
        assert_eq!(bases(Some(0.7), 60, Some(80))?, of_training);
        assert!(bases(Some(0.6), 70, None)?.iter().zip(&of_training).all(|(one, other)| one != other));
        Ok(())
    }

    #[test]
    fn the_basis_never_sees_test_rows() {
        let refused = |share, valid| bases(Some(share), 60, valid).unwrap_err().to_string();
        assert!(refused(0.7, None).contains("70 of the 100 rows of waves, of which training and validation have 60"));
        assert!(refused(0.81, Some(80)).contains("have 80"));
        assert!(bases(Some(0.8), 60, Some(80)).is_ok());
        assert!(refused(0.05, Some(80)).contains("leaves 5 rows, for windows of 6"));
        for share in [0.0, -0.5, 1.5, f64::NAN] {
            assert!(refused(share, Some(80)).contains("at most 1"), "{share}");
        }
    }
}
