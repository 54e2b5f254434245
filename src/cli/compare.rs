//! `longcast compare`: two results folders side by side.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;

use super::{print, report::complain_of};
use crate::report::{Compared, Report};

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    longcast compare reports/records/networks-96 mine/records/networks-96\n  \
    longcast compare reports/records/linear-336 reports/records/linear-336-drop-last --json")]
pub struct CompareArgs {
    /// A folder of records
    one: PathBuf,
    /// Another
    other: PathBuf,
    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: &CompareArgs) -> anyhow::Result<ExitCode> {
    let (one, other) = (Report::read(&args.one)?, Report::read(&args.other)?);
    let compared = Compared::of(&one, &other)?;
    let [left, right] = [&args.one, &args.other].map(|path| path.display().to_string());
    match args.json {
        true => print(&format!("{}\n", serde_json::to_string_pretty(&compared)?))?,
        false => print(&compared.to_markdown(&left, &right))?,
    }
    // What a folder holds that cannot be read is not compared.
    Ok(complain_of([&one, &other]))
}
