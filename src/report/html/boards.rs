//! The tables of a page: each score with its rank, its receipt and what a paper prints.

use std::collections::BTreeMap;

use super::{Report, stem};
use crate::report::{
    Scoreboard, ScoreboardRow,
    figures::styles,
    markdown::{Comparison, comparisons, published_scores},
    scores::Cell,
};

/// A table.
pub(super) struct Board {
    pub title: &'static str,
    pub about: &'static str,
    pub metrics: [&'static str; 2],
    pub models: Vec<Model>,
    /// Columns of papers.
    pub published: Vec<String>,
    pub rows: Vec<Row>,
}

pub(super) struct Model {
    pub name: String,
    /// Its place in the suite, by which charts draw it.
    pub style: usize,
}

pub(super) struct Row {
    pub dataset: String,
    pub lookback: usize,
    /// `None` in a row of means.
    pub horizon: Option<usize>,
    pub cells: Vec<Option<Entry>>,
    /// What papers print, in the order of [`Board::published`].
    pub published: Vec<Option<[String; 2]>>,
}

pub(super) struct Entry {
    /// Score and rank; the rank is "" after the second.
    pub scores: [(String, &'static str); 2],
    /// The record it is from, or the first of several seeds.
    pub record: Option<String>,
    pub seeds: usize,
    /// The printed numbers of the same model and the distances to them.
    pub beside: Option<Vec<(String, &'static str)>>,
}

impl Board {
    pub fn has_published(&self) -> bool {
        !self.published.is_empty()
            || self.rows.iter().flat_map(|row| row.cells.iter().flatten()).any(|cell| cell.beside.is_some())
    }
}

type Place<'a> = (&'a str, usize, usize, &'a str);

/// The tables of a report.
pub(super) fn of(report: &Report) -> Vec<Board> {
    let mut files: BTreeMap<Place<'_>, Vec<(u64, String)>> = BTreeMap::new();
    for (record, file) in report.records.iter().zip(&report.files) {
        let task = &record.task;
        let place = (&*task.dataset, task.lookback, task.horizon, &*task.name);
        files.entry(place).or_default().push((task.seed, stem(file)));
    }
    files.values_mut().for_each(|files| files.sort());
    let compared = comparisons(report);
    let compared: BTreeMap<Place<'_>, &Comparison> =
        compared.iter().map(|c| ((&*c.dataset, c.lookback, c.horizon, &*c.model), c)).collect();
    let series = Scoreboard::of_series(report).map(|board| {
        let about = "In scaled units, every value of every scored window with equal weight. Rows of means are over the \
                     horizons above them.";
        (board, "Scores", about, report.suite.published.columns.clone())
    });
    let collections = Scoreboard::of_collections(report).map(|board| {
        let about = "sMAPE in percent and MASE, in the units of the data, the mean over series.";
        (board, "Scores of sets of many series", about, vec![])
    });
    let style = styles(report);
    series
        .into_iter()
        .chain(collections)
        .map(|(board, title, about, published)| Board {
            title,
            about,
            metrics: board.metrics,
            models: board.models.iter().map(|name| Model { style: style(name), name: name.clone() }).collect(),
            rows: board.rows.iter().map(|row| as_row(report, &board, row, &published, &files, &compared)).collect(),
            published,
        })
        .collect()
}

fn as_row(
    report: &Report,
    board: &Scoreboard,
    row: &ScoreboardRow,
    published: &[String],
    files: &BTreeMap<Place<'_>, Vec<(u64, String)>>,
    compared: &BTreeMap<Place<'_>, &Comparison>,
) -> Row {
    let entry = |(model, cell): (&String, &Option<Cell>)| {
        let cell = cell.as_ref()?;
        let place = row.horizon.map(|horizon| (&*row.dataset, row.lookback, horizon, &**model));
        let files = place.and_then(|place| files.get(&place));
        let beside = place.and_then(|place| compared.get(&place)).filter(|_| board.metrics[0] == "MSE");
        Some(Entry {
            scores: [0, 1].map(|metric| score(cell, metric, board.decimals)),
            record: files.and_then(|files| files.first()).map(|(_, stem)| stem.clone()),
            seeds: files.map_or(0, Vec::len),
            beside: beside.copied().map(printed),
        })
    };
    Row {
        dataset: row.dataset.clone(),
        lookback: row.lookback,
        horizon: row.horizon,
        cells: board.models.iter().zip(&row.cells).map(entry).collect(),
        published: published
            .iter()
            .map(|model| {
                published_scores(report, model, row, board).map(|scores| scores.map(|score| format!("{score:.3}")))
            })
            .collect(),
    }
}

fn score(cell: &Cell, metric: usize, decimals: usize) -> (String, &'static str) {
    if cell.failed {
        return ("failed".into(), "failed");
    }
    let text = cell.text(metric, decimals, "–");
    let rank = match cell.ranks[metric] {
        Some(1) => "first",
        Some(2) => "second",
        _ => "",
    };
    (text, rank)
}

fn printed(beside: &Comparison) -> Vec<(String, &'static str)> {
    let part = |published: f64, distance: f64| format!("{published:.3} {:+.1}\u{202f}%", 100.0 * distance);
    let mae = beside.published_mae.zip(beside.distance_mae).map(|(mae, distance)| (part(mae, distance), "two"));
    [(part(beside.published_mse, beside.distance_mse), "one")].into_iter().chain(mae).collect()
}
