//! Holds a network against what the reference implementation of its paper computed.
//!
//! A golden is two files: `NAME.safetensors` with weights, inputs, output, gradients and the weights
//! after three steps of Adam, and `NAME.json` with the sizes and how far the reference's own f32 run was
//! from its f64 run. That noise is the measure: another order of sums moves a correct result by as much.

use std::{collections::BTreeMap, fs, path::Path};

use candle_core::{DType, Device, Tensor, safetensors};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{
    Input, Lags, Loss, Network, Optimizer, Pass, Schedule, Sink, Training, Weights,
    autoformer::{Autoformer, AutoformerParams},
    gpht::{Gpht, GphtParams},
    informer::{Informer, InformerParams, Statistics, Variant},
    itransformer::{ITransformer, ITransformerParams},
    kernels::{batch_norm::MOMENTUM, prob_sparse::Samples},
    linear::{DLinear, DLinearParams, LinearParams, NLinear},
    olinear::{OLinear, OLinearParams},
    tensor_error, trainer,
};
use crate::{Error, Result, windows::WindowShape};

/// A result may be this many times as far off as the reference's f32 run is from its f64 run.
pub const MULTIPLE: f64 = 8.0;

/// What was found out about one golden.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// The largest differences.
    Checked(Differences),
    /// It is of a model that is not here, or holds no model.
    Skipped { model: String },
}

/// How far a network is from the reference, each beside what is allowed.
#[derive(Clone, Copy, Debug)]
pub struct Differences {
    pub output: Difference,
    /// The output with all that can be folded folded.
    pub folded: Difference,
    pub gradient: Difference,
    /// Weights after three steps.
    pub adam: Difference,
    /// Losses before each step and after the last.
    pub loss: Difference,
    /// A forecast that goes on from itself, where the golden has one.
    pub rollout: Option<Difference>,
}

/// A largest absolute difference, and its limit.
#[derive(Clone, Copy, Debug)]
pub struct Difference {
    pub found: f64,
    pub limit: f64,
}

impl Differences {
    /// All, by name.
    pub fn all(&self) -> impl Iterator<Item = (&'static str, Difference)> {
        let always = [
            ("output", self.output),
            ("folded output", self.folded),
            ("gradient", self.gradient),
            ("three Adam steps", self.adam),
            ("loss", self.loss),
        ];
        always.into_iter().chain(self.rollout.map(|difference| ("roll-out", difference)))
    }

    /// Whether none is over its limit.
    pub fn pass(&self) -> bool {
        self.all().all(|(_, difference)| difference.found <= difference.limit)
    }
}

#[derive(Deserialize)]
struct Description {
    model: String,
    #[serde(default)]
    config: Map<String, Value>,
    #[serde(default)]
    mode: String,
    rounding_noise: Option<Noise>,
    optimizer: Option<Adam>,
    #[serde(default)]
    adam3_unstable: BTreeMap<String, Value>,
}

#[derive(Deserialize)]
struct Noise {
    output: f64,
    output_scale: f64,
    largest_gradient: f64,
    adam3_excluding_unstable: f64,
}

#[derive(Deserialize)]
struct Adam {
    lr: f64,
    steps: usize,
}

