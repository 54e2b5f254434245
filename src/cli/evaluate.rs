//! `longcast evaluate`: one task, its record on stdout.

use std::{
    ops::ControlFlow,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context;
use clap::Args;

use super::{Usage, assigned, print, progress, protocol, read_args::FileArgs};
use crate::{
    benchmark::{BenchObserver, Event, Init, Learning, Prepared, Protocol, Record, Task, run_task},
    forecaster::{Device, Registry},
};

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    longcast evaluate --dataset Synthetic --model repeat --lookback 96 --horizon 24\n  \
    longcast evaluate --dataset ETTh1 --model ridge --set level=last --lookback 336 --horizon 96 --json\n  \
    longcast evaluate --dataset ETTh1 --model repeat --lookback 96 --horizon 96 --drop-last 32")]
pub struct EvaluateArgs {
    /// A data set by name (see `longcast data list`), or a .csv, .csv.gz or .parquet file
    #[arg(long, value_name = "NAME|FILE")]
    dataset: String,
    /// A model by name; see `longcast models`
    #[arg(long)]
    model: String,
    /// Rows a forecast is made from
    #[arg(long)]
    lookback: usize,
    /// Rows that are forecast; sets of many series have their own
    #[arg(long)]
    horizon: Option<usize>,
    /// The preset that params start from; by default the one with the name of the model, if there is one
    #[arg(long, value_name = "NAME|none")]
    preset: Option<String>,
    /// Set a param of the model, e.g. penalty=0.1
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// All that is drawn at random follows from this
    #[arg(long, default_value_t = 2021)]
    seed: u64,
    /// Score only whole batches of this size, as papers did that dropped the last one
    #[arg(long, default_value_t = 0, hide_default_value = true, value_name = "BATCH")]
    drop_last: usize,
    /// How data is prepared and scored; see `longcast protocol list`
    #[arg(long, default_value = "strict", value_name = "NAME|FILE", conflicts_with = "drop_last")]
    protocol: String,
    /// Start from the weights in this folder, which `longcast pretrain` made
    #[arg(long, value_name = "DIR")]
    init: Option<PathBuf>,
    /// Learn from the first so many percent of the training windows only, e.g. 5%
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    few_shot: Option<f64>,
    /// Learn nothing: score weights that have not seen this data set
    #[arg(long, requires = "init", conflicts_with = "few_shot")]
    zero_shot: bool,
    /// Learn nothing: score weights as they are, even if they have learnt from this data set
    #[arg(long, requires = "init", conflicts_with_all = ["few_shot", "zero_shot"])]
    as_is: bool,
    /// Look for data here first
    #[arg(long)]
    data: Option<PathBuf>,
    /// Where networks compute: cpu, or cuda in a build that has it
    #[arg(long, default_value_t)]
    device: Device,
    #[command(flatten)]
    of_file: FileArgs,
    /// Print the record as JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: &EvaluateArgs, models: &Registry) -> anyhow::Result<ExitCode> {
    if args.horizon == Some(0) || args.lookback == 0 {
        return Err(Usage("--lookback and --horizon must be at least 1".into()).into());
    }
    let params = assigned(&args.set)?;
    let task = Task {
        preset: args.preset.clone(),
        params: models.resolve(&args.model, &params).map(|_| params)?,
        seed: args.seed,
        protocol: match args.drop_last {
            0 => protocol::find(&args.protocol)?.protocol,
            drop_last => Protocol { drop_last, ..Protocol::default() },
        },
        init: args.init.as_ref().map(Init::of),
        learning: match args.few_shot {
            Some(percent) => Learning::FewShot(percent),
            None if args.zero_shot => Learning::ZeroShot,
            None if args.as_is => Learning::AsIs,
            None => Learning::Full,
        },
        ..Task::named(&args.dataset, &args.model, args.lookback, args.horizon.unwrap_or(0))
    };
    progress::listen_for_interrupts()?;
    let mut bar = progress::Progress::new(1);
    let result = score(&task, args, models, &mut bar);
    bar.finish();
    let record = result.with_context(|| task.to_string())?;
    match args.json {
        true => print(&record.to_json()?)?,
        false => print(&describe(&record))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// "5%" or "5".
fn percent(text: &str) -> Result<f64, String> {
    match text.trim_end_matches('%').parse::<f64>() {
        Ok(percent) if percent > 0.0 && percent <= 100.0 => Ok(percent),
        _ => Err("a share of the windows, such as 5%".into()),
    }
}

fn score(task: &Task, args: &EvaluateArgs, models: &Registry, bar: &mut progress::Progress) -> anyhow::Result<Record> {
    let file = Path::new(&args.dataset);
    let data = if file.extension().is_some() {
        Prepared::new(&args.dataset, args.of_file.open(file)?, &task.protocol)?
    } else {
        args.of_file.not_for(&args.dataset)?;
        let catalogue = super::catalogue(args.data.as_deref())?;
        Prepared::open(&catalogue, &catalogue.dataset(&args.dataset)?.name, &task.protocol)?
    };
    let task = data.resolve(models, &Task { dataset: data.name().to_string(), ..task.clone() })?;
    let mut hear = |event: Event<'_>| -> ControlFlow<()> { bar.event(0, &task, event) };
    let _ = hear(Event::Started);
    Ok(run_task(models, &task, &data, args.device, None, &mut hear)?)
}

fn describe(record: &Record) -> String {
    let (scores, raw) = (&record.scores, &record.scores.raw);
    let maybe = |score: Option<f64>| score.map_or_else(|| "not defined".into(), |score| format!("{score:.4}"));
    let lines = [
        ("windows", format!("{} of {}", record.windows_scored, record.windows_possible)),
        ("scaled MSE", format!("{:.5}", scores.mse)),
        ("scaled MAE", format!("{:.5}", scores.mae)),
        ("scaled RMSE", format!("{:.5}", scores.rmse)),
        ("MSE", format!("{:.5}", raw.mse)),
        ("MAE", format!("{:.5}", raw.mae)),
        ("RMSE", format!("{:.5}", raw.rmse)),
        ("MASE", maybe(raw.mase)),
        ("RMSSE", maybe(raw.rmsse)),
        ("sMAPE %", format!("{:.4}", raw.smape)),
        ("MAPE %", maybe(raw.mape)),
        ("WAPE %", maybe(raw.wape)),
        ("fit", format!("{:.3} s", record.seconds.fit)),
        ("evaluate", format!("{:.3} s", record.seconds.evaluate)),
    ];
    let mut text = format!("{}\n", record.task);
    for (name, value) in lines {
        text += &format!("  {name:<12} {value}\n");
    }
    text
}
