//! Tables from records. This layer knows records and the published numbers, and nothing that runs.
//!
//! A report is a pure function of a results folder: the same records give the same bytes.

mod csv;
mod json;
mod latex;
mod lint;
mod markdown;
mod published;
mod scores;

use std::path::Path;

use serde::{Deserialize, Serialize};

pub use lint::{Warning, lint};
pub use published::{Published, PublishedRow};
pub use scores::{Cell, Scoreboard, ScoreboardRow};

use crate::{
    Error, Result,
    benchmark::{Record, SUITE_FILE, Suite},
};

/// How a report is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Tables to read.
    #[default]
    Md,
    /// One line a record.
    Csv,
    /// The tables and the published numbers beside them, for machines.
    Json,
    /// The tables of scores, as a document that compiles as it is.
    Latex,
}

/// The records of a results folder and what is known about them.
#[derive(Clone, Debug)]
pub struct Report {
    /// The suite they were made from, where the folder holds it: its order is that of the tables.
    pub suite: Suite,
    pub records: Vec<Record>,
    pub published: Published,
    /// Files of the folder that could not be read, in words.
    pub unreadable: Vec<String>,
}

impl Report {
    /// Reads the results folder `dir`.
    ///
    /// # Errors
    /// If there is no such folder or it holds no record.
    pub fn read(dir: &Path) -> Result<Self> {
        let (records, errors) = Record::read_all(dir)?;
        if records.is_empty() && errors.is_empty() {
            return Err(Error::file(dir, "holds no records; `longcast bench` writes them"));
        }
        let suite_file = dir.join(SUITE_FILE);
        let mut suite = match suite_file.is_file() {
            true => Suite::read(&suite_file)?,
            false => Suite::of_records(&records),
        };
        if let Some(name) = dir.canonicalize().ok().as_deref().and_then(Path::file_name) {
            suite.name = name.to_string_lossy().into_owned();
        }
        let unreadable = errors.iter().map(ToString::to_string).collect();
        Ok(Self { suite, records, published: Published::builtin()?, unreadable })
    }

    /// The report as text.
    ///
    /// # Errors
    /// If it cannot be put into this format.
    pub fn render(&self, format: Format) -> Result<String> {
        match format {
            Format::Md => Ok(markdown::render(self)),
            Format::Csv => csv::render(self),
            Format::Json => json::render(self),
            Format::Latex => Ok(latex::render(self)),
        }
    }

    /// What cannot be right in the tables.
    pub fn warnings(&self) -> Vec<Warning> {
        lint(&self.records)
    }
}
