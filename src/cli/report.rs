//! `longcast report`: tables from records.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context;
use clap::Args;

use super::print;
use crate::{
    benchmark::write_whole,
    report::{Format, Report, page},
};

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    longcast report reports/records/smoke\n  \
    longcast report reports/records/long-horizon --format csv --output scores.csv\n  \
    longcast report reports/records --format html --output report.html\n  \
    longcast report reports/records/networks-96 --plot charts")]
pub struct ReportArgs {
    /// The folder of records, e.g. reports/records/smoke; with html and --plot it may be one of such folders
    dir: PathBuf,
    /// How to write it
    #[arg(long, value_enum, default_value_t = Format::Md)]
    format: Format,
    /// Write to this file instead of stdout
    #[arg(long, short)]
    output: Option<PathBuf>,
    /// Write each chart as an SVG file into this folder, in place of tables
    #[arg(long, value_name = "DIR", conflicts_with_all = ["format", "output"])]
    plot: Option<PathBuf>,
}

pub fn run(args: &ReportArgs) -> anyhow::Result<ExitCode> {
    if let Some(dir) = &args.plot {
        let reports = Report::read_each(&args.dir)?;
        plot(&reports, dir)?;
        return Ok(complain_of(&reports));
    }
    let (reports, text) = match args.format {
        Format::Html => {
            let reports = Report::read_each(&args.dir)?;
            let text = page(&reports)?;
            (reports, text)
        }
        format => {
            let report = Report::read(&args.dir)?;
            let text = report.render(format)?;
            (vec![report], text)
        }
    };
    match &args.output {
        Some(path) => write_whole(path, text.as_bytes())?,
        None => print(&text)?,
    }
    Ok(complain_of(&reports))
}

fn plot(reports: &[Report], dir: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(dir).with_context(|| format!("{}: cannot make the folder", dir.display()))?;
    let mut written = 0;
    for report in reports {
        for (name, svg) in report.charts()? {
            write_whole(&dir.join(name), svg.as_bytes())?;
            written += 1;
        }
    }
    say!("longcast: {written} charts in {}", dir.display());
    Ok(())
}

/// The same of several; 1 if something is wrong with one.
pub fn complain_of<'a>(reports: impl IntoIterator<Item = &'a Report>) -> ExitCode {
    let codes: Vec<ExitCode> = reports.into_iter().map(complain).collect();
    codes.into_iter().find(|code| *code != ExitCode::SUCCESS).unwrap_or(ExitCode::SUCCESS)
}

/// Says on stderr what is wrong with a report; exit code 1 if something is.
pub fn complain(report: &Report) -> ExitCode {
    let warnings = report.warnings();
    for warning in &warnings {
        say!("longcast: warning: {warning}");
    }
    for problem in &report.unreadable {
        say!("longcast: {problem}");
    }
    match warnings.is_empty() && report.unreadable.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(1),
    }
}
