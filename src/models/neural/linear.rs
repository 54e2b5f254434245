//! Linear, NLinear and DLinear: one map from the lookback to the horizon, learnt by descent.
//!
//! Zeng et al., "Are Transformers Effective for Time Series Forecasting?", AAAI 2023,
//! <https://arxiv.org/abs/2205.13504>. Weight names are those of the authors' checkpoints. In
//! inference all three are one product: what they do before and after their maps is linear too.

use candle_core::{Result, Tensor};
use serde::{Deserialize, Serialize};

use super::{
    Input, Network,
    kernels::{
        linear::{Map, linear},
        moving_average::{self, moving_average},
    },
    pass::Pass,
    reference::{Inferred, Shapes},
    weights::Weights,
};
use crate::{Error, windows::WindowShape};

/// `[network]` of a preset for Linear and NLinear.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LinearParams {
    /// One map for each variate, and not one for all.
    pub individual: bool,
}

/// `[network]` of a preset for DLinear.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DLinearParams {
    /// One pair of maps for each variate, and not one for all.
    pub individual: bool,
    /// Steps the trend is averaged over; odd.
    pub moving_average: usize,
    pub init: MapInit,
}

impl Default for DLinearParams {
    fn default() -> Self {
        Self { individual: false, moving_average: 25, init: MapInit::Torch }
    }
}

/// How DLinear's maps start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MapInit {
    /// PyTorch's default, as in the authors' code.
    #[default]
    Torch,
    /// Each the mean of the lookback, as in the Time-Series-Library.
    Mean,
}

/// A map for all variates, or one for each.
struct Maps(Vec<Map>);

impl Maps {
    fn new(name: &str, shape: WindowShape, individual: bool, weights: &Weights) -> crate::Result<Self> {
        let (inputs, outputs) = (shape.lookback, shape.horizon);
        match individual {
            false => Ok(Self(vec![weights.linear(name, inputs, outputs)?])),
            true => (0..shape.variates)
                .map(|variate| weights.linear(format!("{name}.{variate}"), inputs, outputs))
                .collect::<crate::Result<_>>()
                .map(Self),
        }
    }

    /// `[batch, variates, lookback]` -> `[batch, variates, horizon]`.
    fn forward(&self, x: &Tensor, pass: &Pass) -> Result<Tensor> {
        match &self.0[..] {
            [shared] => linear(x, std::slice::from_ref(shared), pass),
            each => {
                let one =
                    |(variate, map): (usize, &Map)| linear(&x.narrow(1, variate, 1)?, std::slice::from_ref(map), pass);
                Tensor::cat(&each.iter().enumerate().map(one).collect::<Result<Vec<_>>>()?, 1)
            }
        }
    }

    fn with_weights(
        &self,
        change: impl Fn(usize, &mut Vec<f32>, &mut Vec<f32>) -> crate::Result<()>,
    ) -> crate::Result<Self> {
        let changed = self.0.iter().enumerate().map(|(index, map)| {
            let (mut weight, mut bias) = map.values()?;
            change(index, &mut weight, &mut bias)?;
            let map = Map::fixed(map.weight.dims(), weight, bias, &map.weight.device())?;
            map.weight.lay_out(true).map(|()| map)
        });
        changed.collect::<crate::Result<_>>().map(Self)
    }
}

/// Of a map for all variates the number of variates cannot be told.
fn infer(name: &str, shapes: &mut Shapes<'_>) -> Inferred {
    let individual = shapes.has(&format!("{name}.0.weight"));
    let weight = if individual { format!("{name}.0.weight") } else { format!("{name}.weight") };
    let inferred = Inferred {
        lookback: Some(shapes.size(&weight, 1)),
        horizon: Some(shapes.size(&weight, 0)),
        variates: individual.then(|| shapes.layers(name)),
        time_features: Some(0),
        ..Inferred::default()
    };
    inferred.with("individual", individual)
}

pub struct Linear {
    maps: Maps,
}

impl Network for Linear {
    const NAME: &'static str = "linear";
    const ABOUT: &'static str = "one linear map from lookback to horizon, by descent (Zeng et al., 2023)";
    type Params = LinearParams;

    fn infer(shapes: &mut Shapes<'_>) -> Inferred {
        infer("Linear", shapes)
    }

    fn build(params: &LinearParams, shape: WindowShape, weights: &Weights) -> crate::Result<Self> {
        Ok(Self { maps: Maps::new("Linear", shape, params.individual, weights)? })
    }

