//! `longcast bench`: a suite from its file to its tables.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::Context;
use clap::{Args, Subcommand};

#[cfg(target_os = "linux")]
use super::watch;
use super::{
    Usage,
    merge::{self, MergeArgs},
    print, progress,
    report::complain,
    submit::{self, SubmitArgs},
};
use crate::{
    Error,
    benchmark::{self, Shard, Suite, Task, estimated_cost, records_folder, write_whole},
    data::Catalogue,
    forecaster::{Device, Registry},
    report::{Format, Report},
};

#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "Examples:\n  \
        longcast bench suites/smoke.toml\n  \
        longcast bench suites/long-horizon.toml --only dataset=ETTh1,model=ridge\n  \
        longcast bench suites/long-horizon.toml --shard 2/4\n  \
        longcast bench suites/long-horizon.toml --dry-run\n  \
        longcast bench submit suites/long-horizon.toml --slurm --jobs 4 > jobs.sh\n  \
        longcast bench merge part-1 part-2 --into reports"
)]
pub struct BenchArgs {
    #[command(subcommand)]
    command: Option<BenchCommand>,
    /// The suite file
    #[arg(required = true)]
    suite: Option<PathBuf>,
    /// The folder for tables; records go to `records/<suite>` below it
    #[arg(long, default_value = "reports")]
    out: PathBuf,
    /// Run only tasks with these, e.g. dataset=ETTh1,model=ridge,horizon=96
    #[arg(long, value_delimiter = ',', value_name = "KEY=VALUE")]
    only: Vec<String>,
    /// Run one of so many parts, e.g. 2/4; with auto the one of this job of an array of Slurm, AWS Batch,
    /// Kubernetes or PBS. Parts may share a folder
    #[arg(long, value_name = "PART|auto")]
    shard: Option<String>,
    /// Say what would run, all that has no record yet, and run nothing
    #[arg(long)]
    dry_run: bool,
    /// Run on nothing but the data and the version that the records there already are of (lock.toml)
    #[arg(long)]
    locked: bool,
    /// Keep what a fit longer than so many seconds has learnt, after each epoch: the next run goes on from it
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    checkpoint_after: u64,
    /// Where networks compute: cpu, or cuda in a build that has it
    #[arg(long, default_value_t)]
    device: Device,
    /// Look for data here first
    #[arg(long)]
    data: Option<PathBuf>,
    /// Print the tables as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum BenchCommand {
    /// Put the records of several results folders of one suite together
    Merge(MergeArgs),
    /// Print a job script or manifest that runs a suite in parts; nothing is sent
    Submit(SubmitArgs),
}

pub fn run(args: &BenchArgs, models: &Registry) -> anyhow::Result<ExitCode> {
    match &args.command {
        Some(BenchCommand::Merge(args)) => return merge::run(args, models),
        Some(BenchCommand::Submit(args)) => return submit::run(args, models),
        None => {}
    }
    let path = args.suite.as_deref().expect("clap asks for it where there is no command");
    let mut suite = Suite::read(path)?;
    let dir = records_folder(&args.out, &suite.name);
    // Before all that only the process at work needs.
    #[cfg(target_os = "linux")]
    let watched = match watch::watched()? {
        None if !args.dry_run => return watch::watch(&dir),
        watched => watched,
    };
    #[cfg(not(target_os = "linux"))]
    let watched = None;
    let catalogue = super::catalogue(args.data.as_deref())?;
    check_names(&suite, models, &catalogue).with_context(|| path.display().to_string())?;
    own_horizons(&mut suite, &catalogue);
    keep_only(&mut suite, &args.only)?;
    if let Some(shard) = &args.shard {
        let shard = match shard.as_str() {
            "auto" => Shard::from_environment(|name| std::env::var(name).ok())?,
            part => part.parse().map_err(|error| Usage(format!("--shard: {error}")))?,
        };
        let tasks = std::mem::take(&mut suite.tasks);
        suite.tasks = shard.of(tasks, |task| estimated_cost(task, models, &catalogue));
        if suite.tasks.is_empty() {
            say!("longcast: the suite has fewer tasks than parts; there is nothing for part {shard}");
            return Ok(ExitCode::SUCCESS);
        }
    }
    if args.dry_run {
        let missing = benchmark::missing(&suite, models, &catalogue, &dir)?;
        for task in &missing {
            print(&format!("{task} · seed {}\n", task.seed))?;
        }
        let recorded = suite.tasks.len() - missing.len();
        say!("longcast: {} would run, {recorded} recorded already in {}", missing.len(), dir.display());
        return Ok(ExitCode::SUCCESS);
    }

    progress::listen_for_interrupts()?;
    let checkpoint_after = Duration::from_secs(args.checkpoint_after);
    let how = benchmark::Run { device: args.device, locked: args.locked, checkpoint_after, watched };
    let mut bar = progress::Progress::new(suite.tasks.len());
    let outcome = benchmark::run(&suite, models, &catalogue, &dir, how, &mut bar);
    bar.finish();
    let outcome = outcome?;
    // Nothing came out, and why has been said.
    if outcome.recorded + outcome.kept + outcome.failed + outcome.elsewhere == 0 {
        return Ok(ExitCode::from(if outcome.interrupted { 130 } else { 1 }));
    }
    let (report, table) = match write_table(&args.out, &dir, &suite.name, args.json) {
        Err(_) if outcome.recorded + outcome.kept == 0 => return Ok(ExitCode::from(u8::from(outcome.failed > 0))),
        written => written?,
    };
    say!(
        "longcast: {} recorded, {} there already, {} failed{}; table in {}, page in {}",
        outcome.recorded,
        outcome.kept,
        outcome.failed,
        match outcome.elsewhere {
            0 => String::new(),
            count => format!(", {count} at work in another process"),
        },
        table.display(),
        table.with_extension("html").display()
    );
    let complained = complain(&report);
    Ok(match outcome {
        _ if outcome.interrupted => ExitCode::from(130),
        _ if outcome.failed > 0 => ExitCode::from(1),
        _ => complained,
    })
}

