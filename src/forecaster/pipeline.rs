//! A scaler and a forecaster together: raw values in and out, one folder on disk.

use std::{ops::Range, path::Path};

use chrono::NaiveDateTime;
use ndarray::{Array2, ArrayView2, Axis, s};
use serde::{Deserialize, Serialize};

use super::{BuildContext, Device, FitObserver, Forecaster, Intervals, Params, Registry, folder, intervals::around};
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
    /// The calendar features of the rows; without it those of the step of the data.
    pub calendar: Option<Calendar>,
    pub device: Device,
    /// Intervals to calibrate on the validation windows, in percent, such as 80 and 95.
    pub levels: Vec<f64>,
    /// Whether to learn anew from the training and validation rows together when all is chosen and calibrated,
    /// where the method can. Intervals stay those of the first fit, whose errors were larger if anything.
    pub refit: bool,
}

impl Plan {
    /// `model` with its default params and seed 2021, on the CPU, without intervals.
    pub fn new(model: impl Into<String>, lookback: usize, horizon: usize) -> Self {
        Self {
            model: model.into(),
            params: Params::default(),
            lookback,
            horizon,
            seed: 2021,
            calendar: None,
            device: Device::Cpu,
            levels: vec![],
            refit: false,
        }
    }
}

/// What `model.toml` holds. The forecaster's own file lies beside it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Identity {
    model: String,
    calendar: Calendar,
    variates: Vec<String>,
    step: Option<Step>,
    context: BuildContext,
    params: Params,
    scaler: Scaler,
}

/// Rows that a model for any horizon forecasts at most: more than there is memory or patience for.
const MOST_ROWS: usize = 1_000_000;

fn this_version() -> String {
    env!("CARGO_PKG_VERSION").to_string()
}

/// A fitted forecaster with all that is needed to use it on raw data.
pub struct Pipeline {
    identity: Identity,
    forecaster: Box<dyn Forecaster>,
    intervals: Option<Intervals>,
    /// Of this crate, when it was fitted.
    version: String,
}

/// The rows that follow, in the units of the data.
#[derive(Clone, Debug, PartialEq)]
pub struct Forecast {
    /// Of the rows; none where the data has none.
    pub timestamps: Vec<NaiveDateTime>,
    pub variates: Vec<String>,
    /// `[horizon, variates]`.
    pub values: Array2<f64>,
    /// One of each level that was calibrated, the narrowest first.
    pub intervals: Vec<Interval>,
}

