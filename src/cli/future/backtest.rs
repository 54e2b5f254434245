//! `longcast backtest`: how forecasts would have gone, from one origin after the other.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context;
use clap::Args;
use serde::Serialize;
use serde_json::json;

use super::{
    ModelArgs,
    choice::fitted,
    output::{check_file, ending_of},
    source::{Source, SourceArgs},
};
use crate::{
    cli::{Usage, print, progress},
    data::{Series, loader::written},
    evaluator::{Evaluation, IntervalScores, LevelScores, evaluate_pipeline},
    forecaster::{Pipeline, Registry},
};

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    longcast backtest load.csv --horizon 24\n  \
    longcast backtest load.csv --horizon 24 --model ridge --origins 30 --every 24 --refit 7\n  \
    longcast backtest load.csv --horizon 24 --train-rows 8760 --json")]
pub struct BacktestArgs {
    /// Rows that are forecast from each origin
    #[arg(long, value_name = "ROWS")]
    horizon: usize,
    /// Origins to forecast from; the last one leaves one horizon of rows
    #[arg(long, default_value_t = 10, value_name = "COUNT")]
    origins: usize,
    /// Rows from one origin to the next; a horizon by default
    #[arg(long, value_name = "ROWS")]
    every: Option<usize>,
    /// Fit anew at each so-manieth origin; between them the last fit is used
    #[arg(long, default_value_t = 1, value_name = "COUNT")]
    refit: usize,
    /// Learn from so many rows before an origin and no more; without it from all
    #[arg(long, value_name = "ROWS")]
    train_rows: Option<usize>,
    /// Write the table here, as .csv or .json, and not to stdout
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    source: SourceArgs,
    #[command(flatten)]
    model: ModelArgs,
}

/// What came of one origin.
#[derive(Debug, Serialize)]
struct Origin {
    /// The first row that was forecast.
    row: usize,
    time: Option<String>,
    model: String,
    lookback: usize,
    /// Whether it was fitted for this origin.
    fitted: bool,
    mae: f64,
    rmse: f64,
    smape: f64,
    mase: Option<f64>,
    intervals: Option<IntervalScores>,
}

