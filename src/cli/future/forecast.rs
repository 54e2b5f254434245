//! `longcast forecast`: past the end of a file, in one command.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context;
use clap::Args;

use super::{
    ModelArgs,
    choice::{fitted, known},
    output::{OutputArgs, json},
    source::{Source, SourceArgs},
};
use crate::{
    cli::{
        Usage,
        forecasts::{check_names, legible, outlook, table},
        progress,
    },
    forecaster::Registry,
};

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    longcast forecast datasets/sample/air-passengers.csv --horizon 24 --plot out.svg\n  \
    longcast forecast load.csv --horizon 96 --model ridge --target power --output next.parquet\n  \
    longcast forecast sales.csv --horizon 12 --within 5min --level 50,90 --json")]
pub struct ForecastArgs {
    /// Rows that are forecast
    #[arg(long, value_name = "ROWS")]
    horizon: usize,
    /// Forecast only these columns; the others are still learnt from
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    target: Vec<String>,
    /// What is known of the future already; no model here can use it yet
    #[arg(long, value_name = "FILE")]
    known_future: Option<PathBuf>,
    #[command(flatten)]
    source: SourceArgs,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    output: OutputArgs,
}

pub fn run(args: &ForecastArgs, models: &Registry) -> anyhow::Result<ExitCode> {
    if let Some(file) = &args.known_future {
        let message = "no model here uses what is known of the future: leave --known-future out";
        return Err(Usage(format!("--known-future {}: {message}", file.display())).into());
    }
    args.output.check()?;
    let source = Source::read(&args.source)?;
    known(&args.target, &source)?;
    check_names(source.series.variates(), &args.model.level)?;
    progress::listen_for_interrupts()?;
    let mut work = progress::Work::new();
    let choice = fitted(&args.model, &source, args.horizon, &args.target, models, &mut work);
    work.finish();
    let choice = choice.with_context(|| args.source.file.display().to_string())?;
    let forecast = legible(&choice.pipeline, &source.series)?;
    let facts = choice.facts(&source);
    for line in choice.table().iter().chain(&facts) {
        say!("longcast: {line}");
    }
    let table = table(&forecast, &source.time_column, &args.target);
    args.output.write(
        &table,
        || json(&table, &choice.pipeline, Some(&choice)),
        || outlook(&source.series, &choice.pipeline, &forecast, &args.target),
        &facts,
    )?;
    Ok(ExitCode::SUCCESS)
}
