//! `longcast bench merge`: the records of several results folders in one.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;

use super::{bench::write_table, report::complain};
use crate::{
    benchmark::{Conflict, merge},
    forecaster::Registry,
};

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    longcast bench merge part-1 part-2 --into reports\n  \
    longcast bench merge reports --into reports        # what is missing?")]
pub struct MergeArgs {
    /// Results folders of one suite: what --out was, or the folder of records below it
    #[arg(required = true, value_name = "DIR")]
    from: Vec<PathBuf>,
    /// The folder for tables; records go to `records/<suite>` below it
    #[arg(long, value_name = "DIR")]
    into: PathBuf,
    /// Print the tables as JSON
    #[arg(long)]
    json: bool,
}

/// Differences that are shown of one conflict.
const SHOWN: usize = 5;

pub fn run(args: &MergeArgs, models: &Registry) -> anyhow::Result<ExitCode> {
    let merged = merge(&args.from, &args.into, models)?;
    for conflict in &merged.conflicts {
        complain_of(conflict);
    }
    for error in &merged.unreadable {
        say!("longcast: not merged: {error}");
    }
    for task in &merged.missing {
        say!("longcast: missing: {task}");
    }
    let (conflicts, unreadable, missing) = (merged.conflicts.len(), merged.unreadable.len(), merged.missing.len());
    let counts = format!(
        "{} copied, {} there already, {conflicts} in conflict, {unreadable} unreadable, {missing} missing",
        merged.copied, merged.kept
    );
    if merged.copied + merged.kept == 0 {
        say!("longcast: {counts}; there is no table");
        return Ok(ExitCode::from(1));
    }
    let (report, table) = write_table(&args.into, &merged.dir, &merged.suite.name, args.json)?;
    say!("longcast: {counts}; table in {}", table.display());
    let complained = complain(&report);
    Ok(if conflicts + unreadable + missing > 0 { ExitCode::from(1) } else { complained })
}

fn complain_of(conflict: &Conflict) {
    let Conflict { task, first, second, differences } = conflict;
    say!("longcast: ALARM: two records of {task} · seed {} differ, and none was copied:", task.seed);
    say!("    one    {}\n    other  {}", first.display(), second.display());
    for difference in differences.iter().take(SHOWN) {
        let distance = match difference.distance() {
            distance if distance.is_finite() => format!(" ({distance:.1e} apart)"),
            _ => String::new(),
        };
        say!("    {}: {} in one, {} in the other{distance}", difference.field, difference.recorded, difference.now);
    }
    if let Some(more @ 1..) = differences.len().checked_sub(SHOWN) {
        say!("    and {more} more");
    }
}