pub fn run(args: &BacktestArgs, models: &Registry) -> anyhow::Result<ExitCode> {
    if [args.horizon, args.origins, args.refit].contains(&0) || [args.every, args.train_rows].contains(&Some(0)) {
        return Err(Usage("--horizon, --origins, --every, --refit and --train-rows must be at least 1".into()).into());
    }
    check_file("--output", args.output.as_deref(), &["csv", "json"])?;
    let source = Source::read(&args.source)?;
    progress::listen_for_interrupts()?;
    let mut work = progress::Work::new();
    let origins = roll(args, &source, models, &mut work);
    work.finish();
    let origins = origins.with_context(|| args.source.file.display().to_string())?;
    let as_json = args.json || args.output.as_deref().and_then(ending_of).is_some_and(|ending| ending == "json");
    let text = match as_json {
        true => serde_json::to_string_pretty(&json!({"origins": origins, "mean": mean(&origins)}))? + "\n",
        false => csv(&origins)?,
    };
    match &args.output {
        Some(file) => crate::benchmark::write_whole(file, text.as_bytes())?,
        None => print(&text)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn roll(
    args: &BacktestArgs,
    source: &Source,
    models: &Registry,
    work: &mut progress::Work,
) -> anyhow::Result<Vec<Origin>> {
    let (rows, horizon, every) = (source.series.len(), args.horizon, args.every.unwrap_or(args.horizon));
    let reach = (args.origins - 1).saturating_mul(every).saturating_add(horizon);
    let first = rows.checked_sub(reach).filter(|first| *first > 0 && horizon > 0).ok_or_else(|| {
        Usage(format!("{rows} rows are too few for {} origins {every} apart and a horizon of {horizon}", args.origins))
    })?;
    // The same rows for every origin's yardstick: what could be known at the first one.
    let seen = first.saturating_sub(args.train_rows.unwrap_or(first))..first;
    let mut pipeline: Option<Pipeline> = None;
    let mut origins = Vec::new();
    for number in 0..args.origins {
        let row = first + number * every;
        work.about(&format!("origin {} of {}", number + 1, args.origins));
        let from = args.train_rows.map_or(0, |rows| row.saturating_sub(rows));
        let fit = pipeline.is_none() || number % args.refit == 0;
        if fit {
            let known =
                Source { series: source.series.rows(from..row), time_column: source.time_column.clone(), ..*source };
            pipeline = Some(fitted(&args.model, &known, horizon, &[], models, work)?.pipeline);
        }
        let pipeline = pipeline.as_ref().expect("the first origin fits one");
        let mut on = |_| progress::interrupted();
        let evaluation = evaluate_pipeline(pipeline, &source.series, row..row + horizon, seen.clone(), &mut on)?;
        origins.push(origin(pipeline, &source.series, row, fit, evaluation));
    }
    Ok(origins)
}

fn origin(
    pipeline: &Pipeline,
    series: &Series,
    row: usize,
    fitted: bool,
    Evaluation { scores, intervals }: Evaluation,
) -> Origin {
    let raw = scores.raw;
    Origin {
        row,
        time: series.timestamps().get(row).map(|time| written(time, series.timestamps())),
        model: pipeline.model().to_string(),
        lookback: pipeline.shape().lookback,
        fitted,
        mae: raw.mae,
        rmse: raw.rmse,
        smape: raw.smape,
        mase: raw.mase,
        intervals,
    }
}

/// The means over all origins; MASE where every origin has one.
fn mean(origins: &[Origin]) -> Origin {
    let count = origins.len() as f64;
    let mean = |value: &dyn Fn(&Origin) -> f64| origins.iter().map(value).sum::<f64>() / count;
    let masses: Option<Vec<f64>> = origins.iter().map(|origin| origin.mase).collect();
    let levels = origins[0].intervals.as_ref().map_or(0, |intervals| intervals.levels.len());
    let level = |index: usize| {
        let of = |origin: &Origin| origin.intervals.as_ref().map(|intervals| intervals.levels[index].clone());
        let all: Vec<LevelScores> = origins.iter().filter_map(of).collect();
        let mean = |value: &dyn Fn(&LevelScores) -> f64| all.iter().map(value).sum::<f64>() / count;
        let scores: Option<Vec<f64>> = all.iter().map(|level| level.msis).collect();
        LevelScores {
            level: all[0].level,
            coverage: mean(&|level| level.coverage),
            width: mean(&|level| level.width),
            msis: scores.map(|scores| scores.iter().sum::<f64>() / count),
        }
    };
    let losses = origins.iter().map(|origin| origin.intervals.as_ref().and_then(|all| all.weighted_quantile_loss));
    let losses: Option<Vec<f64>> = losses.collect();
    let intervals = (levels > 0).then(|| IntervalScores {
        levels: (0..levels).map(level).collect(),
        weighted_quantile_loss: losses.map(|losses| losses.iter().sum::<f64>() / count),
    });
    Origin {
        row: origins[0].row,
        time: None,
        model: "mean".into(),
        lookback: 0,
        fitted: false,
        mae: mean(&|origin| origin.mae),
        rmse: mean(&|origin| origin.rmse),
        smape: mean(&|origin| origin.smape),
        mase: masses.map(|masses| masses.iter().sum::<f64>() / count),
        intervals,
    }
}

fn csv(origins: &[Origin]) -> anyhow::Result<String> {
    let mut writer = csv::Writer::from_writer(vec![]);
    let levels: Vec<f64> =
        origins[0].intervals.iter().flat_map(|scores| &scores.levels).map(|level| level.level).collect();
    let mut header: Vec<String> =
        ["origin", "time", "model", "lookback", "fitted", "mae", "rmse", "smape", "mase"].map(String::from).into();
    header.extend(levels.iter().flat_map(|level| [format!("inside_{level}"), format!("msis_{level}")]));
    writer.write_record(&header)?;
    let number = |value: f64| format!("{value:.5}");
    let maybe = |value: Option<f64>| value.map(number).unwrap_or_default();
    let mean = mean(origins);
    for origin in origins.iter().chain([&mean]) {
        let is_mean = std::ptr::eq(origin, &mean);
        let count = |value: usize| if is_mean { String::new() } else { value.to_string() };
        let mut line = vec![
            count(origin.row),
            origin.time.clone().unwrap_or_default(),
            origin.model.clone(),
            count(origin.lookback),
            if is_mean { String::new() } else { origin.fitted.to_string() },
            number(origin.mae),
            number(origin.rmse),
            number(origin.smape),
            maybe(origin.mase),
        ];
        let scores = origin.intervals.iter().flat_map(|scores| &scores.levels);
        line.extend(scores.flat_map(|level| [format!("{:.1}", level.coverage), maybe(level.msis)]));
        writer.write_record(&line)?;
    }
    Ok(String::from_utf8(writer.into_inner()?)?)
}