/// Checks the golden that `description` (a `.json` with its `.safetensors` beside it) tells of.
///
/// # Errors
/// If the files cannot be read, or do not hold what they should.
pub fn check(description: &Path) -> Result<Verdict> {
    let text = fs::read_to_string(description).map_err(Error::io("read", description))?;
    let about: Description = serde_json::from_str(&text).map_err(|error| Error::file(description, error))?;
    let skipped = || Ok(Verdict::Skipped { model: about.model.clone() });
    let (Some(noise), Some(adam)) = (&about.rounding_noise, &about.optimizer) else { return skipped() };
    let config = Config(&about.config);
    let individual = config.flag("individual", false);
    let path = description.with_extension("safetensors");
    let golden = Golden { about: &about, noise, adam, tensors: tensors(&path)? };
    let checked = match (about.model.as_str(), about.mode.as_str()) {
        ("dlinear" | "dlinear_individual", _) => golden.check::<DLinear>(&DLinearParams {
            individual,
            moving_average: config.size("moving_avg")?,
            ..Default::default()
        }),
        ("nlinear", _) => golden.check::<NLinear>(&LinearParams { individual }),
        ("itransformer" | "itransformer_nomark", _) => golden.check::<ITransformer>(&ITransformerParams {
            d_model: config.size("d_model")?,
            d_ff: config.size("d_ff")?,
            heads: config.size("n_heads")?,
            layers: config.size("e_layers")?,
            dropout: 0.0,
            activation: config.parse("activation")?,
            instance_norm: config.flag("use_norm", true),
            time_tokens: true,
        }),
        ("olinear", _) => golden.check::<OLinear>(&OLinearParams {
            embed_size: config.size("embed_size")?,
            d_model: config.size("d_model")?,
            d_ff: config.size("d_ff")?,
            layers: config.size("e_layers")?,
            dropout: 0.0,
            ..Default::default()
        }),
        ("autoformer" | "autoformer_train", mode) => golden.check::<Autoformer>(&AutoformerParams {
            d_model: config.size("d_model")?,
            d_ff: config.size("d_ff")?,
            encoder_layers: config.size("e_layers")?,
            decoder_layers: config.size("d_layers")?,
            label: config.size("label_len")?,
            moving_average: config.size("moving_avg")?,
            factor: config.size("factor")?,
            dropout: 0.0,
            activation: config.parse("activation")?,
            // What was computed in evaluation mode chose lags for each window, in its gradients too.
            lags: if mode == "train" { Lags::Batch } else { Lags::Window },
        }),
        ("informer" | "informer_train", mode) => golden.check_outputs::<Informer>(
            &InformerParams {
                d_model: config.size("d_model")?,
                d_ff: config.size("d_ff")?,
                heads: config.size("n_heads")?,
                encoder_layers: config.size("e_layers")?,
                decoder_layers: config.size("d_layers")?,
                label: config.size("label_len")?,
                factor: config.size("factor")?,
                distil: config.flag("distil", true),
                dropout: 0.0,
                activation: config.parse("activation")?,
                variant: Variant::Library,
                // What was computed in evaluation mode has the running statistics in its gradients too.
                statistics: if mode == "train" { Statistics::Batch } else { Statistics::Running },
                ..Default::default()
            },
            None,
            Informer::forward,
            |network| {
                network.try_these(golden.samples()?);
                Ok(())
            },
        ),
        ("gpht", _) => {
            let token = config.size("token_len")?;
            let params = GphtParams {
                token,
                pooling: config.parse("GT_pooling_rate")?,
                d_model: config.size("GT_d_model")?,
                d_ff: config.size("GT_d_ff")?,
                heads: config.size("n_heads")?,
                layers: config.size("GT_e_layers")?,
                dropout: 0.0,
            };
            // Output and target are those of every position.
            golden.check_outputs::<Gpht>(&params, Some(token), Gpht::positions, |_| Ok(()))
        }
        _ => return skipped(),
    };
    checked.map(Verdict::Checked).map_err(|error| Error::file(&path, error))
}

/// The reference's sizes, by its names for them.
struct Config<'a>(&'a Map<String, Value>);

impl Config<'_> {
    fn size(&self, name: &str) -> Result<usize> {
        self.parse(name)
    }

    fn flag(&self, name: &str, default: bool) -> bool {
        self.0.get(name).and_then(Value::as_bool).unwrap_or(default)
    }

    fn parse<T: serde::de::DeserializeOwned>(&self, name: &str) -> Result<T> {
        let value = self.0.get(name).ok_or_else(|| Error::other(format!("its config has no '{name}'")))?;
        serde_json::from_value(value.clone()).map_err(|error| Error::other(format!("config '{name}': {error}")))
    }
}

fn tensors(path: &Path) -> Result<BTreeMap<String, Tensor>> {
    let bytes = fs::read(path).map_err(Error::io("read", path))?;
    let tensors = safetensors::load_buffer(&bytes, &Device::Cpu).map_err(|error| Error::file(path, error))?;
    Ok(tensors.into_iter().collect())
}

struct Golden<'a> {
    about: &'a Description,
    noise: &'a Noise,
    adam: &'a Adam,
    tensors: BTreeMap<String, Tensor>,
}

