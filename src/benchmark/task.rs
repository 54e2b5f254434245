//! One task: from a data set, split and scaled, to a record.

use std::{ops::ControlFlow, time::Instant};

use super::{
    Event,
    record::{self, DataKey, DataRecord, FORMAT, Machine, Record, Seconds, Software},
    suite::Task,
};
use crate::{
    Error, Result,
    data::{Catalogue, Opened, Parts, Series},
    evaluator::{self, Yardstick},
    forecaster::{BuildContext, Device, EpochReport, FitObserver, FitProgress, Registry},
    windows::{Part, Scaler, Split, WindowShape, Windows},
};

/// A data set read, split and scaled: what all tasks on it share.
#[derive(Debug)]
pub struct Prepared {
    name: String,
    raw: Vec<Series>,
    scaled: Vec<Series>,
    splits: Vec<Split>,
    yardsticks: Vec<Yardstick>,
    /// The horizon of a set of many series; single series have none of their own.
    horizon: Option<usize>,
    data: DataRecord,
}

impl Prepared {
    /// Opens the data set `name`.
    ///
    /// # Errors
    /// If it is not known, not there, or cannot be used.
    pub fn open(catalogue: &Catalogue, name: &str) -> Result<Self> {
        Self::new(name, catalogue.open(name)?)
    }

    /// Splits and scales what was opened; each series by its own training rows.
    ///
    /// # Errors
    /// If the split does not fit the rows.
    pub fn new(name: &str, opened: Opened) -> Result<Self> {
        let Opened { series, parts, season, calendar, sha256 } = opened;
        let (splits, horizon) = split(&series, &parts)?;
        let raw = series;
        let scalers: Vec<Scaler> = raw.iter().zip(&splits).map(|(raw, split)| Scaler::fit(raw, split)).collect();
        let scaled = raw.iter().zip(&scalers).map(|(raw, scaler)| scaler.transform(raw)).collect::<Result<_>>()?;
        let single = horizon.is_none();
        let data = DataRecord {
            sha256,
            rows: raw.iter().map(Series::len).sum(),
            variates: raw.first().map_or(0, |series| series.variates().len()),
            series: raw.len(),
            season,
            calendar,
            split: single.then(|| splits[0].clone()),
            scaler: single.then(|| scalers[0].clone()),
        };
        let yardsticks = raw
            .iter()
            .zip(&splits)
            .zip(scalers)
            .map(|((raw, split), scaler)| {
                // In a set of many series all rows before the test rows are the training sample.
                let train = if horizon.is_some() { 0..split.test.start } else { split.train.clone() };
                Yardstick::new(raw, train, season, scaler)
            })
            .collect();
        Ok(Self { name: name.to_string(), raw, scaled, splits, yardsticks, horizon, data })
    }

    /// `task` as it will run and be recorded: the params of its preset and every default filled in.
    ///
    /// # Errors
    /// If its model, its preset or one of its params is unknown, or it has no horizon.
    pub fn resolve(&self, models: &Registry, task: &Task) -> Result<Task> {
        let horizon = match (task.horizon, self.horizon) {
            (0, Some(horizon)) => horizon,
            (0, None) => return Err(Error::other(format!("{} has no horizon of its own: give horizons", self.name))),
            (horizon, Some(own)) if horizon != own => {
                return Err(Error::other(format!("the horizon of {} is {own}, not {horizon}", self.name)));
            }
            (horizon, _) => horizon,
        };
        let preset = models.preset(&task.model, task.preset.as_deref())?;
        let params = preset.map(|preset| preset.params(&self.name, horizon)).unwrap_or_default();
        let params = models.resolve(&task.model, &params.overlaid(&task.params))?;
        Ok(Task { params, preset: preset.map(|preset| preset.name.clone()), horizon, ..task.clone() })
    }

    /// The name of the record of a resolved task on this data.
    ///
    /// # Errors
    /// If the task cannot be written down.
    pub fn file_name(&self, task: &Task) -> Result<String> {
        let DataRecord { sha256, season, calendar, split, .. } = &self.data;
        record::file_name(task, &DataKey { sha256, season: *season, calendar: *calendar, split: split.as_ref() })
    }