/// Writes table and page of the records in `dir` to `out`, and prints the table.
pub fn write_table(out: &Path, dir: &Path, suite: &str, json: bool) -> anyhow::Result<(Report, PathBuf)> {
    let report = Report::read(dir)?;
    let table = out.join(format!("{suite}.md"));
    write_whole(&table, report.render(Format::Md)?.as_bytes())?;
    write_whole(&out.join(format!("{suite}.html")), report.render(Format::Html)?.as_bytes())?;
    print(&report.render(if json { Format::Json } else { Format::Md })?)?;
    Ok((report, table))
}

// A name that is not there is wrong usage, found before any work.
pub fn check_names(suite: &Suite, models: &Registry, catalogue: &Catalogue) -> anyhow::Result<()> {
    for task in &suite.tasks {
        models.resolve(&task.model, &task.params)?;
        models.preset(&task.model, task.preset.as_deref())?;
        catalogue.exactly(&task.dataset)?;
    }
    Ok(())
}

/// Puts the horizon of a data set that has one of its own where none is given.
fn own_horizons(suite: &mut Suite, catalogue: &Catalogue) {
    for task in suite.tasks.iter_mut().filter(|task| task.horizon == 0) {
        let own = catalogue.dataset(&task.dataset).ok().and_then(|dataset| dataset.horizon());
        task.horizon = own.unwrap_or(0);
    }
}

fn keep_only(suite: &mut Suite, only: &[String]) -> anyhow::Result<()> {
    let keys = ["dataset", "model", "horizon", "lookback", "seed"];
    let mut wanted: Vec<(&str, &str)> = Vec::new();
    for filter in only {
        let (key, value) = filter.split_once('=').ok_or_else(|| Usage(format!("--only {filter}: write key=value")))?;
        if !keys.contains(&key) {
            return Err(Error::unknown("key for --only", key, keys).into());
        }
        wanted.push((key, value));
    }
    let has = |task: &Task, key: &str, value: &str| match key {
        "dataset" => task.dataset.eq_ignore_ascii_case(value),
        "model" => task.name == value || task.model == value,
        "horizon" => task.horizon.to_string() == value,
        "lookback" => task.lookback.to_string() == value,
        _ => task.seed.to_string() == value,
    };
    // Values of one key are alternatives; keys narrow one another down.
    suite.tasks.retain(|task| {
        keys.iter().all(|key| {
            let mut values = wanted.iter().filter(|(wanted, _)| wanted == key).map(|(_, value)| value).peekable();
            values.peek().is_none() || values.any(|value| has(task, key, value))
        })
    });
    match suite.tasks.is_empty() {
        true => Err(Usage(format!("no task of the suite matches --only {}", only.join(","))).into()),
        false => Ok(()),
    }
}
