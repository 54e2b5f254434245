//! `longcast lint`: what cannot be right in a copied table.

use std::{fs, path::PathBuf, process::ExitCode};

use anyhow::Context;
use clap::Args;

use super::print;
use crate::report::lint_table;

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    longcast lint published.csv\n  \
    longcast lint one.csv other.csv --json\n\n\
    A table has one row a cell and columns mse and mae. The mean of squares is never below the square of\n\
    the mean: where MSE < MAE², a number was misprinted or miscopied. Exit code 1 if one is found.")]
pub struct LintArgs {
    /// CSV files
    #[arg(required = true, value_name = "TABLE.csv")]
    tables: Vec<PathBuf>,
    /// Print what was found as JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: &LintArgs) -> anyhow::Result<ExitCode> {
    let mut found = Vec::new();
    for path in &args.tables {
        let name = path.display().to_string();
        let text = fs::read_to_string(path).with_context(|| name.clone())?;
        let warnings = lint_table(&text).with_context(|| name.clone())?;
        found.extend(warnings.into_iter().map(|warning| (name.clone(), warning)));
    }
    if args.json {
        let found: Vec<_> = found
            .iter()
            .map(|(file, warning)| serde_json::json!({"file": file, "cell": warning.cell, "problem": warning.problem}))
            .collect();
        print(&format!("{}\n", serde_json::to_string_pretty(&found)?))?;
    } else {
        for (file, warning) in &found {
            print(&format!("{file}: {warning}\n"))?;
        }
    }
    say!("longcast: {} impossible", found.len());
    Ok(if found.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}
