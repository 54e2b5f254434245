//! The tables for machines.

use serde_json::json;

use super::{Ranking, Report, Scoreboard, markdown::comparisons};
use crate::{Error, Result};

pub(super) fn render(report: &Report) -> Result<String> {
    let value = json!({
        "suite": report.suite.name,
        "about": report.suite.about,
        "series": Scoreboard::of_series(report),
        "collections": Scoreboard::of_collections(report),
        "ranking": Scoreboard::of_series(report).as_ref().and_then(Ranking::of),
        "published": comparisons(report),
        "failures": report.failures,
        "warnings": report.warnings(),
        "unreadable": report.unreadable,
    });
    let text = serde_json::to_string_pretty(&value).map_err(|error| Error::other(error.to_string()))?;
    Ok(text + "\n")
}
