//! One task: from a data set, split and scaled, to a record.

use std::{ops::ControlFlow, time::Instant};

use ndarray::Axis;

use super::{
    Event,
    pretrain::{Pretrained, Source},
    protocol::Protocol,
    record::{self, DataRecord, FORMAT, Machine, PeakMemory, Record, Seconds, Software},
    suite::{Init, Learning, Task},
};
use crate::{
    Error, Result,
    data::{Catalogue, Opened, Parts, Series},
    evaluator::{self, Evaluation, Yardstick},
    forecaster::{
        BuildContext, Checkpoint, Device, EpochReport, FitObserver, FitProgress, Intervals, Params, Registry,
    },
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
    /// What it was prepared by.
    protocol: Protocol,
    data: DataRecord,
}

impl Prepared {
    /// Opens the data set `name` and prepares it as `protocol` says.
    ///
    /// # Errors
    /// If it is not known by exactly this name, not there, or cannot be used.
    pub fn open(catalogue: &Catalogue, name: &str, protocol: &Protocol) -> Result<Self> {
        catalogue.exactly(name)?;
        Self::new(name, catalogue.open(name)?, protocol)
    }

    /// Opens the data set of `record` and prepares it as it was for that.
    ///
    /// # Errors
    /// As for [`open`](Self::open).
    pub fn open_again(catalogue: &Catalogue, record: &Record) -> Result<Self> {
        let Record { task, data, .. } = record;
        let opened = catalogue.open(&task.dataset)?.by(Some(data.calendar), None)?;
        let (mut splits, horizon) = split(&opened.series, &opened.parts)?;
        if let (Some(split), [own], [series]) = (&data.split, &mut splits[..], &opened.series[..]) {
            if split.train.end.max(split.valid.end).max(split.test.end) > series.len() {
                let message = format!("{} has {} rows now, and had {}", task.dataset, series.len(), data.rows);
                return Err(Error::other(message));
            }
            own.clone_from(split);
        }
        Self::of(&task.dataset, opened, splits, horizon, task.protocol.clone())
    }

    /// Splits and scales what was opened; each series by its own training rows.
    ///
    /// # Errors
    /// If the split does not fit the rows.
    pub fn new(name: &str, opened: Opened, protocol: &Protocol) -> Result<Self> {
        let opened = opened.by(protocol.calendar, protocol.split.as_ref())?;
        let (splits, horizon) = split(&opened.series, &opened.parts)?;
        Self::of(name, opened, splits, horizon, protocol.clone())
    }

    fn of(name: &str, opened: Opened, splits: Vec<Split>, horizon: Option<usize>, protocol: Protocol) -> Result<Self> {
        let Opened { series: raw, season, calendar, sha256, .. } = opened;
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
        Ok(Self { name: name.to_string(), raw, scaled, splits, yardsticks, horizon, protocol, data })
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
        let (preset, params) =
            resolved_params(models, &task.model, task.preset.as_deref(), &task.params, &self.name, horizon)?;
        let init = self.resolve_init(task)?;
        Ok(Task { params, preset, horizon, init, protocol: task.protocol.of_windows(), ..task.clone() })
    }

    /// The weights `task` starts from, looked into.
    fn resolve_init(&self, task: &Task) -> Result<Option<Init>> {
        let Some(Init { folder, .. }) = &task.init else {
            return match task.learning {
                Learning::ZeroShot | Learning::AsIs => {
                    Err(Error::other(format!("{} learns nothing: give pretrained weights to start from", task.name)))
                }
                Learning::Full | Learning::FewShot(_) => Ok(None),
            };
        };
        let pretrained = Pretrained::read(folder)?;
        if (&pretrained.model, pretrained.lookback) != (&task.model, task.lookback) {
            let Pretrained { model, lookback, .. } = pretrained;
            let message = format!("a pretrained {model} of lookback {lookback}, not a {task}", task = task.model);
            return Err(Error::file(folder, format!("{message} of lookback {}", task.lookback)));
        }
        // Under whatever name.
        let has_seen = |source: &Source| source.name == self.name || source.sha256 == self.data.sha256;
        if task.learning == Learning::ZeroShot && pretrained.datasets.iter().any(has_seen) {
            let remedy = "pretrain without it, or score it as it is, as what it is";
            return Err(Error::file(folder, format!("it has learnt from {}: no zero shot; {remedy}", self.name)));
        }
        let datasets = pretrained.names().map(String::from).collect();
        Ok(Some(Init { folder: folder.clone(), weights: pretrained.weights, datasets }))
    }

    /// Whether it is what `task` runs on.
    pub fn is_for(&self, task: &Task) -> bool {
        self.name == task.dataset && self.protocol.prepares_like(&task.protocol)
    }

    /// Whether it is prepared as it was for `record`.
    pub fn is_as_for(&self, record: &Record) -> bool {
        let DataRecord { calendar, split, .. } = &record.data;
        self.name == record.task.dataset && (&self.data.calendar, &self.data.split) == (calendar, split)
    }

    /// The data set's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// sha256 of its content.
    pub fn sha256(&self) -> &str {
        &self.data.sha256
    }

    /// How many series it has.
    pub fn series(&self) -> usize {
        self.raw.len()
    }

    /// Each variate as a series of its own, scaled, without timestamps, with its split.
    pub(super) fn channels(&self) -> Result<Vec<(Series, Split)>> {
        let mut channels = Vec::new();
        for (series, split) in self.scaled.iter().zip(&self.splits) {
            for (name, column) in series.variates().iter().zip(series.values().columns()) {
                let values = column.to_owned().insert_axis(Axis(1));
                channels.push((Series::new(series.name(), vec![], vec![name.clone()], values)?, split.clone()));
            }
        }
        Ok(channels)
    }

