//! `longcast bench submit`: what runs a suite in parts on an engine, as text to review and send.

mod kubernetes;
mod slurm;

use std::{
    num::NonZeroUsize,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, Parser};

use super::{Usage, bench::check_names, print};
use crate::{benchmark::Suite, data::Catalogue, forecaster::Registry};

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    longcast bench submit suites/long-horizon.toml --slurm --jobs 8 --data datasets > jobs.sh && sbatch jobs.sh\n  \
    longcast bench submit suites/long-horizon.toml --slurm --jobs 8 -- --locked\n  \
    longcast bench submit suites/smoke.toml --kubernetes --jobs 4 --image longcast:0.1 --claim results > job.yaml")]
pub struct SubmitArgs {
    /// The suite file
    suite: PathBuf,
    /// Print a script for sbatch
    #[arg(long, required_unless_present = "kubernetes", conflicts_with = "kubernetes")]
    slurm: bool,
    /// Print the manifest of an indexed job, for kubectl apply; it holds the suite
    #[arg(long, requires_all = ["image", "claim"])]
    kubernetes: bool,
    /// The number of jobs, which is that of the parts
    #[arg(long, value_name = "COUNT")]
    jobs: NonZeroUsize,
    /// The folder for tables where the jobs run; with --kubernetes a folder of the volume
    #[arg(long, default_value = "reports")]
    out: PathBuf,
    /// Each job has a folder of its own below --out; `longcast bench merge` puts them together
    #[arg(long)]
    separate: bool,
    /// The folder with data where the jobs run
    #[arg(long)]
    data: Option<PathBuf>,
    /// The program where the jobs run
    #[arg(long, default_value = "longcast")]
    program: PathBuf,
    /// Cores of each job
    #[arg(long, default_value = "2", value_name = "COUNT")]
    cpus: NonZeroUsize,
    /// Memory of each job, in GiB
    #[arg(long, default_value = "4", value_name = "GIB")]
    memory: NonZeroUsize,
    /// The longest that a job may run
    #[arg(long, default_value = "24", value_name = "HOURS")]
    hours: NonZeroUsize,
    /// The image that holds the program
    #[arg(long, requires = "kubernetes")]
    image: Option<String>,
    /// The claim of the volume for results; the program runs in it
    #[arg(long, requires = "kubernetes")]
    claim: Option<String>,
    /// The claim of a volume with data, which is only read
    #[arg(long, requires = "kubernetes", conflicts_with = "data")]
    data_claim: Option<String>,
    /// Further arguments of `longcast bench`, e.g. -- --locked --device cuda
    #[arg(last = true, value_name = "ARGUMENTS")]
    further: Vec<String>,
}

pub fn run(args: &SubmitArgs, models: &Registry) -> anyhow::Result<ExitCode> {
    let suite = Suite::read(&args.suite)?;
    // What is found now is not found by a job that has waited for hours.
    // The folder of the data may be one of the machine that it is sent to.
    check_names(&suite, models, &Catalogue::new(args.data.as_deref())?)?;
    if !suite.name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)) {
        let message = format!("{:?} names jobs: call the suite by letters, digits, '-', '_' and '.'", suite.name);
        return Err(Usage(message).into());
    }
    let text = if args.slurm { slurm::script(args, &suite)? } else { kubernetes::manifest(args, &suite)? };
    if args.jobs.get() > suite.tasks.len() {
        say!("longcast: warning: {} jobs for {} tasks: some have nothing to do", args.jobs, suite.tasks.len());
    }
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// The arguments that each job starts the program with, but for `--out`, which may differ.
fn arguments(args: &SubmitArgs, suite: &Path, data: Option<&Path>) -> anyhow::Result<Vec<String>> {
    let mut words = vec!["bench".to_string(), text(suite)?, "--shard".into(), "auto".into()];
    if let Some(data) = data {
        words.extend(["--data".into(), text(data)?]);
    }
    words.extend(args.further.iter().cloned());
    let whole = ["longcast".into()].into_iter().chain(words.iter().cloned()).chain(["--out".into(), text(&args.out)?]);
    super::Args::try_parse_from(whole).map_err(|error| Usage(format!("a job could not start: {error}")))?;
    match args.further.iter().find(|word| word.contains(char::is_control)) {
        Some(word) => Err(Usage(format!("{word:?}: a control character would not reach the program")).into()),
        None => Ok(words),
    }
}

/// A path as text; none that would end a line of a script.
fn text(path: &Path) -> anyhow::Result<String> {
    match path.to_str() {
        Some(text) if !text.contains(char::is_control) => Ok(text.to_string()),
        _ => Err(Usage(format!("{}: a name of plain text is needed in a script", path.display())).into()),
    }
}
