//! How a file is read, as options of every command that reads one.

use std::path::Path;

use super::Usage;
use crate::{
    data::{
        Opened,
        loader::{Duplicates, Fill, ReadOptions, TimeColumn},
        open_file,
    },
    windows::SplitRule,
};

/// Shares of train, valid and test rows, as of `--split`.
pub fn shares(text: &str) -> Result<SplitRule, String> {
    let shares: Result<Vec<f64>, _> = text.split(',').map(str::parse).collect();
    let shares = shares.ok().and_then(|shares| <[f64; 3]>::try_from(shares).ok());
    let shares =
        shares.filter(|shares| shares.iter().all(|share| *share >= 0.0) && shares.iter().sum::<f64>() < 1.0 + 1e-9);
    shares.map(SplitRule::Ratio).ok_or_else(|| "three shares, such as 0.7,0.1,0.2".into())
}

#[derive(Clone, Debug, PartialEq, clap::Args)]
#[command(next_help_heading = "Reading")]
pub struct ReadArgs {
    /// Column of the timestamps, `auto` to look for it, or `none`
    #[arg(long, value_name = "NAME", default_value = "auto")]
    pub time_column: String,

    /// Variates to read, in this order; all by default
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    pub columns: Option<Vec<String>>,

    /// What becomes of missing values; without it they are an error
    #[arg(long, value_enum, default_value_t)]
    pub fill: Fill,

    /// What becomes of rows with the same timestamp
    #[arg(long, value_enum, default_value_t)]
    pub duplicates: Duplicates,

    /// Bring rows into the order of their timestamps
    #[arg(long)]
    pub sort: bool,

    /// The first line holds values, not names
    #[arg(long)]
    pub no_header: bool,
}

/// How a file that stands where a data set by name may stand is read and split.
#[derive(Clone, Debug, clap::Args)]
pub struct FileArgs {
    /// How a file is split: shares of train, valid and test rows, 0.7,0.1,0.2 by default
    #[arg(long, value_name = "TRAIN,VALID,TEST", value_parser = shares)]
    split: Option<SplitRule>,
    #[command(flatten)]
    read: ReadArgs,
}

impl FileArgs {
    pub fn open(&self, file: &Path) -> crate::Result<Opened> {
        let split = self.split.clone().unwrap_or(SplitRule::Ratio([0.7, 0.1, 0.2]));
        open_file(file, &self.read.clone().into(), split)
    }

    pub fn is_given(&self) -> bool {
        self.split.is_some() || self.read != ReadArgs::default()
    }

    /// Refuses what would have no effect: a set by name is read and split as its manifest says.
    pub fn not_for(&self, name: &str) -> Result<(), Usage> {
        match self.is_given() {
            false => Ok(()),
            true => Err(Usage(format!(
                "{name} is read and split as its manifest says: --split and the options of reading are for files"
            ))),
        }
    }
}

impl Default for ReadArgs {
    fn default() -> Self {
        Self {
            time_column: "auto".into(),
            columns: None,
            fill: Fill::default(),
            duplicates: Duplicates::default(),
            sort: false,
            no_header: false,
        }
    }
}

impl From<ReadArgs> for ReadOptions {
    fn from(args: ReadArgs) -> Self {
        let time_column = match args.time_column.as_str() {
            "auto" => TimeColumn::Auto,
            "none" => TimeColumn::Absent,
            _ => TimeColumn::Named(args.time_column),
        };
        Self {
            time_column,
            columns: args.columns,
            fill: args.fill,
            duplicates: args.duplicates,
            sort: args.sort,
            header: !args.no_header,
        }
    }
}
