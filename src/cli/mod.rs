//! The program: arguments, progress, exit codes. Uses every layer; no layer uses it.
//!
//! Results go to stdout, everything else to stderr. Exit codes: 0 all done, 1 something failed or
//! was found, 2 wrong usage, 130 interrupted.

/// Says something on stderr; where nobody can hear it (the disk behind it is full), work goes on.
macro_rules! say {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), $($text)*);
    }};
}

mod bench;
mod check;
mod compare;
mod data;
mod evaluate;
mod export;
mod forecasts;
mod future;
mod import;
mod lint;
mod merge;
mod models;
mod png;
mod pretrain;
mod progress;
mod protocol;
mod read_args;
mod report;
mod serve;
mod submit;
mod verify;
#[cfg(target_os = "linux")]
mod watch;

use std::{io::Write, path::Path, process::ExitCode};

use clap::{CommandFactory, Parser, Subcommand, error::ErrorKind};
use clap_complete::Shell;

use crate::{
    Error,
    data::Catalogue,
    forecaster::{Params, Registry},
};

/// Time-series forecasting: one trait, honest scores, records anyone can re-run.
#[derive(Debug, Parser)]
#[command(
    name = "longcast",
    version,
    propagate_version = true,
    after_help = "Examples:\n  \
        longcast forecast datasets/sample/air-passengers.csv --horizon 24 --plot out.svg\n  \
        longcast bench suites/smoke.toml\n  \
        longcast evaluate --dataset Synthetic --model ridge --lookback 96 --horizon 24\n  \
        longcast data check my-load.csv\n  \
        longcast report reports/records --format html --output report.html"
)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Forecast the rows that follow a file
    Forecast(Box<future::forecast::ForecastArgs>),
    /// Fit a model on a file and keep it in a folder
    Fit(Box<future::fit::FitArgs>),
    /// Forecast from new rows with what `fit` kept
    Predict(future::predict::PredictArgs),
    /// Forecast a file from one origin after the other, and score it
    Backtest(Box<future::backtest::BacktestArgs>),
    /// Run the tasks of a suite that are not recorded yet, and print and write its tables
    Bench(Box<bench::BenchArgs>),
    /// Fit one model on one data set and score it on every test window
    Evaluate(Box<evaluate::EvaluateArgs>),
    /// Train one model on many data sets and keep its weights
    Pretrain(pretrain::PretrainArgs),
    /// Take in a checkpoint that the code of a paper saved, as a pipeline
    Import(Box<import::ImportArgs>),
    /// Write the weights of a pipeline under the names that the code of a paper has for them
    Export(export::ExportArgs),
    /// Forecast over HTTP from one fitted pipeline
    Serve(serve::ServeArgs),
    /// Make the tables of a results folder again, without data or fitting
    Report(report::ReportArgs),
    /// Run tasks again from their records, and say what differs
    Verify(verify::VerifyArgs),
    /// Set two results folders side by side: scores, and what differs in params, protocol and data
    Compare(compare::CompareArgs),
    /// List the protocols, and show what differs between two of them
    #[command(subcommand)]
    Protocol(protocol::ProtocolCommand),
    /// Find the cells of a copied table that cannot be
    Lint(lint::LintArgs),
    /// List, show, fetch and check data
    #[command(subcommand)]
    Data(data::DataCommand),
    /// List the models, or show the params of one
    Models(models::ModelsArgs),
    /// Print the completions of a shell, e.g. `longcast completions bash >> ~/.bashrc`
    Completions {
        /// Which shell
        shell: Shell,
    },
}

/// Wrong usage that clap does not see; exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Usage(String);