    fn forward(&self, input: &Input, pass: &Pass) -> Result<Tensor> {
        self.maps.forward(&input.values, pass)
    }
}

pub struct NLinear {
    maps: Maps,
    lookback: usize,
    folded: Option<Maps>,
}

impl Network for NLinear {
    const NAME: &'static str = "nlinear";
    const ABOUT: &'static str = "a linear map of what is left when the last value is subtracted (Zeng et al., 2023)";
    type Params = LinearParams;

    fn infer(shapes: &mut Shapes<'_>) -> Inferred {
        infer("Linear", shapes)
    }

    fn build(params: &LinearParams, shape: WindowShape, weights: &Weights) -> crate::Result<Self> {
        let maps = Maps::new("Linear", shape, params.individual, weights)?;
        Ok(Self { maps, lookback: shape.lookback, folded: None })
    }

    fn forward(&self, input: &Input, pass: &Pass) -> Result<Tensor> {
        if let (Some(folded), false) = (&self.folded, pass.is_training()) {
            return folded.forward(&input.values, pass);
        }
        let last = input.values.narrow(2, self.lookback - 1, 1)?;
        let left = input.values.broadcast_sub(&last)?;
        self.maps.forward(&left, pass)?.broadcast_add(&last)
    }

    /// The last value gets what is missing to 1 in each row of the map.
    fn fold(&mut self) -> crate::Result<()> {
        let lookback = self.lookback;
        self.folded = Some(self.maps.with_weights(|_, weight, _| {
            for row in weight.chunks_exact_mut(lookback) {
                let sum: f64 = row.iter().map(|weight| f64::from(*weight)).sum();
                row[lookback - 1] = (f64::from(row[lookback - 1]) + 1.0 - sum) as f32;
            }
            Ok(())
        })?);
        Ok(())
    }
}

pub struct DLinear {
    width: usize,
    lookback: usize,
    seasonal: Maps,
    trend: Maps,
    folded: Option<Maps>,
}

impl Network for DLinear {
    const NAME: &'static str = "dlinear";
    const ABOUT: &'static str = "a linear map of the trend and one of the remainder (Zeng et al., 2023)";
    type Params = DLinearParams;

    fn infer(shapes: &mut Shapes<'_>) -> Inferred {
        infer("Linear_Seasonal", shapes)
    }

    fn build(params: &DLinearParams, shape: WindowShape, weights: &Weights) -> crate::Result<Self> {
        let width = params.moving_average;
        if width.is_multiple_of(2) {
            return Err(Error::params(Self::NAME, format!("moving_average must be odd, not {width}")));
        }
        super::check_average(Self::NAME, width, shape)?;
        let maps = |name| -> crate::Result<Maps> {
            let maps = Maps::new(name, shape, params.individual, weights)?;
            if params.init == MapInit::Mean {
                for map in &maps.0 {
                    map.weight.set(&vec![1.0 / shape.lookback as f32; map.weight.len()])?;
                }
            }
            Ok(maps)
        };
        let (seasonal, trend) = (maps("Linear_Seasonal")?, maps("Linear_Trend")?);
        Ok(Self { width, lookback: shape.lookback, seasonal, trend, folded: None })
    }

    fn forward(&self, input: &Input, pass: &Pass) -> Result<Tensor> {
        if let (Some(folded), false) = (&self.folded, pass.is_training()) {
            return folded.forward(&input.values, pass);
        }
        let trend = moving_average(&input.values, self.width, pass)?;
        let seasonal = (&input.values - &trend)?;
        self.seasonal.forward(&seasonal, pass)? + self.trend.forward(&trend, pass)?
    }

    /// The average is a matrix M, so both maps are one: S (1 − M) + T M = S + (T − S) M.
    fn fold(&mut self) -> crate::Result<()> {
        let (width, lookback) = (self.width, self.lookback);
        self.folded = Some(self.seasonal.with_weights(|index, weight, bias| {
            let (trend, trend_bias) = self.trend.0[index].values()?;
            bias.iter_mut().zip(trend_bias).for_each(|(bias, trend)| *bias += trend);
            let apart: Vec<f32> = trend.iter().zip(&*weight).map(|(trend, seasonal)| trend - seasonal).collect();
            let averaged = moving_average::transposed(&apart, width, lookback);
            weight.iter_mut().zip(averaged).for_each(|(weight, averaged)| *weight += averaged);
            Ok(())
        })?);
        Ok(())
    }
}
