//! `longcast predict`: new rows for a pipeline that was fitted before.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context;
use clap::Args;

use super::{
    output::{Output, json},
    source::{Source, SourceArgs},
};
use crate::{
    cli::forecasts::{outlook, table},
    forecaster::{Pipeline, Registry},
};

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    longcast predict models/load load-of-today.csv\n  \
    longcast predict models/load load-of-today.csv --output next.csv --plot next.svg")]
pub struct PredictArgs {
    /// The folder that `longcast fit` made
    dir: PathBuf,
    #[command(flatten)]
    source: SourceArgs,
    /// Rows that are forecast, for a model that can forecast any number
    #[arg(long, value_name = "ROWS")]
    horizon: Option<usize>,
    /// Write the forecast here, as .csv, .parquet or .json, and not to stdout
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Draw what was and what is forecast, as .svg, .png or .html
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: &PredictArgs, models: &Registry) -> anyhow::Result<ExitCode> {
    let output = Output { file: args.output.as_ref(), plot: args.plot.as_ref(), json: args.json };
    output.check()?;
    let pipeline = match args.horizon {
        Some(horizon) => Pipeline::load_with_horizon(&args.dir, models, horizon)?,
        None => Pipeline::load(&args.dir, models)?,
    };
    let mut source = Source::read(&args.source)?;
    source.series = source.series.select(pipeline.variates())?;
    let forecast = pipeline.forecast(&source.series).with_context(|| args.source.file.display().to_string())?;
    let shape = pipeline.shape();
    let facts = [format!("{} (lookback {}) from {}", pipeline.model(), shape.lookback, args.dir.display())];
    eprintln!("longcast: {}", facts[0]);
    let table = table(&forecast, &source.time_column, &[]);
    output.write(
        &table,
        || json(&table, &pipeline, None),
        || outlook(&source.series, &pipeline, &forecast, &[]),
        &facts,
    )?;
    Ok(ExitCode::SUCCESS)
}
