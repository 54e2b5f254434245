//! Tables to read.

use std::{collections::BTreeSet, fmt::Write, ops::Range};

use serde::Serialize;

use super::{Cell, LEVEL, Ranking, Report, Scoreboard, ScoreboardRow, seeds::spreads};
use crate::benchmark::{Learning, Record, Task};

pub(super) fn render(report: &Report) -> String {
    let mut text = format!("# {}\n", report.suite.name);
    let about = report.suite.about.trim();
    if !about.is_empty() {
        text += &format!("\n{about}\n");
    }
    let series = Scoreboard::of_series(report);
    if let Some(board) = &series {
        text += "\n## Scores\n\nMSE / MAE in scaled units, every value of every scored window with equal weight; **best** and \
                 <u>second</u> of each row. `avg` is the mean over the horizons above it.\n\n";
        text += &scores(board, report);
    }
    if let Some(board) = Scoreboard::of_collections(report) {
        text += "\n## Scores of sets of many series\n\nsMAPE in percent / MASE, in the units of the data, the mean over \
                 series; **best** and <u>second</u> of each row.\n\n";
        text += &scores(&board, report);
    }
    if let Some(board) = series.as_ref().and_then(skill) {
        text += "\n## Skill\n\n1 − MSE / MSE of `repeat`, in percent: how much of the last value's error a model takes away.\n\n";
        text += &board;
    }
    if let Some(ranking) = series.as_ref().and_then(Ranking::of) {
        text += "\n## Ranks\n\n";
        text += &ranks(&ranking);
    }
    if let Some(seeds) = seeds(report) {
        text += "\n## Seeds\n\nWhere seeds differ: MSE and MAE, the mean over all seeds and the deviation of one seed \
                 (n − 1), and the smallest and the largest MSE.\n\n";
        text += &seeds;
    }
    if let Some(intervals) = intervals(report) {
        text += "\n## Intervals\n\nCalibrated on the validation windows, scored on the test windows: the share of values inside, the \
                 mean width in scaled units, the mean scaled interval score (MSIS) and the weighted quantile loss (WQL).\n\n";
        text += &intervals;
    }
    let comparisons = comparisons(report);
    if !comparisons.is_empty() {
        text += "\n## Beside the published numbers\n\nThe same model, data set, lookback and horizon as printed in a paper; \
                 the distance is ours relative to theirs.\n\n";
        text += &compared(&comparisons);
    }
    if let Some(pretrained) = pretrained(report) {
        text += "\n## Pretrained weights\n\nWhat a model had learnt from before it came to the data set it is scored on, and \
                 what it learnt there. Zero shot means that neither weights nor training saw the data set; a scaler was \
                 fitted on its training rows all the same.\n\n";
        text += &pretrained;
    }
    if !report.failures.is_empty() {
        text += "\n## Failed\n\nRun, and without a score; the next run tries them again.\n\n";
        for failure in &report.failures {
            text += &format!("- {failure}\n");
        }
    }
    text += "\n## What was scored\n\n";
    text += &windows(report);
    let warnings = report.warnings();
    if !warnings.is_empty() || !report.unreadable.is_empty() {
        text += "\n## Warnings\n\n";
        for warning in &warnings {
            text += &format!("- {warning}\n");
        }
        for problem in &report.unreadable {
            text += &format!("- {problem}\n");
        }
    }
    text
}

fn scores(board: &Scoreboard, report: &Report) -> String {
    let published = if board.metrics[0] == "MSE" { &report.suite.published.columns[..] } else { &[] };
    let mut header = vec!["data set".to_string(), "lookback".into(), "horizon".into()];
    header.extend(board.models.iter().cloned());
    header.extend(published.iter().map(|model| format!("*{model} (published)*")));
    let rows = board.rows.iter().map(|row| {
        let mut line = place(row);
        line.extend(row.cells.iter().map(|cell| cell.as_ref().map_or("–".into(), |cell| marked(cell, board.decimals))));
        line.extend(published.iter().map(|model| match published_scores(report, model, row, board) {
            Some([mse, mae]) => format!("*{mse:.3} / {mae:.3}*"),
            None => "–".into(),
        }));
        line
    });
    table(&header, rows)
}

