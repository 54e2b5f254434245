//! `longcast pretrain`: one model on many data sets, kept in a folder.

use std::{ops::ControlFlow, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::Context;
use clap::Args;

use super::{Usage, print, progress};
use crate::{
    benchmark::{BenchObserver, Event, Prepared, PretrainPlan, Pretrained, Protocol, Task, pretrain, unfinished_of},
    forecaster::{Device, Params, Registry},
};

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    longcast pretrain --datasets ETTh2,ETTm1,ETTm2,Weather --model gpht --preset gpht-small --save models/without-etth1\n  \
    longcast evaluate --dataset ETTh1 --model gpht --preset gpht-small --init models/without-etth1 --zero-shot \\\n    \
    --lookback 336 --horizon 720")]
pub struct PretrainArgs {
    /// Data sets by name (see `longcast data list`); every variate of each is learnt from
    #[arg(long, value_name = "NAME,NAME,…", value_delimiter = ',', required = true)]
    datasets: Vec<String>,
    /// A model by name; see `longcast models`
    #[arg(long)]
    model: String,
    /// The folder to keep it in; it must not be there yet
    #[arg(long, value_name = "DIR")]
    save: PathBuf,
    /// Rows a forecast is made from
    #[arg(long, default_value_t = 336)]
    lookback: usize,
    /// Rows that are forecast; a model that forecasts any number has its own to learn from
    #[arg(long, default_value_t = 48)]
    horizon: usize,
    /// The preset that params start from; by default the one with the name of the model, if there is one
    #[arg(long, value_name = "NAME|none")]
    preset: Option<String>,
    /// Set a param of the model, e.g. training.epochs=3
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Learn as much from each data set, however many windows and variates it has
    #[arg(long)]
    balanced: bool,
    /// All that is drawn at random follows from this
    #[arg(long, default_value_t = 2021)]
    seed: u64,
    /// Look for data here first
    #[arg(long)]
    data: Option<PathBuf>,
    /// Keep what has been learnt beside the folder, after each epoch from so many seconds on: the same command goes on
    /// from it
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    checkpoint_after: u64,
    /// Where networks compute: cpu, or cuda in a build that has it
    #[arg(long, default_value_t)]
    device: Device,
    /// Print what was kept as JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: &PretrainArgs, models: &Registry) -> anyhow::Result<ExitCode> {
    if args.horizon == 0 || args.lookback == 0 {
        return Err(Usage("--lookback and --horizon must be at least 1".into()).into());
    }
    let mut params = Params::default();
    let balanced = args.balanced.then_some("training.balanced=true");
    for assignment in args.set.iter().map(String::as_str).chain(balanced) {
        params.set(assignment).with_context(|| format!("--set {assignment}"))?;
    }
    models.resolve(&args.model, &params)?;
    let plan = PretrainPlan {
        model: args.model.clone(),
        preset: args.preset.clone(),
        params,
        lookback: args.lookback,
        horizon: args.horizon,
        seed: args.seed,
        device: args.device,
        checkpoint_after: Duration::from_secs(args.checkpoint_after),
    };
    progress::listen_for_interrupts()?;
    let catalogue = super::catalogue(args.data.as_deref())?;
    let open = |name: &String| {
        let name = &catalogue.dataset(name)?.name;
        Prepared::open(&catalogue, name, &Protocol::default()).with_context(|| name.clone())
    };
    let sets = args.datasets.iter().map(open).collect::<anyhow::Result<Vec<_>>>()?;
    // What the progress bar calls it.
    let task = Task::named(&args.datasets.join(" + "), &args.model, args.lookback, args.horizon);
    let mut bar = progress::Progress::new(1);
    let mut hear = |event: Event<'_>| -> ControlFlow<()> { bar.event(0, &task, event) };
    let _ = hear(Event::Started);
    let result = pretrain(models, &plan, &sets, &args.save, &mut hear);
    bar.finish();
    let pretrained = result.with_context(|| match unfinished_of(&args.save) {
        unfinished if unfinished.is_dir() => {
            format!(
                "what {} has learnt is in {}, and the same command goes on from it",
                args.model,
                unfinished.display()
            )
        }
        _ => format!("pretrain {}", args.model),
    })?;
    match args.json {
        true => print(&format!("{}\n", serde_json::to_string_pretty(&pretrained)?))?,
        false => print(&describe(&pretrained, args))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn describe(pretrained: &Pretrained, args: &PretrainArgs) -> String {
    let mut text = format!("{} in {}, weights {}\n", pretrained.model, args.save.display(), &pretrained.weights[..12]);
    for source in &pretrained.datasets {
        text += &format!(
            "  {:<14} {:>4} variates  {:>9} samples to learn from  {:>9} to stop by\n",
            source.name, source.variates, source.samples_train, source.samples_valid
        );
    }
    for epoch in &pretrained.curve {
        text += &format!(
            "  epoch {:<3} train {:.4}  valid {:.4}  {:.0} s\n",
            epoch.epoch, epoch.train_loss, epoch.valid_loss, epoch.seconds
        );
    }
    text
}
