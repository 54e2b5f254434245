//! A file of one's own, looked through by the data doctor before it is used.

use std::path::{Path, PathBuf};

use clap::Args;

use crate::{
    cli::read_args::ReadArgs,
    data::{
        Series, Step,
        doctor::{Severity, examine},
        loader::{ReadOptions, read},
    },
};

/// A file and how it is read.
#[derive(Clone, Debug, Args)]
pub struct SourceArgs {
    /// A .csv, .csv.gz or .parquet file
    pub file: PathBuf,
    #[command(flatten)]
    pub read: ReadArgs,
}

/// What was read.
pub struct Source {
    pub series: Series,
    /// The name of the column of timestamps.
    pub time_column: String,
    pub step: Option<Step>,
    /// Steps in a season, 1 where there is none.
    pub season: usize,
}

impl Source {
    /// Reads a file; what the doctor warns of is said on stderr.
    pub fn read(args: &SourceArgs) -> anyhow::Result<Self> {
        let options: ReadOptions = args.read.clone().into();
        let diagnosis = examine(&args.file, &options)?;
        for finding in diagnosis.findings.iter().filter(|finding| finding.severity == Severity::Warning) {
            let remedy = finding.remedy.as_ref().map_or(String::new(), |remedy| format!("; {remedy}"));
            say!("longcast: warning: {}: {}{remedy}", args.file.display(), finding.text);
        }
        let series = read(&args.file, &name_of(&args.file), &options)?.series;
        let step = Step::detect(series.timestamps());
        let time_column = diagnosis.time_column.unwrap_or_else(|| "date".into());
        Ok(Self { series, time_column, step, season: step.map_or(1, Step::season) })
    }
}

fn name_of(file: &Path) -> String {
    file.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}