fn place(row: &ScoreboardRow) -> Vec<String> {
    let horizon = row.horizon.map_or_else(|| "avg".into(), |horizon| horizon.to_string());
    vec![row.dataset.clone(), row.lookback.to_string(), horizon]
}

fn marked(cell: &Cell, decimals: usize) -> String {
    cell.marked(decimals, "–", |rank, text| match rank {
        Some(1) => format!("**{text}**"),
        Some(2) => format!("<u>{text}</u>"),
        _ => text,
    })
}

/// MSE and MAE that the paper prints, or the means of them over the horizons of our table.
pub(super) fn published_scores(
    report: &Report,
    model: &str,
    row: &ScoreboardRow,
    board: &Scoreboard,
) -> Option<[f64; 2]> {
    let horizons: Vec<usize> = match row.horizon {
        Some(horizon) => vec![horizon],
        None => {
            let same = |other: &&ScoreboardRow| other.dataset == row.dataset && other.lookback == row.lookback;
            board.rows.iter().filter(same).filter_map(|other| other.horizon).collect()
        }
    };
    let printed: Option<Vec<(f64, f64)>> = horizons
        .iter()
        .map(|horizon| {
            let cell = report.published.get(model, &row.dataset, row.lookback, *horizon)?;
            Some((cell.mse, cell.mae?))
        })
        .collect();
    let printed = printed?;
    let count = printed.len() as f64;
    let mse = printed.iter().map(|(mse, _)| mse).sum::<f64>() / count;
    let mae = printed.iter().map(|(_, mae)| mae).sum::<f64>() / count;
    Some([mse, mae])
}

fn skill(board: &Scoreboard) -> Option<String> {
    let repeat = board.models.iter().position(|model| model == "repeat")?;
    let mut header = vec!["data set".to_string(), "lookback".into(), "horizon".into()];
    header.extend(board.models.iter().filter(|model| *model != "repeat").cloned());
    let rows =
        board.rows.iter().filter_map(|row| {
            let mse = |cell: &Option<Cell>| cell.as_ref().and_then(|cell| cell.scores[0]);
            let reference = mse(&row.cells[repeat]).filter(|mse| *mse > 0.0)?;
            let mut line = place(row);
            line.extend(row.cells.iter().enumerate().filter(|(model, _)| *model != repeat).map(|(_, cell)| {
                mse(cell).map_or("–".into(), |mse| format!("{:+.1}", 100.0 * (1.0 - mse / reference)))
            }));
            Some(line)
        });
    Some(table(&header, rows))
}

fn ranks(ranking: &Ranking) -> String {
    let count = ranking.rows;
    let mut text = format!(
        "Average rank by MSE over the {count} rows that all of these models stand in; what is equal to the printed \
         digit shares a rank. Friedman's χ² is {:.1} (p {}). Two models count as told apart where Wilcoxon's \
         signed-rank test over the rows, with Holm's correction for all pairs, gives p < {LEVEL}. Rows of one data \
         set are not independent of one another, so that p is rather too small than too large.\n\n",
        ranking.friedman,
        probability(ranking.friedman_p)
    );
    let header = ["model", "average rank", "best in rows", "not told apart from"].map(String::from);
    let rows = ranking.models.iter().map(|model| {
        let alike = ranking.pairs.iter().filter(|pair| !pair.told_apart()).filter_map(|pair| {
            let other = if pair.one == model.name { Some(&pair.other) } else { Some(&pair.one) };
            other.filter(|_| pair.one == model.name || pair.other == model.name).cloned()
        });
        let alike: Vec<String> = alike.collect();
        let alike = if alike.is_empty() { "–".into() } else { alike.join(", ") };
        vec![model.name.clone(), format!("{:.2}", model.average_rank), model.best.to_string(), alike]
    });
    text += &table(&header, rows);
    text
}

fn probability(p: f64) -> String {
    if p < 0.001 { "< 0.001".into() } else { format!("{p:.3}") }
}