/// Where the truth lies with a probability of `level` percent, for each step and variate on its own.
#[derive(Clone, Debug, PartialEq)]
pub struct Interval {
    pub level: f64,
    /// `[horizon, variates]`.
    pub lower: Array2<f64>,
    /// `[horizon, variates]`.
    pub upper: Array2<f64>,
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
        // Before hours of fitting.
        Intervals::ordered(&plan.levels)?;
        let step = Step::detect(series.timestamps());
        let calendar = match series.timestamps().is_empty() {
            true => Calendar::None,
            false => plan.calendar.unwrap_or_else(|| Calendar::of(step)),
        };
        let shape = WindowShape::of(&series.clone().with_calendar(calendar), plan.lookback, plan.horizon)?;
        let season = step.map_or(1, Step::season);
        let context = BuildContext { shape, season, seed: plan.seed, device: plan.device };
        let params = models.resolve(&plan.model, &plan.params)?;
        let forecaster = models.build(&plan.model, &params, &context)?;
        let identity = Identity {
            model: plan.model.clone(),
            calendar,
            variates: series.variates().to_vec(),
            step,
            context,
            params,
            scaler: Scaler::fit(series, split),
        };
        let mut pipeline = Self { identity, forecaster, intervals: None, version: this_version() };
        let scaled = [pipeline.scaled(series)?];
        let windows = |part| Windows::new(&scaled, &[split.targets(part, plan.lookback)], shape);
        pipeline.forecaster.fit(&windows(Part::Train)?, &windows(Part::Valid)?, observer)?;
        if !plan.levels.is_empty() {
            pipeline.calibrate(series, split.targets(Part::Valid, plan.lookback), &plan.levels)?;
        }
        if plan.refit {
            pipeline.refit(series, split.train.start..split.valid.end, observer)?;
        }
        Ok(pipeline)
    }

    /// Around a forecaster that was fitted elsewhere, which `build` makes: `plan`, its params resolved, says
    /// what it is, `scaler` what its values were scaled by.
    ///
    /// # Errors
    /// If `build` fails.
    pub fn assembled(
        plan: &Plan,
        variates: Vec<String>,
        step: Option<Step>,
        scaler: Scaler,
        build: impl FnOnce(&BuildContext) -> Result<Box<dyn Forecaster>>,
    ) -> Result<Self> {
        let Plan { lookback, horizon, seed, device, .. } = *plan;
        let calendar = plan.calendar.unwrap_or_else(|| Calendar::of(step));
        let time_features = calendar.features(&[]).ncols();
        let shape = WindowShape { lookback, horizon, variates: variates.len(), time_features };
        let context = BuildContext { shape, season: step.map_or(1, Step::season), seed, device };
        let identity = Identity {
            model: plan.model.clone(),
            calendar,
            variates,
            step,
            context,
            params: plan.params.clone(),
            scaler,
        };
        Ok(Self { identity, forecaster: build(&context)?, intervals: None, version: this_version() })
    }

    /// Calibrates intervals of `levels`, in percent, on the windows whose targets lie in `rows` of `series`, from
    /// which nothing was learnt; those of before are forgotten.
    ///
    /// # Errors
    /// If the rows are too few for a window, or a level is none.
    pub fn calibrate(&mut self, series: &Series, rows: Range<usize>, levels: &[f64]) -> Result<()> {
        let scaled = [self.scaled(series)?];
        let windows = Windows::new(&scaled, &[rows], self.shape())?;
        self.intervals = Some(Intervals::calibrate(&*self.forecaster, &windows, levels)?);
        Ok(())
    }

    /// Learns anew from all windows in `rows` of `series`, with what was chosen before, scaled as before; `false`
    /// where the method cannot. Intervals stay as they are.
    ///
    /// # Errors
    /// If the rows are too few for a window, or nothing can be learnt from them.
    pub fn refit(&mut self, series: &Series, rows: Range<usize>, observer: &mut dyn FitObserver) -> Result<bool> {
        let scaled = [self.scaled(series)?];
        let windows = Windows::new(&scaled, &[rows], self.shape())?;
        self.forecaster.refit(&windows, observer)
    }

    /// `series` as the forecaster takes it: its variates scaled, with the calendar features of its rows.
    ///
    /// # Errors
    /// If its variates are others than those that were fitted.
    pub fn scaled(&self, series: &Series) -> Result<Series> {
        let Identity { calendar, variates, scaler, .. } = &self.identity;
        if series.variates() != variates {
            return Err(Error::Shape(format!(
                "{}: the variates are {:?}, but the model was fitted on {variates:?}",
                series.name(),
                series.variates()
            )));
        }
        scaler.transform(&series.clone().with_calendar(*calendar))
    }

    /// The rows that follow `recent`, in the units of the data.
    ///
    /// # Errors
    /// If `recent` has other variates, fewer rows than the lookback, another step, or no timestamps where the
    /// model was fitted with some.
    pub fn forecast(&self, recent: &Series) -> Result<Forecast> {
        let Identity { calendar, variates, context, scaler, .. } = &self.identity;
        let WindowShape { lookback, horizon, time_features, .. } = context.shape;
        let scaled = self.scaled(recent)?;
        let skip = scaled.len().checked_sub(lookback).ok_or_else(|| {
            Error::Shape(format!("{}: {} rows, but the lookback is {lookback}", recent.name(), recent.len()))
        })?;
        if scaled.time_features().ncols() != time_features {
            return Err(Error::Shape(format!("{}: the model needs timestamps, but there are none", recent.name())));
        }
        let looked_at = recent.timestamps().len().saturating_sub(lookback.max(2));
        self.check_step(&recent.timestamps()[looked_at..])?;
        let future = self.next_timestamps(recent)?;
        let future_time = match time_features {
            0 => Array2::zeros((horizon, 0)),
            // Without a step there is one row, and no saying when the next one is.
            _ if future.is_empty() => {
                let message =
                    format!("{}: the model needs to know the step of the data, but it was not told", recent.name());
                return Err(Error::Shape(message));
            }
            _ => calendar.features(&future),
        };
        let past = |rows: ArrayView2<'_, f32>| rows.slice(s![skip.., ..]).to_owned().insert_axis(Axis(0));
        let lookback = Lookback {
            values: past(scaled.values().mapv(|value| value as f32).view()),
            past_time: past(scaled.time_features()),
            future_time: future_time.insert_axis(Axis(0)),
        };
        let forecast = self.forecaster.predict(&lookback)?;
        let forecast = forecast.index_axis(Axis(0), 0);
        let intervals = match &self.intervals {
            None => vec![],
            Some(intervals) => {
                let widths = intervals.half_widths(lookback.values.index_axis(Axis(0), 0));
                let interval = |(level, widths): (&f64, ArrayView2<'_, f32>)| {
                    let [lower, upper] = around(forecast, widths).map(|bound| scaler.inverse(bound.view()));
                    Ok(Interval { level: *level, lower: lower?, upper: upper? })
                };
                intervals.levels().iter().zip(widths.outer_iter()).map(interval).collect::<Result<_>>()?
            }
        };
        let values = scaler.inverse(forecast)?;
        Ok(Forecast { timestamps: future, variates: variates.clone(), values, intervals })
    }

    /// Refuses rows at `times` of which no two are as far apart as those that the model was fitted on, but most are
    /// as far apart as one another; of rows without an order nothing can be said.
    ///
    /// # Errors
    /// If that is so.
    pub(crate) fn check_step(&self, times: &[NaiveDateTime]) -> Result<()> {
        let Some(step) = self.identity.step.filter(|_| times.len() > 1) else { return Ok(()) };
        let Some(found) = Step::detect(times) else { return Ok(()) };
        // To a quarter of a step: clocks are not always on time.
        let as_far = |pair: &[NaiveDateTime]| {
            step.after(pair[0], 1).is_some_and(|next| (pair[1] - next).abs() * 4 <= next - pair[0])
        };
        let alike = times.windows(2).any(as_far);
        let regular = times.windows(2).filter(|pair| found.after(pair[0], 1) == Some(pair[1])).count();
        match alike || 2 * regular < times.len() {
            true => Ok(()),
            false => {
                Err(Error::Shape(format!("no two rows are {step} apart, as those are that the model was fitted on")))
            }
        }
    }

    /// The timestamps of the rows that [`forecast`](Self::forecast) gives; none where `recent` has none, or the
    /// model was fitted without.
    ///
    /// # Errors
    /// If the calendar ends before.
    fn next_timestamps(&self, recent: &Series) -> Result<Vec<NaiveDateTime>> {
        let horizon = self.shape().horizon;
        let (Some(step), Some(last)) = (self.identity.step, recent.timestamps().last()) else { return Ok(vec![]) };
        (1..=horizon)
            .map(|count| step.after(*last, count))
            .collect::<Option<Vec<_>>>()
            .ok_or_else(|| Error::Shape(format!("the calendar ends before {horizon} steps of {step}")))
    }

    /// Writes the pipeline into the folder `dir`, which is made where there is none; what stands there already
    /// stays whole until all is written.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn save(&self, dir: impl AsRef<Path>) -> Result<()> {
        folder::save(dir.as_ref(), &self.version, &self.identity, |dir| {
            self.forecaster.save(dir)?;
            self.intervals.as_ref().map_or(Ok(()), |intervals| intervals.save(dir))
        })
    }

    /// Takes up the pipeline that [`save`](Self::save) wrote, building its model from `models`.
    ///
    /// # Errors
    /// If the folder does not hold one, is not as it was written, or its model is not in the registry.
    pub fn load(dir: impl AsRef<Path>, models: &Registry) -> Result<Self> {
        Self::load_for(dir.as_ref(), models, None)
    }

    /// The same for another horizon than it was fitted for: for a model whose weights do not depend on it,
    /// such as `gpht`. There are no intervals then.
    ///
    /// # Errors
    /// As for [`load`](Self::load), and if the weights are those of one horizon.
    pub fn load_with_horizon(dir: impl AsRef<Path>, models: &Registry, horizon: usize) -> Result<Self> {
        Self::load_for(dir.as_ref(), models, Some(horizon))
    }

    fn load_for(dir: &Path, models: &Registry, horizon: Option<usize>) -> Result<Self> {
        let folder::Saved { pipeline: mut identity, version, files } = folder::load::<Identity>(dir)?;
        let own = identity.context.shape.horizon;
        identity.context.shape.horizon = match horizon {
            Some(0) => return Err(Error::Shape("horizon must be at least 1".into())),
            Some(horizon) if horizon > MOST_ROWS => {
                return Err(Error::Shape(format!("horizon must be at most {MOST_ROWS}, not {horizon}")));
            }
            horizon => horizon.unwrap_or(own),
        };
        let mut forecaster = models.build(&identity.model, &identity.params, &identity.context)?;
        let other = |error| match identity.context.shape.horizon {
            horizon if horizon == own => error,
            _ => Error::file(dir, format!("{} forecasts {own} rows, and no other number: {error}", identity.model)),
        };
        forecaster.load(dir).map_err(other)?;
        let WindowShape { horizon, variates, .. } = identity.context.shape;
        // A file that the seal does not cover is none of this model.
        let calibrated = horizon == own && files.iter().any(|file| file == Intervals::FILE);
        let intervals = calibrated.then(|| Intervals::load(dir, horizon, variates)).transpose()?;
        Ok(Self { identity, forecaster, intervals, version })
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

    /// The names of the variates, in their order.
    pub fn variates(&self) -> &[String] {
        &self.identity.variates
    }

    /// From one row to the next; `None` where the data had no timestamps.
    pub fn step(&self) -> Option<Step> {
        self.identity.step
    }

    /// Steps in the season of the data, 1 where there is none.
    pub fn season(&self) -> usize {
        self.identity.context.season
    }

    /// The calendar features it takes.
    pub fn calendar(&self) -> Calendar {
        self.identity.calendar
    }

    /// What the training rows were scaled by.
    pub fn scaler(&self) -> &Scaler {
        &self.identity.scaler
    }

    /// What was calibrated.
    pub fn intervals(&self) -> Option<&Intervals> {
        self.intervals.as_ref()
    }

    /// The forecaster alone: scaled values in and out.
    pub fn forecaster(&self) -> &dyn Forecaster {
        &*self.forecaster
    }

    /// The version of this crate that it was fitted with.
    pub fn version(&self) -> &str {
        &self.version
    }
}
