//! `longcast fit`: a pipeline in a folder, for `predict`, `serve` and programs.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context;
use clap::Args;
use serde_json::json;

use super::{
    ModelArgs,
    choice::fitted,
    output::check_folder,
    source::{Source, SourceArgs},
};
use crate::{
    cli::{forecasts::check_names, print, progress},
    forecaster::Registry,
};

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    longcast fit load.csv --horizon 96 --save models/load\n  \
    longcast fit load.csv --horizon 96 --model itransformer --lookback 192 --save models/load")]
pub struct FitArgs {
    /// Rows that are forecast
    #[arg(long, value_name = "ROWS")]
    horizon: usize,
    /// The folder to keep it in; what stands there is replaced
    #[arg(long, value_name = "DIR")]
    save: PathBuf,
    /// Print what was fitted as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    source: SourceArgs,
    #[command(flatten)]
    model: ModelArgs,
}

pub fn run(args: &FitArgs, models: &Registry) -> anyhow::Result<ExitCode> {
    check_folder("--save", &args.save)?;
    let source = Source::read(&args.source)?;
    check_names(source.series.variates(), &args.model.level)?;
    progress::listen_for_interrupts()?;
    let mut work = progress::Work::new();
    let choice = fitted(&args.model, &source, args.horizon, &[], models, &mut work);
    work.finish();
    let choice = choice.with_context(|| args.source.file.display().to_string())?;
    choice.pipeline.save(&args.save)?;
    for line in choice.table().iter().chain(&choice.facts(&source)) {
        say!("longcast: {line}");
    }
    let (pipeline, dir) = (&choice.pipeline, args.save.display());
    match args.json {
        true => {
            let shape = pipeline.shape();
            let fitted = json!({
                "folder": dir.to_string(),
                "model": pipeline.model(),
                "params": pipeline.params(),
                "lookback": shape.lookback,
                "horizon": shape.horizon,
                "variates": pipeline.variates(),
                "fitted_on_all_rows": choice.refitted,
            });
            print(&format!("{}\n", serde_json::to_string_pretty(&fitted)?))?;
        }
        false => print(&format!("{} in {dir}\n", pipeline.model()))?,
    }
    Ok(ExitCode::SUCCESS)
}
