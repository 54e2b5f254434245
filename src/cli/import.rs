//! `longcast import`: a checkpoint of a paper's code becomes a pipeline.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context;
use clap::Args;
use serde::Serialize;

use super::{Usage, assigned, print, read_args::FileArgs};
use crate::{
    Error,
    data::{Calendar, Opened, Parts, Series, Step},
    forecaster::{Params, Pipeline, Plan, Registry},
    models::neural::reference::{Inferred, Reference, Sources, StateDict, read_npy},
    windows::{Part, Scaler, Split, WindowShape, Windows},
};

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    longcast import checkpoint.pth --model itransformer --set network.heads=8 --dataset ETTh1 --save models/itransformer\n  \
    longcast import checkpoint.pth --model autoformer --lookback 96 --horizon 96 --step 1h --save models/autoformer\n\n\
    Sizes that follow from the shapes of the weights are read off them. The file is read, not run: a pickle that asks for\n\
    more than tensors is refused. Left out are, by exact name:\n  \
    autoformer, informer  enc_embedding.position_embedding.pe and dec_embedding.position_embedding.pe\n  \
    informer              encoder.conv_layers.N.norm.num_batches_tracked, for each N that distils\n  \
    gpht                  encoders.N.patch_embedding.position_embedding.pe, for each stage N")]
pub struct ImportArgs {
    /// A state dict: what torch.save(model.state_dict()) or safetensors wrote
    #[arg(value_name = "CHECKPOINT")]
    checkpoint: PathBuf,
    /// Where the state dict is a part of what was saved: its key there, e.g. model_state_dict
    #[arg(long)]
    key: Option<String>,
    /// The model it is of; see `longcast models`
    #[arg(long)]
    model: String,
    /// The folder to keep it in; it must not be there yet
    #[arg(long, value_name = "DIR")]
    save: PathBuf,
    /// The preset that params start from which cannot be read off; by default the one with the name of the model
    #[arg(long, value_name = "NAME|none")]
    preset: Option<String>,
    /// Set a param that cannot be read off, e.g. network.heads=8
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Rows a forecast is made from, for autoformer, informer and gpht
    #[arg(long)]
    lookback: Option<usize>,
    /// Rows that are forecast, for autoformer, informer and gpht
    #[arg(long)]
    horizon: Option<usize>,
    /// The data set it was trained on: its training rows give the scaler, its columns the names of variates
    #[arg(long, value_name = "NAME", conflicts_with = "file")]
    dataset: Option<String>,
    /// The same from a .csv, .csv.gz or .parquet file
    #[arg(long)]
    file: Option<PathBuf>,
    /// Without data: how many variates there are, where that cannot be read off
    #[arg(long)]
    variates: Option<usize>,
    /// Without data: from one row to the next, such as 15min, 1h, 1d or 1mo
    #[arg(long, conflicts_with_all = ["dataset", "file"])]
    step: Option<Step>,
    /// The calendar features it was trained with, where that cannot be read off (itransformer); by default hourly with
    /// data that has timestamps, as in its scripts, else none
    #[arg(long, value_enum)]
    calendar: Option<Calendar>,
    /// OLinear's basis of the lookback, a .npy file; else it is computed from the training rows
    #[arg(long, value_name = "FILE")]
    q_mat: Option<PathBuf>,
    /// OLinear's basis of the horizon, a .npy file; else it is computed from the training rows
    #[arg(long, value_name = "FILE")]
    q_out_mat: Option<PathBuf>,
    /// OLinear-C's mixing of variates (the softmax of each row of their correlations), a .npy file; else it is computed
    /// from the training rows
    #[arg(long, value_name = "FILE")]
    mixing: Option<PathBuf>,
    /// Look for data here first
    #[arg(long)]
    data: Option<PathBuf>,
    #[command(flatten)]
    of_file: FileArgs,
    /// Print what was made as JSON
    #[arg(long)]
    json: bool,
}

/// What became of the checkpoint.
#[derive(Serialize)]
struct Made {
    model: String,
    lookback: usize,
    horizon: usize,
    variates: usize,
    /// What the forecasts are in: the units of the data, or scaled ones.
    units: &'static str,
    /// Read off the shapes.
    read_off: Vec<String>,
    /// Params that no shape tells.
    assumed: Vec<String>,
    /// Tensors that the network has no use for.
    left_out: Vec<String>,
}