/// What intervals promise and what they hold.
fn intervals(report: &Report) -> Option<String> {
    let mut levels: Vec<f64> = report.records.iter().flat_map(|record| &record.task.levels).copied().collect();
    levels.sort_by(f64::total_cmp);
    levels.dedup();
    let mut records: Vec<&Record> = report.records.iter().filter(|record| record.intervals.is_some()).collect();
    records.sort_by_key(|record| {
        let Task { dataset, name, lookback, horizon, seed, .. } = &record.task;
        (report.suite.dataset_order(dataset), *lookback, *horizon, report.suite.model_order(name), *seed)
    });
    let mut header: Vec<String> = ["data set", "lookback", "horizon", "model", "seed"].map(String::from).into();
    header.extend(levels.iter().flat_map(|level| [format!("{level} % inside"), "width".into(), "MSIS".into()]));
    header.push("WQL".into());
    let rows = records.iter().map(|record| {
        let Task { dataset, name, lookback, horizon, seed, .. } = &record.task;
        let mut row = vec![dataset.clone(), lookback.to_string(), horizon.to_string(), name.clone(), seed.to_string()];
        let scores = record.intervals.as_ref();
        for level in &levels {
            let found = scores.and_then(|scores| scores.levels.iter().find(|scores| scores.level == *level));
            row.extend(match found {
                None => ["–"; 3].map(String::from),
                Some(scores) => [
                    format!("{:.1} %", scores.coverage),
                    format!("{:.3}", scores.width),
                    scores.msis.map_or("–".into(), |msis| format!("{msis:.2}")),
                ],
            });
        }
        let loss = scores.and_then(|scores| scores.weighted_quantile_loss);
        row.push(loss.map_or("–".into(), |loss| format!("{loss:.3}")));
        row
    });
    (!records.is_empty()).then(|| table(&header, rows))
}

/// How scores spread over seeds, where they do.
fn seeds(report: &Report) -> Option<String> {
    let spreads = spreads(report);
    let rows = spreads.iter().map(|spread| {
        vec![
            spread.dataset.clone(),
            spread.lookback.to_string(),
            spread.horizon.to_string(),
            spread.model.clone(),
            spread.seeds.to_string(),
            spread.text(0),
            format!("{:.4}", spread.smallest_mse),
            format!("{:.4}", spread.largest_mse),
            spread.text(1),
        ]
    });
    let header = ["data set", "lookback", "horizon", "model", "seeds", "MSE", "smallest", "largest", "MAE"];
    (!spreads.is_empty()).then(|| table(&header.map(String::from), rows))
}

/// One of our scores beside the paper's.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Comparison {
    pub dataset: String,
    pub lookback: usize,
    pub horizon: usize,
    pub model: String,
    pub published_model: String,
    pub mse: f64,
    pub mae: f64,
    pub published_mse: f64,
    pub published_mae: Option<f64>,
    /// Ours over theirs, less 1.
    pub distance_mse: f64,
    pub distance_mae: Option<f64>,
    pub source: String,
}

/// Every score of ours for which the suite names a published model that has this cell.
pub(super) fn comparisons(report: &Report) -> Vec<Comparison> {
    let Some(board) = Scoreboard::of_series(report) else { return vec![] };
    let mut comparisons = Vec::new();
    for row in &board.rows {
        let Some(horizon) = row.horizon else { continue };
        for (model, cell) in board.models.iter().zip(&row.cells) {
            let Some(Cell { scores: [Some(mse), Some(mae)], .. }) = *cell else { continue };
            let Some(published_model) = report.suite.published.models.get(model) else { continue };
            let Some(published) = report.published.get(published_model, &row.dataset, row.lookback, horizon) else {
                continue;
            };
            comparisons.push(Comparison {
                dataset: row.dataset.clone(),
                lookback: row.lookback,
                horizon,
                model: model.clone(),
                published_model: published_model.clone(),
                mse,
                mae,
                published_mse: published.mse,
                published_mae: published.mae,
                distance_mse: mse / published.mse - 1.0,
                distance_mae: published.mae.map(|published| mae / published - 1.0),
                source: published.source.clone(),
            });
        }
    }
    comparisons
}

