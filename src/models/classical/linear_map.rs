//! A fitted linear map from lookback to horizon: applying it, and its file.

use std::{collections::HashMap, fs, path::Path};

use ndarray::{Array2, Array3, ArrayView1, ArrayView2, ArrayView3, ArrayViewMut2, Axis, linalg::general_mat_mul, s};
use rayon::prelude::*;
use safetensors::{Dtype, SafeTensors, tensor::TensorView};

use super::{level::Level, normal::Solution};
use crate::{Error, Result};

const FILE: &str = "weights.safetensors";

/// `y = W x + b`, or `W x + b sigma(x)`: one map for all variates, or one for each.
///
/// Every [`Level`] comes down to this: taking off `u x` and putting it back is
/// `W (x - u x) + u x = (W - (W 1 - 1) u) x`.
#[derive(Clone, Debug, PartialEq)]
pub struct LinearMap {
    level: Level,
    /// `[maps, horizon, lookback]`.
    weights: Array3<f32>,
    /// `[maps, horizon]`.
    bias: Array2<f32>,
}

impl LinearMap {
    /// The map of each of `solutions`: one for all variates, or one for each.
    pub fn of(level: Level, solutions: &[Solution]) -> Self {
        let (lookback, horizon) = solutions[0].weights.shape();
        let reference = level.weights(lookback).unwrap_or_else(|| vec![0.0; lookback]);
        let mut weights = Array3::zeros((solutions.len(), horizon, lookback));
        let mut bias = Array2::zeros((solutions.len(), horizon));
        for (index, solution) in solutions.iter().enumerate() {
            for step in 0..horizon {
                let fitted = solution.weights.col_as_slice(step);
                let kept = 1.0 - fitted.iter().sum::<f64>();
                for (row, (weight, reference)) in fitted.iter().zip(&reference).enumerate() {
                    weights[[index, step, row]] = (weight + kept * reference) as f32;
                }
                bias[[index, step]] = solution.bias[step] as f32;
            }
        }
        Self { level, weights, bias }
    }

    /// `[batch, lookback or more, variates]` -> `[batch, horizon, variates]`.
    pub fn apply(&self, values: ArrayView3<'_, f32>) -> Result<Array3<f32>> {
        let (maps, horizon, lookback) = self.weights.dim();
        let (batch, rows, variates) = values.dim();
        let skip = rows
            .checked_sub(lookback)
            .ok_or_else(|| Error::Shape(format!("a lookback of {rows} rows, where {lookback} are needed")))?;
        let values = values.slice_move(s![.., skip.., ..]);
        let mut forecast = Array3::zeros((batch, horizon, variates));
        match maps {
            1 => self.apply_to_all(values, &mut forecast),
            _ if maps == variates => {
                let futures: Vec<_> = forecast.axis_iter_mut(Axis(2)).collect();
                futures.into_par_iter().enumerate().for_each(|(variate, future)| {
                    self.product(variate, values.index_axis(Axis(2), variate), future);
                });
            }
            _ => return Err(Error::Shape(format!("{variates} variates, but the maps are for {maps}"))),
        }
        Ok(forecast)
    }

    /// The shared map, on a few windows at a time.
    fn apply_to_all(&self, values: ArrayView3<'_, f32>, forecast: &mut Array3<f32>) {
        // Samples of one product: enough to be worth reading the weights once, few enough to stay in
        // the cache.
        const SAMPLES: usize = 256;
        let (_, lookback, variates) = values.dim();
        let windows = (SAMPLES / variates.max(1)).max(1);
        let pasts = values.axis_chunks_iter(Axis(0), windows);
        let chunks: Vec<_> = pasts.zip(forecast.axis_chunks_iter_mut(Axis(0), windows)).collect();
        chunks.into_par_iter().for_each(|(past, mut future)| {
            let samples = past.len_of(Axis(0)) * variates;
            let mut gathered = Array2::zeros((samples, lookback));
            for (sample, mut row) in gathered.rows_mut().into_iter().enumerate() {
                row.assign(&past.slice(s![sample / variates, .., sample % variates]));
            }
            let mut mapped = Array2::zeros((samples, self.bias.ncols()));
            self.product(0, gathered.view(), mapped.view_mut());
            for (sample, row) in mapped.rows().into_iter().enumerate() {
                future.slice_mut(s![sample / variates, .., sample % variates]).assign(&row);
            }
        });
    }