    /// The name of the record of a resolved task on this data.
    ///
    /// # Errors
    /// If the task cannot be written down.
    pub fn file_name(&self, task: &Task) -> Result<String> {
        record::file_name(task, &self.data)
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

/// The name of the preset, and the params of it with `params` laid over them and every default filled in.
pub(super) fn resolved_params(
    models: &Registry,
    model: &str,
    preset: Option<&str>,
    params: &Params,
    dataset: &str,
    horizon: usize,
) -> Result<(Option<String>, Params)> {
    let name = models.preset(model, preset)?.map(|preset| preset.name.clone());
    let lower = models.preset_params(model, preset, dataset, horizon)?;
    Ok((name, models.resolve(model, &lower.overlaid(params))?))
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
pub(super) struct Fitting<'a> {
    hear: &'a mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
    checkpoint: Option<Checkpoint>,
    pub curve: Vec<EpochReport>,
    /// How many epochs of the curve an earlier run, that was interrupted, went through.
    pub earlier: usize,
}

impl<'a> Fitting<'a> {
    pub fn new(hear: &'a mut dyn FnMut(Event<'_>) -> ControlFlow<()>, checkpoint: Option<Checkpoint>) -> Self {
        Self { hear, checkpoint, curve: vec![], earlier: 0 }
    }

    /// What an earlier run took for the epochs that this one did not go through.
    pub fn earlier_seconds(&self) -> f64 {
        self.curve[..self.earlier].iter().map(|epoch| epoch.seconds).sum()
    }
}

impl FitObserver for Fitting<'_> {
    fn progress(&mut self, progress: FitProgress) -> ControlFlow<()> {
        (self.hear)(Event::Fitting(progress))
    }

    fn epoch(&mut self, report: &EpochReport) -> ControlFlow<()> {
        self.curve.push(*report);
        (self.hear)(Event::Epoch(report))
    }

    fn checkpoint(&self) -> Option<Checkpoint> {
        self.checkpoint.clone()
    }

    fn warn(&mut self, text: &str) {
        // Whoever ends the run there ends it with the next step.
        let _ = (self.hear)(Event::Warning(text));
    }

    fn resumed(&mut self, curve: &[EpochReport]) {
        self.curve = curve.to_vec();
        self.earlier = curve.len();
    }
}

/// Fits and scores one resolved task. A long fit leaves how far it has come at `checkpoint`, and goes on from
/// what an interrupted one left there.
///
/// # Errors
/// If the model cannot be built, fitted or scored on this data, or `hear` asks to stop
/// ([`Error::Interrupted`]).
pub fn run_task(
    models: &Registry,
    task: &Task,
    data: &Prepared,
    device: Device,
    checkpoint: Option<Checkpoint>,
    hear: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
) -> Result<Record> {
    let memory = PeakMemory::from_here();
    let cpu_before = record::cpu_seconds();
    let shape = WindowShape::of(&data.scaled[0], task.lookback, task.horizon)?;
    let context = BuildContext { shape, season: data.data.season, seed: task.seed, device };
    let mut forecaster = models.build(&task.model, &task.params, &context)?;
    if let Some(init) = &task.init {
        forecaster.load(&init.folder)?;
    }
    let possible = data.windows(Part::Test, shape)?;
    let windows_possible = possible.len();
    let test = possible.whole_batches(task.protocol.drop_last)?;

    let start = Instant::now();
    let mut fitting = Fitting::new(hear, checkpoint);
    let valid = || data.windows(Part::Valid, shape)?.dropping(task.protocol.valid_drop_last, task.seed);
    let windows = match task.learning {
        Learning::Full | Learning::FewShot(_) => {
            let train = data.windows(Part::Train, shape)?;
            let train = match task.learning {
                Learning::FewShot(percent) => train.share(percent / 100.0)?,
                _ => train,
            };
            let valid = valid()?;
            forecaster.fit(&train, &valid, &mut fitting)?;
            (train.len(), valid.len())
        }
        // There need not be any windows to learn from.
        Learning::ZeroShot | Learning::AsIs => (0, 0),
    };
    let fit = start.elapsed().as_secs_f64() + fitting.earlier_seconds();
    let Fitting { curve, earlier, .. } = fitting;

    let start = Instant::now();
    let total = test.len();
    let mut progress = |done| hear(Event::Scoring { done, total });
    let intervals = match task.levels.is_empty() {
        true => None,
        false => Some(Intervals::calibrate(&*forecaster, &valid()?, &task.levels)?),
    };
    let (raw, yardsticks, intervals) = (&data.raw, &data.yardsticks, intervals.as_ref());
    let Evaluation { scores, intervals } =
        evaluator::evaluate(&*forecaster, intervals, &test, raw, yardsticks, evaluator::BATCH, &mut progress)?;
    let evaluate = start.elapsed().as_secs_f64();
    // Of an earlier run it is not known.
    let cpu = record::cpu_seconds().zip(cpu_before).filter(|_| earlier == 0).map(|(now, before)| now - before);
    let examples = evaluator::examples(&*forecaster, &test, &data.raw, &data.yardsticks)?;

    Ok(Record {
        format: FORMAT,
        task: task.clone(),
        data: data.data.clone(),
        windows_train: windows.0,
        windows_valid: windows.1,
        windows_scored: test.len(),
        windows_possible,
        curve,
        scores,
        intervals,
        examples,
        software: Software::this(),
        machine: Machine::this(device),
        seconds: Seconds { fit, evaluate, cpu },
        peak_memory_mb: memory.megabytes(),
    })
}
