//! `longcast report`: tables from records.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;

use super::print;
use crate::{
    benchmark::write_whole,
    report::{Format, Report},
};

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    longcast report reports/records/smoke\n  \
    longcast report reports/records/long-horizon --format csv --output scores.csv")]
pub struct ReportArgs {
    /// The folder of records, e.g. reports/records/smoke
    dir: PathBuf,
    /// How to write it
    #[arg(long, value_enum, default_value_t = Format::Md)]
    format: Format,
    /// Write to this file instead of stdout
    #[arg(long, short)]
    output: Option<PathBuf>,
}

pub fn run(args: &ReportArgs) -> anyhow::Result<ExitCode> {
    let report = Report::read(&args.dir)?;
    let text = report.render(args.format)?;
    match &args.output {
        Some(path) => write_whole(path, text.as_bytes())?,
        None => print(&text)?,
    }
    Ok(complain(&report))
}

/// Says on stderr what is wrong with a report; exit code 1 if something is.
pub fn complain(report: &Report) -> ExitCode {
    let warnings = report.warnings();
    for warning in &warnings {
        eprintln!("longcast: warning: {warning}");
    }
    for problem in &report.unreadable {
        eprintln!("longcast: {problem}");
    }
    match warnings.is_empty() && report.unreadable.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(1),
    }
}