fn compared(comparisons: &[Comparison]) -> String {
    let header = [
        "data set",
        "lookback",
        "horizon",
        "model",
        "published as",
        "MSE",
        "published",
        "distance",
        "MAE",
        "published",
        "distance",
        "source",
    ]
    .map(String::from);
    let percent = |distance: f64| format!("{:+.1} %", 100.0 * distance);
    let rows = comparisons.iter().map(|row| {
        vec![
            row.dataset.clone(),
            row.lookback.to_string(),
            row.horizon.to_string(),
            row.model.clone(),
            row.published_model.clone(),
            format!("{:.3}", row.mse),
            format!("{:.3}", row.published_mse),
            percent(row.distance_mse),
            format!("{:.3}", row.mae),
            row.published_mae.map_or("–".into(), |mae| format!("{mae:.3}")),
            row.distance_mae.map_or("–".into(), percent),
            row.source.clone(),
        ]
    });
    table(&header, rows)
}

/// The weights that tasks started from.
fn pretrained(report: &Report) -> Option<String> {
    let mut rows = BTreeSet::new();
    for record in &report.records {
        let task = &record.task;
        let Some(init) = &task.init else { continue };
        let seen = init.datasets.contains(&task.dataset);
        let learns = match task.learning {
            Learning::Full => "all windows".into(),
            Learning::FewShot(percent) => format!("the first {percent} % of the windows"),
            Learning::ZeroShot => "nothing: zero shot".into(),
            Learning::AsIs if seen => "nothing more".into(),
            Learning::AsIs => "nothing: zero shot".into(),
        };
        let order = (report.suite.dataset_order(&task.dataset), report.suite.model_order(&task.name));
        let sets = init.datasets.join(", ");
        let hash: String = init.weights.chars().take(12).collect();
        let seen = if seen { "yes" } else { "no" };
        rows.insert((order, [task.dataset.clone(), task.name.clone(), sets, seen.into(), learns, hash]));
    }
    let header =
        ["data set", "model", "weights learnt from", "this set among them", "learns here", "sha256 of weights"];
    let lines = rows.iter().map(|(_, line)| line.to_vec());
    (!rows.is_empty()).then(|| table(&header.map(String::from), lines))
}

fn windows(report: &Report) -> String {
    let header =
        ["data set", "lookback", "horizon", "windows scored", "of", "train rows", "test rows", "sha256 of the data"];
    let mut lines: Vec<(usize, usize, usize, Vec<String>)> = report
        .records
        .iter()
        .map(|record| {
            let task = &record.task;
            let split = record.data.split.as_ref();
            let rows =
                |rows: Option<&Range<usize>>| rows.map_or("–".into(), |rows| format!("{}..{}", rows.start, rows.end));
            let line = vec![
                task.dataset.clone(),
                task.lookback.to_string(),
                task.horizon.to_string(),
                record.windows_scored.to_string(),
                record.windows_possible.to_string(),
                rows(split.map(|split| &split.train)),
                rows(split.map(|split| &split.test)),
                record.data.sha256.chars().take(12).collect(),
            ];
            (report.suite.dataset_order(&task.dataset), task.lookback, task.horizon, line)
        })
        .collect();
    lines.sort();
    lines.dedup();
    table(&header.map(String::from), lines.into_iter().map(|(.., line)| line))
}

// Columns padded so that the table also reads well as plain text.
pub(super) fn table(header: &[String], rows: impl Iterator<Item = Vec<String>>) -> String {
    let rows: Vec<Vec<String>> = rows.collect();
    let width = |column: usize| {
        let cells = rows.iter().map(|row| &row[column]).chain([&header[column]]);
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let mut text = String::new();
    let mut line = |cells: &[String]| {
        for (cell, width) in cells.iter().zip(&widths) {
            let padding = width - cell.chars().count();
            let _ = write!(text, "| {cell}{} ", " ".repeat(padding));
        }
        text += "|\n";
    };
    line(header);
    line(&widths.iter().map(|width| "-".repeat(*width)).collect::<Vec<_>>());
    rows.iter().for_each(|row| line(row));
    text
}
