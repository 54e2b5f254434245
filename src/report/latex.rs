//! The scoreboards as a LaTeX document that compiles as it is.

use std::fmt::Write;

use super::{Cell, Report, Scoreboard, ScoreboardRow, markdown::published_scores};

const PREAMBLE: &str = r"\documentclass[a4paper]{article}
\usepackage[T1]{fontenc}
\usepackage[landscape,margin=15mm]{geometry}
\usepackage{booktabs,longtable}
\setlength{\tabcolsep}{3pt}
\setlength{\LTleft}{0pt}
\setlength{\parindent}{0pt}
\begin{document}
";

/// Characters of the smallest type that stand side by side on a page; a wider table goes on in a further one.
const PAGE: usize = 200;

pub(super) fn render(report: &Report) -> String {
    let mut text = format!("{PREAMBLE}\\section*{{{}}}\n", escaped(&report.suite.name));
    let about = report.suite.about.trim();
    if !about.is_empty() {
        text += &format!("{}\n", escaped(about));
    }
    if let Some(board) = Scoreboard::of_series(report) {
        text += "\\subsection*{Scores}\nMSE / MAE in scaled units, every value of every scored window with equal weight; \
                 \\textbf{best} and \\underline{second} of each row; \\textit{published} numbers in italics. \
                 `avg' is the mean over the horizons above it.\n";
        text += &tables(&board, report, &report.suite.published.columns);
    }
    if let Some(board) = Scoreboard::of_collections(report) {
        text += "\\subsection*{Scores of sets of many series}\nsMAPE in percent / MASE, in the units of the data, the \
                 mean over series; \\textbf{best} and \\underline{second} of each row.\n";
        text += &tables(&board, report, &[]);
    }
    text + "\\end{document}\n"
}

/// A column: its head and its cells, as LaTeX, and its width in characters.
struct Column {
    head: String,
    cells: Vec<String>,
    width: usize,
}

impl Column {
    fn new(head: String, plain: &str, cells: Vec<String>, cell: usize) -> Self {
        Self { head, cells, width: plain.chars().count().max(cell) + 2 }
    }
}

/// One table, or as many as its columns need; each begins with data set, lookback and horizon.
fn tables(board: &Scoreboard, report: &Report, published: &[String]) -> String {
    let places = place(board);
    let left: usize = places.iter().map(|column| column.width).sum();
    let mut text = String::new();
    let mut page: Vec<Column> = vec![];
    for column in scores(board, report, published) {
        let width: usize = page.iter().map(|column| column.width).sum();
        if !page.is_empty() && left + width + column.width > PAGE {
            text += &table(board, &places, &page);
            page.clear();
        }
        page.push(column);
    }
    text + &table(board, &places, &page)
}

fn place(board: &Scoreboard) -> [Column; 3] {
    let column = |head: &str, cell: fn(&ScoreboardRow) -> String| {
        let plain: Vec<String> = board.rows.iter().map(cell).collect();
        let widest = plain.iter().map(|cell| cell.chars().count()).max().unwrap_or(0);
        Column::new(head.into(), head, plain.iter().map(|cell| escaped(cell)).collect(), widest)
    };
    [
        column("data set", |row| row.dataset.clone()),
        column("lookback", |row| row.lookback.to_string()),
        column("horizon", |row| row.horizon.map_or_else(|| "avg".into(), |horizon| horizon.to_string())),
    ]
}

fn scores(board: &Scoreboard, report: &Report, published: &[String]) -> Vec<Column> {
    const WIDTH: usize = "00.000 / 00.000".len();
    let ours = board.models.iter().enumerate().map(|(model, name)| {
        let cell = |row: &ScoreboardRow| row.cells[model].as_ref().map_or("--".into(), |cell| marked(cell, board));
        Column::new(escaped(name), name, board.rows.iter().map(cell).collect(), WIDTH)
    });
    let theirs = published.iter().map(|name| {
        let printed = |row: &ScoreboardRow| match published_scores(report, name, row, board) {
            Some([mse, mae]) => format!("\\textit{{{mse:.3} / {mae:.3}}}"),
            None => "--".into(),
        };
        let head = format!("\\textit{{{} (published)}}", escaped(name));
        let cells = board.rows.iter().map(printed).collect();
        Column::new(head, &format!("{name} (published)"), cells, WIDTH)
    });
    ours.chain(theirs).collect()
}

fn marked(cell: &Cell, board: &Scoreboard) -> String {
    cell.marked(board.decimals, "--", |rank, text| match rank {
        Some(1) => format!("\\textbf{{{text}}}"),
        Some(2) => format!("\\underline{{{text}}}"),
        _ => text,
    })
}

fn table(board: &Scoreboard, places: &[Column; 3], page: &[Column]) -> String {
    let columns = || places.iter().chain(page);
    let line = |cells: &mut dyn Iterator<Item = &str>| cells.collect::<Vec<_>>().join(" & ") + " \\\\\n";
    let mut text =
        format!("{{\\scriptsize\n\\begin{{longtable}}{{@{{}}lrr{}@{{}}}}\n\\toprule\n", "l".repeat(page.len()));
    text += &line(&mut columns().map(|column| column.head.as_str()));
    text += "\\midrule\n\\endhead\n\\bottomrule\n\\endfoot\n";
    for (index, row) in board.rows.iter().enumerate() {
        let before = index.checked_sub(1).map(|before| &board.rows[before]);
        if before.is_some_and(|before| (&before.dataset, before.lookback) != (&row.dataset, row.lookback)) {
            text += "\\midrule\n";
        }
        text += &line(&mut columns().map(|column| column.cells[index].as_str()));
    }
    text + "\\end{longtable}}\n"
}

/// Text as LaTeX prints it. What its fonts do not have is named by its number, so that every document compiles.
fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for c in text.chars() {
        match c {
            '#' | '$' | '%' | '&' | '_' | '{' | '}' => escaped.extend(['\\', c]),
            '\\' => escaped += "\\textbackslash{}",
            '~' => escaped += "\\textasciitilde{}",
            '^' => escaped += "\\textasciicircum{}",
            '`' => escaped += "\\textasciigrave{}",
            '"' => escaped += "\\textquotedbl{}",
            '\'' => escaped += "\\textquotesingle{}",
            // So that no ligature is made of two.
            '-' | '<' | '>' | ',' => escaped.extend([c, '{', '}']),
            '–' => escaped += "\\textendash{}",
            '—' => escaped += "\\textemdash{}",
            '…' => escaped += "\\dots{}",
            '→' => escaped += "\\ensuremath{\\to}",
            '−' => escaped += "\\ensuremath{-}",
            '≤' => escaped += "\\ensuremath{\\le}",
            '≥' => escaped += "\\ensuremath{\\ge}",
            '\n' | '\t' | ' '..='~' | '\u{a1}'..='\u{ac}' | '\u{ae}'..='\u{ff}' => escaped.push(c),
            _ => drop(write!(escaped, "[U+{:04X}]", u32::from(c))),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_means_something_to_latex_is_printed_as_it_is() {
        assert_eq!(escaped("50% of a_b & {c}"), "50\\% of a\\_b \\& \\{c\\}");
        assert_eq!(escaped("\\input"), "\\textbackslash{}input");
        assert_eq!(escaped("a--b"), "a-{}-{}b");
        assert_eq!(escaped("96→720, 天"), "96\\ensuremath{\\to}720,{} [U+5929]");
    }
}
