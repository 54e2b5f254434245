//! `longcast predict`: new rows for a pipeline that was fitted before.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context;
use clap::Args;

use super::{
    output::{OutputArgs, json},
    source::{Source, SourceArgs},
};
use crate::{
    cli::{
        Usage,
        forecasts::{legible, outlook, table},
    },
    forecaster::{Pipeline, Registry},
};

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    longcast predict models/load load-of-today.csv\n  \
    longcast predict models/load load-of-today.csv --output next.csv --plot next.svg")]
pub struct PredictArgs {
    /// The folder that `longcast fit` made
    dir: PathBuf,
    /// Rows that are forecast, for a model that can forecast any number
    #[arg(long, value_name = "ROWS")]
    horizon: Option<usize>,
    #[command(flatten)]
    source: SourceArgs,
    #[command(flatten)]
    output: OutputArgs,
}

pub fn run(args: &PredictArgs, models: &Registry) -> anyhow::Result<ExitCode> {
    if args.horizon == Some(0) {
        return Err(Usage("--horizon must be at least 1".into()).into());
    }
    args.output.check()?;
    let pipeline = match args.horizon {
        Some(horizon) => Pipeline::load_with_horizon(&args.dir, models, horizon)?,
        None => Pipeline::load(&args.dir, models)?,
    };
    let mut source = Source::read(&args.source)?;
    source.series = source.series.select(pipeline.variates())?;
    let forecast = legible(&pipeline, &source.series).with_context(|| args.source.file.display().to_string())?;
    let shape = pipeline.shape();
    let facts = [format!("{} (lookback {}) from {}", pipeline.model(), shape.lookback, args.dir.display())];
    say!("longcast: {}", facts[0]);
    let table = table(&forecast, &source.time_column, &[]);
    args.output.write(
        &table,
        || json(&table, &pipeline, None),
        || outlook(&source.series, &pipeline, &forecast, &[]),
        &facts,
    )?;
    Ok(ExitCode::SUCCESS)
}