    /// One map: `[samples, lookback]` -> `[samples, horizon]`.
    ///
    /// Each number is summed over the lookback in the same order wherever its sample stands, so
    /// that a forecast does not depend on its batch.
    fn product(&self, map: usize, samples: ArrayView2<'_, f32>, mut forecast: ArrayViewMut2<'_, f32>) {
        let weights = self.weights.index_axis(Axis(0), map);
        general_mat_mul(1.0, &samples, &weights.t(), 0.0, &mut forecast);
        let bias = self.bias.row(map);
        for (sample, mut forecast) in samples.rows().into_iter().zip(forecast.rows_mut()) {
            let scale = if self.level.scales_intercept() { deviation(sample) } else { 1.0 };
            forecast.scaled_add(scale, &bias);
        }
    }

    /// Writes the map into the folder `dir`.
    pub fn save(&self, dir: &Path) -> Result<()> {
        let file = dir.join(FILE);
        let (maps, horizon, lookback) = self.weights.dim();
        let (weights, bias) = (bytes(self.weights.iter()), bytes(self.bias.iter()));
        let leading = if maps == 1 { vec![] } else { vec![maps] };
        let tensor = |shape: &[usize], data| {
            TensorView::new(Dtype::F32, [&leading, shape].concat(), data).map_err(|error| Error::file(&file, error))
        };
        let tensors = [("weight", tensor(&[horizon, lookback], &weights)?), ("bias", tensor(&[horizon], &bias)?)];
        let about = HashMap::from([("level".to_string(), self.level.name().to_string())]);
        let content = safetensors::serialize(tensors, Some(about)).map_err(|error| Error::file(&file, error))?;
        fs::write(&file, content).map_err(Error::io("write", &file))
    }

    /// Reads the map that [`save`](Self::save) wrote, if it is the one for `[maps, horizon, lookback]`.
    pub fn load(dir: &Path, level: Level, shape: [usize; 3]) -> Result<Self> {
        let file = dir.join(FILE);
        let content = fs::read(&file).map_err(Error::io("read", &file))?;
        let damaged = |error| Error::file(&file, format!("not a whole safetensors file: {error}"));
        let (_, header) = SafeTensors::read_metadata(&content).map_err(damaged)?;
        let tensors = SafeTensors::deserialize(&content).map_err(damaged)?;

        let found = header.metadata().as_ref().and_then(|about| about.get("level")).map_or("none", String::as_str);
        if found != level.name() {
            return Err(Error::file(&file, format!("the level is '{found}', but '{}' is expected", level.name())));
        }
        let [maps, horizon, lookback] = shape;
        let read = |name: &str, shape: &[usize]| {
            let expected = if maps == 1 { shape.to_vec() } else { [&[maps], shape].concat() };
            let tensor = tensors.tensor(name).map_err(|_| Error::file(&file, format!("there is no '{name}'")))?;
            if tensor.dtype() != Dtype::F32 || tensor.shape() != expected {
                let (kind, found) = (tensor.dtype(), tensor.shape());
                return Err(Error::file(&file, format!("'{name}' is {kind:?} {found:?}, not F32 {expected:?}")));
            }
            let numbers: Vec<_> = tensor
                .data()
                .chunks_exact(4)
                .map(|bytes| f32::from_le_bytes(bytes.try_into().expect("a chunk has four bytes")))
                .collect();
            match numbers.iter().all(|number| number.is_finite()) {
                true => Ok(numbers),
                false => Err(Error::file(&file, format!("'{name}' holds NaN or infinity"))),
            }
        };
        let weights = Array3::from_shape_vec((maps, horizon, lookback), read("weight", &[horizon, lookback])?);
        let bias = Array2::from_shape_vec((maps, horizon), read("bias", &[horizon])?);
        Ok(Self { level, weights: weights.expect("the shape is checked"), bias: bias.expect("the shape is checked") })
    }
}

fn bytes<'a>(numbers: impl Iterator<Item = &'a f32>) -> Vec<u8> {
    numbers.flat_map(|number| number.to_le_bytes()).collect()
}

/// `sigma` of [`Level::Standardise`].
fn deviation(sample: ArrayView1<'_, f32>) -> f32 {
    let count = sample.len() as f64;
    let mean = sample.iter().copied().map(f64::from).sum::<f64>() / count;
    let variance = sample.iter().map(|value| (f64::from(*value) - mean).powi(2)).sum::<f64>() / count;
    (variance + Level::EPSILON).sqrt() as f32
}
