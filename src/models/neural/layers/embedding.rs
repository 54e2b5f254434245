//! Steps as an encoder and a decoder see them: their values with those of both neighbours, their calendar,
//! and where they stand.

use candle_core::{Device, Result, Tensor};

use crate::{
    models::neural::{
        kernels::{
            linear::{Map, linear},
            neighbours::{self, neighbours},
        },
        pass::Pass,
        reference::{Inferred, Shapes},
        weights::{Init, Weights},
    },
    windows::WindowShape,
};

/// A circular convolution of width 3 of the values, plus a map of the calendar, plus the position where
/// there is one; as in Informer (2021) and all that grew from it.
pub struct StepEmbedding {
    values: Map,
    time: Option<Map>,
    /// `[steps, d_model]`.
    positions: Option<Tensor>,
    dropout: f64,
}

impl StepEmbedding {
    /// # Errors
    /// If the weights cannot be made.
    pub fn new(d_model: usize, shape: WindowShape, bias: bool, dropout: f64, weights: &Weights) -> crate::Result<Self> {
        let inputs = neighbours::WIDTH * shape.variates;
        // Kaiming's normal start for a leaky ReLU of slope 0.01.
        let deviation = (2.0 / (1.0 + 1e-4) / inputs as f64).sqrt();
        let map = |name: &str, dims: &[usize], init: Init, inputs: usize| -> crate::Result<Map> {
            let at = weights.at(name);
            let bias = bias.then(|| at.trained("bias", &[d_model], Init::of_linear(inputs))).transpose()?;
            Ok(Map { weight: at.trained("weight", dims, init)?, bias })
        };
        let dims = [d_model, shape.variates, neighbours::WIDTH];
        let values = map("value_embedding.tokenConv", &dims, Init::Normal(deviation), inputs)?;
        let features = shape.time_features;
        let time = || map("temporal_embedding.embed", &[d_model, features], Init::of_linear(features), features);
        Ok(Self { values, time: (features > 0).then(time).transpose()?, positions: None, dropout })
    }

    /// The same with positions, for `steps` steps.
    ///
    /// # Errors
    /// If there is no memory for them.
    pub fn with_positions(self, steps: usize, device: &Device) -> crate::Result<Self> {
        let d_model = self.values.weight.dims()[0];
        let positions = sinusoids(steps, d_model, device).map_err(crate::models::neural::tensor_error)?;
        Ok(Self { positions: Some(positions), ..self })
    }

    /// `x [batch, steps, variates]` and `time [batch, steps, time features]` -> `[batch, steps, d_model]`.
    ///
    /// # Errors
    /// If the shapes are others.
    pub fn forward(&self, x: &Tensor, time: Option<&Tensor>, pass: &Pass) -> Result<Tensor> {
        let mut z = linear(&neighbours(x, 1, pass)?, std::slice::from_ref(&self.values), pass)?;
        if let (Some(map), Some(time)) = (&self.time, time) {
            z = (z + linear(time, std::slice::from_ref(map), pass)?)?;
        }
        if let Some(positions) = &self.positions {
            z = z.broadcast_add(positions)?;
        }
        pass.drop_out(z, self.dropout)
    }
}

/// What the embedding of a checkpoint says: the sizes of a row, and `d_model`. How many rows there are is no
/// part of its weights.
pub fn infer_steps(shapes: &mut Shapes<'_>) -> Inferred {
    let time = "enc_embedding.temporal_embedding.embed.weight";
    let inferred = Inferred {
        variates: Some(shapes.size("enc_embedding.value_embedding.tokenConv.weight", 1)),
        time_features: Some(if shapes.has(time) { shapes.size(time, 1) } else { 0 }),
        ..Inferred::default()
    };
    inferred.with("d_model", shapes.size("enc_embedding.value_embedding.tokenConv.weight", 0))
}

/// The positions of a Transformer, `[steps, width]`: sines at even, cosines at odd columns.
///
/// Vaswani et al., "Attention Is All You Need", 2017, section 3.5.
///
/// # Errors
/// If there is no memory for them.
pub fn sinusoids(steps: usize, width: usize, device: &Device) -> Result<Tensor> {
    let value = |at: usize| {
        let (step, column) = (at / width, at % width);
        let angle = step as f64 * (-((column / 2 * 2) as f64) * 10_000f64.ln() / width as f64).exp();
        (if column % 2 == 0 { angle.sin() } else { angle.cos() }) as f32
    };
    Tensor::from_vec((0..steps * width).map(value).collect::<Vec<_>>(), (steps, width), device)
}
