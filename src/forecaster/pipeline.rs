//! A scaler and a forecaster together: raw values in and out, one folder on disk.

use std::{fs, path::Path};

use chrono::NaiveDateTime;
use ndarray::{Array2, ArrayView2, Axis, s};
use serde::{Deserialize, Serialize};

use super::{BuildContext, Device, FitObserver, Forecaster, Params, Registry};
use crate::{
    Error, Result,
    data::{Calendar, Series, Step},
    windows::{Lookback, Part, Scaler, Split, WindowShape, Windows},
};

/// What to fit: the model by name, its params, and the sizes of a window.
#[derive(Clone, Debug)]
pub struct Plan {
    pub model: String,
    pub params: Params,
    pub lookback: usize,
    pub horizon: usize,
    pub seed: u64,
    pub calendar: Calendar,
    pub device: Device,
}

impl Plan {
    /// `model` with its default params, seed 2021 and hourly calendar features, on the CPU.
    pub fn new(model: impl Into<String>, lookback: usize, horizon: usize) -> Self {
        let (calendar, device) = (Calendar::default(), Device::Cpu);
        Self { model: model.into(), params: Params::default(), lookback, horizon, seed: 2021, calendar, device }
    }
}

const MODEL_FILE: &str = "model.toml";

/// What `model.toml` holds. The forecaster's own file lies beside it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Identity {
    version: String,
    model: String,
    calendar: Calendar,
    variates: Vec<String>,
    step: Option<Step>,
    context: BuildContext,
    params: Params,
    scaler: Scaler,
}

/// A fitted forecaster with all that is needed to use it on raw data.
pub struct Pipeline {
    identity: Identity,
    forecaster: Box<dyn Forecaster>,
}

impl Pipeline {
    /// Fits what `plan` says on the training rows of `split`; the validation rows are for choosing
    /// and stopping, the test rows are not looked at.
    ///
    /// # Errors
    /// If the model cannot be built, the parts are too short for a window, or fitting fails.
    pub fn fit(
        models: &Registry,
        plan: &Plan,
        series: &Series,
        split: &Split,
        observer: &mut dyn FitObserver,
    ) -> Result<Self> {
        let step = Step::detect(series.timestamps());
        let series = series.clone().with_calendar(plan.calendar);
        let shape = WindowShape::of(&series, plan.lookback, plan.horizon)?;
        let season = step.map_or(1, Step::season);
        let context = BuildContext { shape, season, seed: plan.seed, device: plan.device };
        let params = models.resolve(&plan.model, &plan.params)?;
        let mut forecaster = models.build(&plan.model, &params, &context)?;
        let scaler = Scaler::fit(&series, split);
        let scaled = [scaler.transform(&series)?];
        let windows = |part| Windows::new(&scaled, &[split.targets(part, plan.lookback)], shape);
        forecaster.fit(&windows(Part::Train)?, &windows(Part::Valid)?, observer)?;
        let identity = Identity {
            version: env!("CARGO_PKG_VERSION").to_string(),
            model: plan.model.clone(),
            calendar: plan.calendar,
            variates: series.variates().to_vec(),
            step,
            context,
            params,
            scaler,
        };
        Ok(Self { identity, forecaster })
    }

    /// The rows that follow `recent`, in raw units, `[horizon, variates]`.
    ///
    /// # Errors
    /// If `recent` has other variates, fewer rows than the lookback, or no timestamps where the
    /// model was fitted with some.
    pub fn forecast(&self, recent: &Series) -> Result<Array2<f64>> {
        let Identity { calendar, variates, context, scaler, .. } = &self.identity;
        let WindowShape { lookback, horizon, time_features, .. } = context.shape;
        if recent.variates() != variates {
            return Err(Error::Shape(format!(
                "{}: the variates are {:?}, but the model was fitted on {variates:?}",
                recent.name(),
                recent.variates()
            )));
        }
        let scaled = scaler.transform(&recent.clone().with_calendar(*calendar))?;
        let skip = scaled.len().checked_sub(lookback).ok_or_else(|| {
            Error::Shape(format!("{}: {} rows, but the lookback is {lookback}", recent.name(), recent.len()))
        })?;
        if scaled.time_features().ncols() != time_features {
            return Err(Error::Shape(format!("{}: the model needs timestamps, but there are none", recent.name())));
        }
        let future = self.next_timestamps(recent)?;
        let future_time = match time_features {
            0 => Array2::zeros((horizon, 0)),
            _ => calendar.features(&future),
        };
        let past = |rows: ArrayView2<'_, f32>| rows.slice(s![skip.., ..]).to_owned().insert_axis(Axis(0));
        let forecast = self.forecaster.predict(&Lookback {
            values: past(scaled.values().mapv(|value| value as f32).view()),
            past_time: past(scaled.time_features()),
            future_time: future_time.insert_axis(Axis(0)),
        })?;
        scaler.inverse(forecast.index_axis(Axis(0), 0))
    }