/// Runs the program with the forecasters of `models`; the whole `main` of one's own build.
pub fn main(models: Registry) -> ExitCode {
    prepare();
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            // A closed pipe (`longcast --help | head`) is no failure.
            let _ = error.print();
            return match error.kind() {
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => ExitCode::SUCCESS,
                _ => ExitCode::from(2),
            };
        }
    };
    let result = match args.command {
        Command::Forecast(args) => future::forecast::run(&args, &models),
        Command::Fit(args) => future::fit::run(&args, &models),
        Command::Predict(args) => future::predict::run(&args, &models),
        Command::Backtest(args) => future::backtest::run(&args, &models),
        Command::Bench(args) => bench::run(&args, &models),
        Command::Evaluate(args) => evaluate::run(&args, &models),
        Command::Pretrain(args) => pretrain::run(&args, &models),
        Command::Import(args) => import::run(&args, &models),
        Command::Export(args) => export::run(&args, &models),
        Command::Serve(args) => serve::run(&args, &models),
        Command::Report(args) => report::run(&args),
        Command::Verify(args) => verify::run(&args, &models),
        Command::Compare(args) => compare::run(&args),
        Command::Protocol(command) => protocol::run(&command, &models),
        Command::Lint(args) => lint::run(&args),
        Command::Data(command) => data::run(&command),
        Command::Models(args) => models::run(&args, &models),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Args::command(), "longcast", &mut script);
            print(&String::from_utf8_lossy(&script)).map(|()| ExitCode::SUCCESS).map_err(Into::into)
        }
    };
    result.unwrap_or_else(|error| {
        say!("longcast: {}", words(&error));
        exit_code(&error)
    })
}

/// Sets what training is faster with; to be called first of all by a program that does not call
/// [`main`].
///
/// candle would run sums of large tensors on threads of its own, for which the threads of a training
/// step would then wait in line. mimalloc would give memory back to the system between two steps, and
/// get it again page by page.
#[expect(unsafe_code, reason = "there is no other way to tell candle and mimalloc")]
pub fn prepare() {
    const VARIABLE: &str = "CANDLE_NUM_THREADS";
    if std::env::var_os(VARIABLE).is_none() {
        // SAFETY: this is the beginning of the program, and there is no other thread yet.
        unsafe { std::env::set_var(VARIABLE, "1") }
    }
    const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;
    const MILLISECONDS: std::ffi::c_long = 600_000;
    // SAFETY: an option is a number that mimalloc reads later; one that it did not have it would ignore.
    unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, MILLISECONDS) }
}

/// An error and its causes, but for those that the text before them ends in.
fn words(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |text, cause| match text.is_empty() {
        true => cause,
        false if text.ends_with(&cause) => text,
        false if cause.starts_with(&format!("{text}: ")) => cause,
        false => format!("{text}: {cause}"),
    })
}

fn exit_code(error: &anyhow::Error) -> ExitCode {
    if error.is::<Usage>() {
        return ExitCode::from(2);
    }
    match error.downcast_ref::<Error>() {
        Some(Error::Unknown { .. } | Error::Params { .. }) => ExitCode::from(2),
        Some(Error::Interrupted) => ExitCode::from(130),
        _ => ExitCode::from(1),
    }
}

/// The params that `--set` sets, `KEY=VALUE` each.
fn assigned(assignments: &[String]) -> anyhow::Result<Params> {
    let mut params = Params::default();
    for assignment in assignments {
        params.set(assignment).map_err(|error| Usage(format!("--set {assignment}: {error}")))?;
    }
    Ok(params)
}

/// Prints a result to stdout. A reader that has gone away (`longcast models | head`) is no failure, and changes nothing
/// of what is done.
fn print(text: &str) -> std::io::Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        done => done,
    }
}

/// The data sets there are, looked for in the folder of `--data` first.
fn catalogue(data: Option<&Path>) -> anyhow::Result<Catalogue> {
    match data.filter(|folder| !folder.is_dir()) {
        Some(folder) => Err(Usage(format!("--data {}: there is no such folder", folder.display())).into()),
        None => Ok(Catalogue::new(data)?),
    }
}
