//! `longcast protocol`: what papers did differently, and what that does to a score.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context;
use clap::{Args, Subcommand};

use super::{print, progress};
use crate::{
    Error,
    benchmark::{BenchObserver, Event, NamedProtocol, Prepared, Record, Task, run_task},
    data::Catalogue,
    forecaster::{Device, Registry},
    report::{Compared, Report},
};

#[derive(Debug, Subcommand)]
pub enum ProtocolCommand {
    /// List the protocols
    List {
        /// Write JSON
        #[arg(long)]
        json: bool,
    },
    /// Show what differs between two, on one data set and in the scores of one model
    Diff(DiffArgs),
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    longcast protocol diff strict drop-last-32 --dataset ETTh2\n  \
    longcast protocol diff strict mine.toml --dataset Exchange --model ridge --horizons 96,720")]
pub struct DiffArgs {
    /// A protocol by name, or a file such as those in protocols/
    #[arg(value_name = "NAME|FILE")]
    one: String,
    /// Another
    #[arg(value_name = "NAME|FILE")]
    other: String,
    /// A data set by name (see `longcast data list`)
    #[arg(long)]
    dataset: String,
    /// The model that is scored; one that learns shows what the validation windows do
    #[arg(long, default_value = "repeat")]
    model: String,
    /// Rows a forecast is made from
    #[arg(long, default_value_t = 96)]
    lookback: usize,
    /// Rows that are forecast
    #[arg(long, value_name = "STEPS,...", value_delimiter = ',', default_values_t = [96, 192, 336, 720])]
    horizons: Vec<usize>,
    /// All that is drawn at random follows from this
    #[arg(long, default_value_t = 2021)]
    seed: u64,
    /// Look for data here first
    #[arg(long)]
    data: Option<PathBuf>,
    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

pub fn run(command: &ProtocolCommand, models: &Registry) -> anyhow::Result<ExitCode> {
    match command {
        ProtocolCommand::List { json } => list(*json)?,
        ProtocolCommand::Diff(args) => diff(args, models)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The protocol of that name, or in that file.
pub fn find(name: &str) -> crate::Result<NamedProtocol> {
    match Path::new(name).extension().is_some() {
        true => NamedProtocol::read(Path::new(name)),
        false => NamedProtocol::named(name),
    }
}

fn list(json: bool) -> anyhow::Result<()> {
    let all = NamedProtocol::builtin()?;
    if json {
        return Ok(print(&(serde_json::to_string_pretty(&all)? + "\n"))?);
    }
    for NamedProtocol { name, about, .. } in all {
        print(&format!("{name:<24}{about}\n"))?;
    }
    Ok(())
}

fn diff(args: &DiffArgs, models: &Registry) -> anyhow::Result<()> {
    let protocols = [find(&args.one)?, find(&args.other)?];
    let catalogue = super::catalogue(args.data.as_deref())?;
    progress::listen_for_interrupts()?;
    let mut bar = progress::Progress::new(2 * args.horizons.len());
    let scored = protocols.each_ref().map(|protocol| score(protocol, args, models, &catalogue, &mut bar));
    bar.finish();
    let [one, other] = scored;
    let compared = Compared::of(&Report::of_records(one?)?, &Report::of_records(other?)?)?;
    match args.json {
        true => print(&format!("{}\n", serde_json::to_string_pretty(&compared)?))?,
        false => print(&compared.to_markdown(&protocols[0].name, &protocols[1].name))?,
    }
    Ok(())
}

fn score(
    protocol: &NamedProtocol,
    args: &DiffArgs,
    models: &Registry,
    catalogue: &Catalogue,
    bar: &mut progress::Progress,
) -> anyhow::Result<Vec<Record>> {
    let data = Prepared::open(catalogue, &catalogue.dataset(&args.dataset)?.name, &protocol.protocol)?;
    let mut records = Vec::new();
    for horizon in &args.horizons {
        let task = Task {
            seed: args.seed,
            protocol: protocol.protocol.clone(),
            ..Task::named(data.name(), &args.model, args.lookback, *horizon)
        };
        let task = data.resolve(models, &task)?;
        let _ = bar.event(records.len(), &task, Event::Started);
        let mut hear = |event: Event<'_>| bar.event(records.len(), &task, event);
        match run_task(models, &task, &data, Device::Cpu, None, &mut hear) {
            Ok(record) => records.push(record),
            Err(error @ Error::TooFewRows { .. }) if !records.is_empty() => {
                say!("longcast: {}: {task}: {error}", protocol.name);
            }
            Err(error) => return Err(error).with_context(|| format!("{}: {task}", protocol.name)),
        }
    }
    Ok(records)
}