impl Golden<'_> {
    fn tensor(&self, name: &str) -> Result<&Tensor> {
        self.tensors.get(name).ok_or_else(|| Error::other(format!("there is no tensor '{name}'")))
    }

    /// `[batch, time, columns]` as networks here have it: time last.
    fn time_last(&self, name: &str) -> Result<Tensor> {
        let turned = self.tensor(name)?.transpose(1, 2).and_then(|tensor| tensor.contiguous());
        turned.map_err(tensor_error)
    }

    fn check<N: Network>(&self, params: &N::Params) -> Result<Differences> {
        self.check_outputs(params, None, N::forward, |_| Ok(()))
    }

    /// The same for a network whose `output` is not its forecast, and whose target is longer than the
    /// `horizon` that it learns: it begins with values of the lookback. `prepare` has the network first.
    fn check_outputs<N: Network>(
        &self,
        params: &N::Params,
        horizon: Option<usize>,
        output: fn(&N, &Input, &Pass) -> candle_core::Result<Tensor>,
        prepare: impl Fn(&mut N) -> Result<()>,
    ) -> Result<Differences> {
        let target = self.time_last("target")?;
        let past_time =
            self.tensor("input.x_mark_enc").is_ok().then(|| self.time_last("input.x_mark_enc")).transpose()?;
        let sizes = |tensor: &Tensor| tensor.dims3().map_err(tensor_error);
        let (_, _, steps) = sizes(&target)?;
        let horizon = horizon.unwrap_or(steps).min(steps);
        let target = target.narrow(2, steps - horizon, horizon).map_err(tensor_error)?;
        let future_time = match self.tensor("input.x_mark_dec") {
            // The decoder's calendar begins with the last rows of the encoder's.
            Ok(_) => {
                let decoder = self.time_last("input.x_mark_dec")?;
                let (_, _, steps) = sizes(&decoder)?;
                Some(decoder.narrow(2, steps - horizon, horizon).map_err(tensor_error)?)
            }
            Err(_) => None,
        };
        let input = Input { values: self.time_last("input.x_enc")?, past_time, future_time, horizon };
        let (_, variates, lookback) = sizes(&input.values)?;
        let time_features =
            input.past_time.as_ref().map_or(Ok(0), |time| sizes(time).map(|(_, features, _)| features))?;
        let weights = Weights::new(0, Device::Cpu);
        let shape = WindowShape { lookback, horizon, variates, time_features };
        let mut network = N::build(params, shape, &weights)?;
        prepare(&mut network)?;
        weights.assign(&self.state_dict(&weights)?, N::ALIASES)?;

        let expected = values(&self.time_last("output")?)?;
        let apart = |network: &N| -> Result<f64> {
            let pass = match self.about.mode.as_str() {
                "train" => Pass::training(Sink::default(), 0, 0),
                _ => Pass::inference(),
            };
            let output = output(network, &input, &pass).map_err(tensor_error)?;
            Ok(largest_difference(&values(&output)?, &expected))
        };
        let limited = |found: f64, noise: f64| Difference { found, limit: MULTIPLE * noise };
        // Rounding cannot be smaller than one unit in the last place of the largest value.
        let output_noise = self.noise.output.max(self.noise.output_scale * f64::from(f32::EPSILON));
        let plain = limited(apart(&network)?, output_noise);

        let all = weights.all();
        let count = target.elem_count();
        let plan = Training { schedule: Schedule::Constant, ..Training::default() };
        let mut optimizer = Optimizer::new(&weights, &plan);
        let sink = Sink::default();
        let mut losses = Vec::new();
        let (mut gradient, mut steepness) = (0.0, 0.0);
        for step in 0..=self.adam.steps {
            let pass = Pass::training(sink.clone(), 0, 0);
            sink.lock().clear();
            let loss = trainer::gradients(&network, &all, &input, &target, Loss::Mse, count, &pass);
            losses.push(loss.map_err(tensor_error)?);
            if step == 0 {
                let gradients = sink.lock();
                for (name, weight) in &all {
                    let expected = values(self.tensor(&self.theirs(&format!("grad.{name}"), N::ALIASES))?)?;
                    let found =
                        gradients.get(weight).ok_or_else(|| Error::other(format!("'{name}' has no gradient")))?;
                    gradient = f64::max(gradient, largest_difference(found, &expected));
                    steepness += found.iter().map(|slope| f64::from(slope.abs())).sum::<f64>();
                }
            }
            if step < self.adam.steps {
                optimizer.step(std::slice::from_ref(&sink), self.adam.lr)?;
            }
        }
        let mut adam = 0.0;
        let kept = weights.buffers();
        let buffers = kept.iter().filter(|(name, _)| self.tensors.contains_key(&format!("adam3.{name}")));
        for (name, weight) in all.iter().chain(buffers) {
            let theirs = self.theirs(&format!("adam3.{name}"), N::ALIASES);
            if !self.about.adam3_unstable.contains_key(theirs.trim_start_matches("adam3.")) {
                let apart = largest_difference(&weight.values()?, &values(self.tensor(&theirs)?)?);
                adam = f64::max(adam, apart - self.wandered(name));
            }
        }
        let expected_losses: Vec<f64> =
            self.tensor("loss")?.to_dtype(DType::F64).and_then(|loss| loss.to_vec1()).map_err(tensor_error)?;
        let loss = losses.iter().zip(&expected_losses).fold(0.0, |most, (a, b)| f64::max(most, (a - b).abs()));

        weights.assign(&self.state_dict(&weights)?, N::ALIASES)?;
        network.fold()?;
        let rollout = self.tensors.contains_key("rollout").then(|| -> Result<f64> {
            let expected = self.time_last("rollout")?;
            let longer = Input { horizon: sizes(&expected)?.2, ..input.clone() };
            let forecast = network.forward(&longer, &Pass::inference()).map_err(tensor_error)?;
            Ok(largest_difference(&values(&forecast)?, &values(&expected)?))
        });
        let rollout = rollout.transpose()?;
        Ok(Differences {
            output: plain,
            folded: limited(apart(&network)?, output_noise),
            gradient: limited(gradient, self.noise.largest_gradient),
            adam: limited(adam, self.noise.adam3_excluding_unstable),
            // A loss is as far off as its own rounding, and as the weights that were trained before it.
            loss: limited(loss, losses[0] * f64::from(f32::EPSILON) + steepness * self.noise.adam3_excluding_unstable),
            rollout: rollout.map(|found| limited(found, output_noise)),
        })
    }

    /// The keys that each sparse attention tried, in the order of the forward pass.
    fn samples(&self) -> Result<Vec<Samples>> {
        let tables = (0..).map_while(|index| self.tensors.get(&format!("index_sample.{index}")));
        let read = |table: &Tensor| -> candle_core::Result<Samples> {
            let (_, tried) = table.dims2()?;
            Ok(Samples::of(&table.to_dtype(DType::U32)?.flatten_all()?.to_vec1()?, tried))
        };
        tables.map(|table| read(table).map_err(tensor_error)).collect()
    }

    /// How far a running mean may be from the reference's for no fault of either. It holds the bias of the
    /// map before it, which has no gradient, as the normalisation takes it away again: Adam walks it about
    /// by up to its rate at each step, here and there.
    fn wandered(&self, name: &str) -> f64 {
        if !name.ends_with(".running_mean") {
            return 0.0;
        }
        let momentum = f64::from(MOMENTUM);
        let seen = |step: usize| momentum * (1.0 - momentum).powi((self.adam.steps - 1 - step) as i32);
        (1..self.adam.steps).map(|step| seen(step) * 2.0 * step as f64 * self.adam.lr).sum()
    }

    /// The tensors that are weights, and the inputs that are buffers here.
    fn state_dict(&self, weights: &Weights) -> Result<BTreeMap<String, Tensor>> {
        let aside = ["grad.", "adam3.", "input.", "selected_", "index_sample."];
        let results = ["target", "output", "output_f64", "loss", "loss_weighted_l1", "pe_head", "rollout"];
        let own = self.tensors.iter().filter(|(name, _)| {
            // A counter that nothing depends on.
            let counter = name.ends_with(".num_batches_tracked");
            !aside.iter().any(|prefix| name.starts_with(prefix)) && !results.contains(&name.as_str()) && !counter
        });
        let others = weights.buffers().into_iter().filter(|(name, _)| !self.tensors.contains_key(name));
        let buffers = others.map(|(name, _)| {
            let tensor = self.tensor(&format!("input.{name}"))?;
            Ok((name, tensor.clone()))
        });
        let own = own.map(|(name, tensor)| Ok((name.clone(), tensor.clone())));
        own.chain(buffers).collect()
    }

    /// The name that the file has for one of ours.
    fn theirs(&self, name: &str, aliases: &[(&str, &str)]) -> String {
        let other = |(theirs, ours): &(&str, &str)| {
            Some(name.replace(ours, theirs)).filter(|name| self.tensors.contains_key(name))
        };
        match self.tensors.contains_key(name) {
            true => name.to_string(),
            false => aliases.iter().find_map(other).unwrap_or_else(|| name.to_string()),
        }
    }
}

fn values(tensor: &Tensor) -> Result<Vec<f32>> {
    tensor.flatten_all().and_then(|flat| flat.to_vec1()).map_err(tensor_error)
}

fn largest_difference(found: &[f32], expected: &[f32]) -> f64 {
    if found.len() != expected.len() {
        return f64::INFINITY;
    }
    // A NaN is as far off as can be.
    let apart = found.iter().zip(expected).map(|(found, expected)| f64::from(*found) - f64::from(*expected));
    apart.fold(0.0, |most, apart| {
        if apart.abs() <= most {
            most
        } else if apart.is_nan() {
            f64::INFINITY
        } else {
            apart.abs()
        }
    })
}