    /// The timestamps of the rows that [`forecast`](Self::forecast) gives; none where `recent` has none, or the
    /// model was fitted without.
    ///
    /// # Errors
    /// If the calendar ends before.
    pub fn next_timestamps(&self, recent: &Series) -> Result<Vec<NaiveDateTime>> {
        let horizon = self.shape().horizon;
        let (Some(step), Some(last)) = (self.identity.step, recent.timestamps().last()) else { return Ok(vec![]) };
        (1..=horizon)
            .map(|count| step.after(*last, count))
            .collect::<Option<Vec<_>>>()
            .ok_or_else(|| Error::Shape(format!("the calendar ends before {horizon} steps of {step}")))
    }

    /// Writes the pipeline into the folder `dir`, which is made where there is none.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn save(&self, dir: impl AsRef<Path>) -> Result<()> {
        let dir = dir.as_ref();
        fs::create_dir_all(dir).map_err(Error::io("make the folder", dir))?;
        self.forecaster.save(dir)?;
        let text = toml::to_string(&self.identity).map_err(|error| Error::other(error.to_string()))?;
        let file = dir.join(MODEL_FILE);
        fs::write(&file, text).map_err(Error::io("write", &file))
    }

    /// Takes up the pipeline that [`save`](Self::save) wrote, building its model from `models`.
    ///
    /// # Errors
    /// If the folder does not hold one, or its model is not in the registry.
    pub fn load(dir: impl AsRef<Path>, models: &Registry) -> Result<Self> {
        Self::load_for(dir.as_ref(), models, None)
    }

    /// The same for another horizon than it was fitted for: for a model whose weights do not depend on it,
    /// such as `gpht`.
    ///
    /// # Errors
    /// As for [`load`](Self::load), and if the weights are those of one horizon.
    pub fn load_with_horizon(dir: impl AsRef<Path>, models: &Registry, horizon: usize) -> Result<Self> {
        Self::load_for(dir.as_ref(), models, Some(horizon))
    }

    fn load_for(dir: &Path, models: &Registry, horizon: Option<usize>) -> Result<Self> {
        let file = dir.join(MODEL_FILE);
        let text = fs::read_to_string(&file).map_err(Error::io("read", &file))?;
        let mut identity: Identity = toml::from_str(&text).map_err(|error| Error::file(&file, error.message()))?;
        identity.context.shape.horizon = match horizon {
            Some(0) => return Err(Error::Shape("horizon must be at least 1".into())),
            horizon => horizon.unwrap_or(identity.context.shape.horizon),
        };
        let mut forecaster = models.build(&identity.model, &identity.params, &identity.context)?;
        forecaster.load(dir)?;
        Ok(Self { identity, forecaster })
    }

    /// The name of the model.
    pub fn model(&self) -> &str {
        &self.identity.model
    }

    /// Its params, defaults filled in.
    pub fn params(&self) -> &Params {
        &self.identity.params
    }

    /// The sizes of its windows.
    pub fn shape(&self) -> WindowShape {
        self.identity.context.shape
    }

    /// The names of the variates, in the order a series has to have.
    pub fn variates(&self) -> &[String] {
        &self.identity.variates
    }

    /// How far apart rows are; `None` where it was fitted on data without timestamps.
    pub fn step(&self) -> Option<Step> {
        self.identity.step
    }

    /// The version of this crate that it was fitted with.
    pub fn version(&self) -> &str {
        &self.identity.version
    }
}