pub fn run(args: &ImportArgs, models: &Registry) -> anyhow::Result<ExitCode> {
    let reference = Reference::of(&args.model)?;
    let set = assigned(&args.set)?;
    models.resolve(&args.model, &set)?;
    if args.save.exists() {
        let dir = args.save.display();
        return Err(Error::other(format!("{dir}: there already; remove it or choose another folder")).into());
    }
    let dict = StateDict::read_below(&args.checkpoint, args.key.as_deref())?;
    let inferred = reference.infer(&dict)?;
    if let Some(contradicted) = inferred.contradicted(&set) {
        let message = format!("the checkpoint has {contradicted}, and --set says otherwise: leave it out");
        return Err(Usage(message).into());
    }
    let mut plan = Plan::new(
        args.model.clone(),
        size("lookback", inferred.lookback, args.lookback)?,
        size("horizon", inferred.horizon, args.horizon)?,
    );
    let (preset, dataset) = (args.preset.as_deref(), args.dataset.as_deref().unwrap_or_default());
    let preset = models.preset_params(&args.model, preset, dataset, plan.horizon)?;
    let params = preset.overlaid(&set).overlaid(&inferred.as_params());
    plan.params = models.resolve(&args.model, &params)?;
    let learnt = Learnt::open(args)?;
    plan.calendar = Some(calendar(args, &inferred, learnt.as_ref())?);
    let variates = variates(args, &inferred, learnt.as_ref())?;
    let (pipeline, left_out) = assemble(args, reference, &dict, &plan, variates.clone(), learnt.as_ref())?;
    save(&pipeline, &args.save)?;

    let made = Made {
        model: plan.model,
        lookback: plan.lookback,
        horizon: plan.horizon,
        variates: variates.len(),
        units: if learnt.is_some() { "those of the data" } else { "scaled: there was no data to take a scaler from" },
        assumed: assumed(&plan.params, &inferred),
        read_off: inferred.all(),
        left_out,
    };
    match args.json {
        true => print(&format!("{}\n", serde_json::to_string_pretty(&made)?))?,
        false => print(&describe(&made, &args.save))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The pipeline, and the names of tensors that were left out.
fn assemble(
    args: &ImportArgs,
    reference: &Reference,
    dict: &StateDict,
    plan: &Plan,
    variates: Vec<String>,
    learnt: Option<&Learnt>,
) -> anyhow::Result<(Pipeline, Vec<String>)> {
    let step = match learnt {
        Some(learnt) => Step::detect(learnt.series.timestamps()),
        None => args.step,
    };
    let calendar = plan.calendar.unwrap_or_default();
    if calendar != Calendar::None && step.is_none() {
        let message = "the model looks at the calendar: give --dataset, --file or --step (such as 1h)";
        return Err(Usage(message.into()).into());
    }
    let beside = reference.beside(&plan.params)?;
    let given = matrices(args)?;
    if let Some(name) = given.keys().find(|name| !beside.iter().any(|beside| beside.name == **name)) {
        return Err(Usage(format!("{} has no {name}", args.model)).into());
    }
    let missing = beside.iter().map(|beside| beside.name).find(|name| !given.contains_key(name));
    if let (Some(name), None) = (missing, learnt) {
        let option = name.replace('_', "-");
        let message = format!("{name} is in no checkpoint: give --dataset or --file to compute it, or --{option}");
        return Err(Usage(message).into());
    }
    let (scaler, scaled) = match learnt {
        None => (Scaler::identity(variates.len()), None),
        Some(Learnt { series, scaler, .. }) => {
            (scaler.clone(), Some([scaler.transform(series)?.with_calendar(calendar)]))
        }
    };
    let rows: Vec<_> = learnt.iter().map(|learnt| learnt.split.targets(Part::Train, plan.lookback)).collect();
    // Only what follows from the training rows needs windows of them.
    let train = scaled.as_ref().filter(|_| missing.is_some()).map(|series| {
        let shape = WindowShape::of(&series[0], plan.lookback, plan.horizon)?;
        Windows::new(series, &rows, shape)
    });
    let train = train.transpose()?;
    let sources = Sources { train: train.as_ref(), given };
    let mut left_out = Vec::new();
    let pipeline = Pipeline::assembled(plan, variates, step, scaler, |context| {
        let imported = reference.import(dict, &plan.params, context, &sources)?;
        left_out = imported.left_out;
        Ok(imported.forecaster)
    })?;
    Ok((pipeline, left_out))
}

/// What the checkpoint says, or the option of this name.
fn size(name: &str, inferred: Option<usize>, given: Option<usize>) -> Result<usize, Usage> {
    match (inferred, given) {
        (_, Some(0)) => Err(Usage(format!("--{name} must be at least 1"))),
        (Some(inferred), Some(given)) if inferred != given => {
            Err(Usage(format!("the checkpoint has {name}={inferred}, and --{name} says {given}: leave it out")))
        }
        (Some(size), _) | (None, Some(size)) => Ok(size),
        (None, None) => Err(Usage(format!("{name} cannot be read off this checkpoint: give --{name}"))),
    }
}

/// The data that the checkpoint was trained on.
struct Learnt {
    series: Series,
    split: Split,
    scaler: Scaler,
}

impl Learnt {
    fn open(args: &ImportArgs) -> anyhow::Result<Option<Self>> {
        let opened = match (&args.dataset, &args.file) {
            (Some(name), _) => {
                args.of_file.not_for(name)?;
                super::catalogue(args.data.as_deref())?.open(name)?
            }
            (None, Some(file)) => args.of_file.open(file)?,
            (None, None) if args.of_file.is_given() => {
                return Err(Usage("--split and the options of reading are for --file".into()).into());
            }
            (None, None) => return Ok(None),
        };
        let Opened { series, parts, .. } = opened;
        let (Parts::Rule(rule), Ok([series])) = (parts, <[Series; 1]>::try_from(series)) else {
            return Err(Error::other("a set of many series has no one scaler: give a set of one series").into());
        };
        let split = rule.split(series.len())?;
        let scaler = Scaler::fit(&series, &split);
        Ok(Some(Self { series, split, scaler }))
    }
}

/// The names of variates: those of the data, or their numbers.
fn variates(args: &ImportArgs, inferred: &Inferred, learnt: Option<&Learnt>) -> anyhow::Result<Vec<String>> {
    let told = inferred.variates;
    let Some(learnt) = learnt else {
        let count = size("variates", told, args.variates)?;
        return Ok((0..count).map(|variate| variate.to_string()).collect());
    };
    let names = learnt.series.variates();
    match told.or(args.variates) {
        Some(needed) if needed != names.len() => {
            let found = names.len();
            Err(Error::Shape(format!("the data has {found} variates, but the checkpoint is of {needed}")).into())
        }
        _ => Ok(names.to_vec()),
    }
}

/// The calendar features that the network was trained with.
fn calendar(args: &ImportArgs, inferred: &Inferred, learnt: Option<&Learnt>) -> anyhow::Result<Calendar> {
    let timed = learnt.map(|learnt| !learnt.series.timestamps().is_empty());
    let calendar = match (inferred.time_features, args.calendar) {
        (Some(count), given) => {
            let found = Calendar::with_features(count).ok_or_else(|| {
                Error::Shape(format!("the checkpoint has {count} calendar features; no calendar here has so many"))
            })?;
            if given.is_some_and(|given| given != found) {
                let message = format!("the checkpoint has {count} calendar features, and --calendar has others");
                return Err(Usage(format!("{message}: leave it out")).into());
            }
            found
        }
        (None, Some(given)) => given,
        (None, None) if timed == Some(true) => Calendar::Hourly,
        (None, None) => Calendar::None,
    };
    match (calendar, timed) {
        (Calendar::None, _) | (_, Some(true) | None) => Ok(calendar),
        (_, Some(false)) => Err(Error::other("the model looks at the calendar, but the data has no timestamps").into()),
    }
}

fn matrices(args: &ImportArgs) -> anyhow::Result<BTreeMap<&'static str, candle_core::Tensor>> {
    let files = [("q_mat", &args.q_mat), ("q_out_mat", &args.q_out_mat), ("mixing", &args.mixing)];
    let given = files.into_iter().filter_map(|(name, file)| Some((name, file.as_ref()?)));
    given.map(|(name, file)| Ok((name, read_npy(file)?))).collect()
}

/// The folder is there complete, or not at all.
fn save(pipeline: &Pipeline, dir: &Path) -> anyhow::Result<()> {
    let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(parent).with_context(|| format!("{}: cannot make the folder", parent.display()))?;
    let unfinished = tempfile::Builder::new().prefix(".longcast-").tempdir_in(parent);
    let unfinished = unfinished.with_context(|| format!("{}: cannot make a folder in it", parent.display()))?;
    let complete = unfinished.path().join("pipeline");
    pipeline.save(&complete)?;
    std::fs::rename(&complete, dir).with_context(|| format!("{}: cannot be made", dir.display()))
}

/// The params of the network that the shapes do not tell.
fn assumed(params: &Params, inferred: &Inferred) -> Vec<String> {
    let told = |name: &str| inferred.params.iter().any(|param| param.split('=').next() == Some(name));
    let Ok(toml::Value::Table(params)) = toml::Value::try_from(params) else { return vec![] };
    let network = params.get("network").and_then(toml::Value::as_table).cloned().unwrap_or_default();
    let all = network.iter().map(|(name, value)| (format!("network.{name}"), value));
    all.filter(|(name, _)| !told(name)).map(|(name, value)| format!("{name}={value}")).collect()
}

fn describe(made: &Made, dir: &Path) -> String {
    let Made { model, lookback, horizon, variates, units, .. } = made;
    let mut text = format!("{model} in {}\n", dir.display());
    let list = |names: &[String]| if names.is_empty() { "nothing".into() } else { names.join(", ") };
    let lines = [
        ("windows", format!("{lookback} rows of {variates} variates, of which {horizon} follow")),
        ("units", (*units).to_string()),
        ("read off", list(&made.read_off)),
        ("assumed", list(&made.assumed)),
        ("left out", list(&made.left_out)),
    ];
    for (name, value) in lines {
        text += &format!("  {name:<9} {value}\n");
    }
    text
}
