//! A forecast as a table, a file, a picture.

use std::path::{Path, PathBuf};

use anyhow::Context;
use serde_json::{Value, json};

use super::choice::Choice;
use crate::{
    benchmark::write_whole,
    cli::{Usage, png::png, print},
    data::loader::{NumberTable, written},
    evaluator::Verdict,
    forecaster::Pipeline,
    report::Outlook,
};

/// One object a row, under the names of the table's columns.
fn rows(table: &NumberTable) -> Vec<Value> {
    let (time, times) = &table.time;
    let count = table.columns.first().map_or(0, |(_, values)| values.len());
    let row = |row: usize| {
        let stamp = times.get(row).map(|stamp| (time.clone(), json!(written(stamp, times))));
        let values = table.columns.iter().map(|(name, values)| (name.clone(), json!(values[row])));
        Value::Object(stamp.into_iter().chain(values).collect())
    };
    (0..count).map(row).collect()
}

/// The forecast and the model it is of.
pub fn json(table: &NumberTable, pipeline: &Pipeline, choice: Option<&Choice>) -> Value {
    let shape = pipeline.shape();
    let mut object = json!({
        "model": pipeline.model(),
        "params": pipeline.params(),
        "lookback": shape.lookback,
        "horizon": shape.horizon,
        "step": pipeline.step(),
        "season": pipeline.season(),
        "levels": pipeline.intervals().map(|intervals| intervals.levels()),
        "forecast": rows(table),
    });
    if let Some(choice) = choice {
        object["fitted_on_all_rows"] = json!(choice.refitted);
        let tried = choice.tried.iter().map(|tried| match &tried.verdict {
            Verdict::Scored { mse, mae } => {
                json!({"model": tried.plan.model, "lookback": tried.plan.lookback, "valid_mse": mse, "valid_mae": mae})
            }
            Verdict::TooSlow => {
                json!({"model": tried.plan.model, "lookback": tried.plan.lookback, "failed": "no time"})
            }
            Verdict::Failed(why) => json!({"model": tried.plan.model, "lookback": tried.plan.lookback, "failed": why}),
        });
        object["candidates"] = tried.collect();
    }
    object
}

/// Refuses a file whose name has none of `endings`, or whose folder cannot be written to.
pub fn check_file(option: &str, file: Option<&Path>, endings: &[&str]) -> anyhow::Result<()> {
    let Some(file) = file else { return Ok(()) };
    if !ending_of(file).is_some_and(|ending| endings.contains(&ending.as_str())) {
        let message = format!("{option} {}: the name ends in .{}", file.display(), endings.join(", ."));
        return Err(Usage(message).into());
    }
    if file.is_dir() {
        return Err(Usage(format!("{option} {}: a folder has this name", file.display())).into());
    }
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !folder.is_dir() {
        return Err(Usage(format!("{option} {}: there is no folder {}", file.display(), folder.display())).into());
    }
    check_folder(option, folder)
}

/// Refuses a folder that cannot be written to, or cannot be made.
pub fn check_folder(option: &str, folder: &Path) -> anyhow::Result<()> {
    let there = folder.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("."));
    let written = tempfile::tempfile_in(there);
    written.map(drop).with_context(|| format!("{option}: cannot write into {}", there.display()))
}

pub fn ending_of(file: &Path) -> Option<String> {
    file.extension().map(|ending| ending.to_string_lossy().to_lowercase())
}

/// What is written where.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Output")]
pub struct OutputArgs {
    /// Write the forecast here, as .csv, .parquet or .json, and not to stdout
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Draw what was and what is forecast, as .svg, .png or .html
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl OutputArgs {
    /// Refuses what cannot be written, before there is anything to write.
    pub fn check(&self) -> anyhow::Result<()> {
        check_file("--output", self.output.as_deref(), &["csv", "parquet", "json"])?;
        check_file("--plot", self.plot.as_deref(), &["svg", "png", "html"])
    }

    /// Writes the table, and the picture where one is asked for.
    pub fn write(
        &self,
        table: &NumberTable,
        object: impl FnOnce() -> Value,
        outlook: impl FnOnce() -> Outlook,
        facts: &[String],
    ) -> anyhow::Result<()> {
        let ending = self.output.as_deref().and_then(ending_of);
        let bytes = match (ending.as_deref(), self.json) {
            (Some("parquet"), _) => table.parquet()?,
            (Some("json"), _) | (None, true) => (serde_json::to_string_pretty(&object())? + "\n").into_bytes(),
            _ => table.csv()?,
        };
        if let Some(file) = &self.plot {
            let picture = match ending_of(file).as_deref() {
                Some("html") => outlook().page(facts)?.into_bytes(),
                Some("png") => png(&outlook().svg()?).with_context(|| format!("--plot {}", file.display()))?,
                _ => outlook().svg()?.into_bytes(),
            };
            write_whole(file, &picture)?;
        }
        match &self.output {
            Some(file) => write_whole(file, &bytes)?,
            None => print(&String::from_utf8_lossy(&bytes))?,
        }
        Ok(())
    }
}