    fn windows(&self, part: Part, shape: WindowShape) -> Result<Windows<'_>> {
        let targets: Vec<_> = self.splits.iter().map(|split| split.targets(part, shape.lookback)).collect();
        match (self.horizon, part) {
            // Methods may use all that came before, and every series is scored.
            (Some(_), Part::Test) => Windows::whole_past(&self.scaled, &targets, shape),
            _ => Windows::new(&self.scaled, &targets, shape),
        }
    }
}

// The split of each series, and the horizon of a collection. A series of a collection learns from
// its training rows less the last horizon, and chooses by that.
fn split(series: &[Series], parts: &Parts) -> Result<(Vec<Split>, Option<usize>)> {
    match parts {
        Parts::Rule(rule) => {
            let splits = series.iter().map(|series| rule.split(series.len())).collect::<Result<_>>()?;
            Ok((splits, None))
        }
        Parts::TrainRows(rows) => {
            let mut horizon = None;
            let splits = series.iter().zip(rows).map(|(series, rows)| {
                let own = series.len() - rows;
                if *horizon.get_or_insert(own) != own {
                    return Err(Error::other(format!("{}: {own} test values, unlike other series", series.name())));
                }
                let train = rows.saturating_sub(own).max(1).min(*rows);
                Ok(Split {
                    train: 0..train,
                    valid: train..*rows,
                    test: *rows..series.len(),
                    lookback_reaches_back: true,
                })
            });
            Ok((splits.collect::<Result<_>>()?, horizon))
        }
    }
}

/// Passes on how fitting goes, and keeps the training curve.
struct Fitting<'a> {
    hear: &'a mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
    curve: Vec<EpochReport>,
}

impl FitObserver for Fitting<'_> {
    fn progress(&mut self, progress: FitProgress) -> ControlFlow<()> {
        (self.hear)(Event::Fitting(progress))
    }

    fn epoch(&mut self, report: &EpochReport) -> ControlFlow<()> {
        self.curve.push(*report);
        (self.hear)(Event::Epoch(report))
    }
}

/// Fits and scores one resolved task.
///
/// # Errors
/// If the model cannot be built, fitted or scored on this data, or `hear` asks to stop
/// ([`Error::Interrupted`]).
pub fn run_task(
    models: &Registry,
    task: &Task,
    data: &Prepared,
    device: Device,
    hear: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
) -> Result<Record> {
    let shape = WindowShape::of(&data.scaled[0], task.lookback, task.horizon)?;
    let context = BuildContext { shape, season: data.data.season, seed: task.seed, device };
    let mut forecaster = models.build(&task.model, &task.params, &context)?;
    let (train, valid) = (data.windows(Part::Train, shape)?, data.windows(Part::Valid, shape)?);
    let possible = data.windows(Part::Test, shape)?;
    let windows_possible = possible.len();
    let test = possible.whole_batches(task.protocol.drop_last)?;

    let start = Instant::now();
    let mut fitting = Fitting { hear, curve: vec![] };
    forecaster.fit(&train, &valid, &mut fitting)?;
    let curve = fitting.curve;
    let fit = start.elapsed().as_secs_f64();

    let start = Instant::now();
    let total = test.len();
    let mut progress = |done| hear(Event::Scoring { done, total });
    let scores =
        evaluator::evaluate(&*forecaster, &test, &data.raw, &data.yardsticks, evaluator::BATCH, &mut progress)?;
    let evaluate = start.elapsed().as_secs_f64();

    Ok(Record {
        format: FORMAT,
        task: task.clone(),
        data: data.data.clone(),
        windows_train: train.len(),
        windows_valid: valid.len(),
        windows_scored: test.len(),
        windows_possible,
        curve,
        scores,
        software: Software::this(),
        machine: Machine::this(device),
        seconds: Seconds { fit, evaluate },
    })
}
