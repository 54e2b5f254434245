//! One page with everything: tables, charts, and the receipt behind each number. No network, no script but
//! its own.

mod boards;
mod receipts;

use std::{collections::BTreeMap, path::Path};

use askama::Template;

use super::{
    Report, charts,
    figures::{Figure, Kind, figures},
    seeds::{Spread, spreads},
};
use crate::{Error, Result};
use boards::Board;
use receipts::Receipts;

#[derive(Template)]
#[template(path = "report.html")]
struct Page<'a> {
    title: String,
    style: &'static str,
    script: &'static str,
    rules: String,
    light: String,
    dark: String,
    facts: String,
    suites: Vec<Suite<'a>>,
    receipts: Receipts<'a>,
}

/// One results folder.
struct Suite<'a> {
    name: &'a str,
    about: Vec<String>,
    facts: Vec<(&'static str, String)>,
    datasets: Vec<&'a str>,
    horizons: Vec<usize>,
    models: Vec<&'a str>,
    has_published: bool,
    boards: Vec<Board>,
    groups: Vec<Group>,
    spreads: Vec<Spread>,
    warnings: Vec<String>,
}

/// The charts of one kind.
struct Group {
    title: &'static str,
    about: &'static str,
    legend: Vec<(String, usize)>,
    figures: Vec<Drawn>,
}

struct Drawn {
    title: String,
    dataset: String,
    horizon: Option<usize>,
    description: String,
    svg: String,
}

/// The page of these reports; the first is shown first.
pub(super) fn render(reports: &[Report]) -> Result<String> {
    let several = reports.len() > 1;
    let suites = reports.iter().map(|report| suite(report, several)).collect::<Result<Vec<_>>>()?;
    let title = match &suites[..] {
        [one] => one.name.to_string(),
        _ => "results".into(),
    };
    let records: usize = reports.iter().map(|report| report.records.len()).sum();
    let page = Page {
        title,
        style: include_str!("../../../templates/style.css"),
        script: include_str!("../../../templates/script.js"),
        rules: charts::rules(true),
        light: charts::variables(false),
        dark: charts::variables(true),
        facts: match suites.len() {
            1 => counted(records, "record"),
            several => format!("{} in {several} suites", counted(records, "record")),
        },
        suites,
        receipts: Receipts::new(reports),
    };
    page.render().map_err(|error| Error::other(format!("cannot write the page: {error}")))
}

/// A page of `several` suites is to stay light.
fn suite(report: &Report, several: bool) -> Result<Suite<'_>> {
    let records = &report.records;
    let mut datasets: Vec<&str> = records.iter().map(|record| &*record.task.dataset).collect();
    datasets.sort_by_key(|dataset| (report.suite.dataset_order(dataset), *dataset));
    datasets.dedup();
    let mut horizons: Vec<usize> = records.iter().map(|record| record.task.horizon).collect();
    horizons.sort_unstable();
    horizons.dedup();
    let models = report.models();
    let windows: usize = records.iter().map(|record| record.windows_scored).sum();
    let seconds: f64 = records.iter().map(|record| record.seconds.fit + record.seconds.evaluate).sum();
    let boards = boards::of(report);
    let mut figures = figures(report);
    if several {
        only_longest(&mut figures);
    }
    // Windows of a data set.
    let most = if several { 1 } else { 12 };
    let mut shown = BTreeMap::new();
    figures.retain(|figure| {
        let count = shown.entry((figure.dataset.clone(), figure.lookback)).or_insert(0);
        *count += usize::from(figure.kind == Kind::Forecasts);
        figure.kind != Kind::Forecasts || *count <= most
    });
    Ok(Suite {
        name: &report.suite.name,
        about: report
            .suite
            .about
            .split("\n\n")
            .map(|text| text.trim().to_string())
            .filter(|text| !text.is_empty())
            .collect(),
        facts: vec![
            ("records", thousands(records.len())),
            ("models", models.len().to_string()),
            ("data sets", datasets.len().to_string()),
            ("windows scored", thousands(windows)),
            ("computed in", duration(seconds)),
        ],
        has_published: boards.iter().any(Board::has_published),
        boards,
        datasets,
        horizons,
        models,
        groups: groups(figures)?,
        spreads: spreads(report),
        warnings: report
            .failures
            .iter()
            .map(|failure| format!("failed: {failure}"))
            .chain(report.warnings().iter().map(ToString::to_string))
            .chain(report.unreadable.iter().cloned())
            .collect(),
    })
}

/// Of charts that there are one of for each horizon, those of the longest, which stand for all.
fn only_longest(figures: &mut Vec<Figure>) {
    let mut longest = BTreeMap::new();
    for figure in &*figures {
        let longest = longest.entry((figure.kind, figure.dataset.clone(), figure.lookback)).or_insert(figure.horizon);
        *longest = figure.horizon.max(*longest);
    }
    figures.retain(|figure| figure.horizon == longest[&(figure.kind, figure.dataset.clone(), figure.lookback)]);
    figures.iter_mut().for_each(|figure| figure.horizon = None);
}

fn groups(figures: Vec<Figure>) -> Result<Vec<Group>> {
    let mut groups = Vec::new();
    for of_kind in figures.chunk_by(|one, other| one.kind == other.kind) {
        let (title, about) = match of_kind[0].kind {
            Kind::Ranks => ("Average ranks", "A bar joins models that are not different; further left is better."),
            Kind::Steps => (
                "Error by step ahead",
                "MSE in scaled units, the mean over seeds. A model far above the others is named instead of drawn.",
            ),
            Kind::Forecasts => ("Forecasts and what came", "Test windows of one variate, in the units of the data."),
            Kind::Time => (
                "Time against error",
                "Wall time of fitting and scoring, summed over horizons, against mean MSE: further down and left is better.",
            ),
            Kind::Training => (
                "Training",
                "Validation loss by epoch, relative to its smallest; a dot marks the epoch whose weights were kept. One line a seed.",
            ),
        };
        let legend: BTreeMap<usize, &str> =
            of_kind.iter().flat_map(|figure| figure.chart.legend()).map(|(name, style)| (style, name)).collect();
        let legend = legend.into_iter().map(|(style, name)| (name.to_string(), style)).collect();
        let figures = of_kind.iter().map(drawn).collect::<Result<_>>()?;
        groups.push(Group { title, about, legend, figures });
    }
    Ok(groups)
}

fn drawn(figure: &Figure) -> Result<Drawn> {
    Ok(Drawn {
        title: figure.chart.title(),
        dataset: figure.dataset.clone(),
        horizon: figure.horizon,
        description: figure.chart.description(),
        svg: charts::inline(&*figure.chart)?,
    })
}

/// The name of a record's file less its extension, which is how a link names it.
fn stem(file: &Path) -> String {
    file.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

fn counted(count: usize, thing: &str) -> String {
    format!("{} {thing}{}", thousands(count), if count == 1 { "" } else { "s" })
}

/// Digits in groups of three, a narrow space between them.
fn thousands(count: usize) -> String {
    let digits = count.to_string();
    let groups: Vec<&str> = (0..digits.len().div_ceil(3))
        .rev()
        .map(|group| {
            let end = digits.len() - 3 * group;
            &digits[end.saturating_sub(3)..end]
        })
        .collect();
    groups.join("\u{202f}")
}

fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 100.0 => format!("{s:.1} s"),
        s if s < 6000.0 => format!("{:.0} min", s / 60.0),
        s => format!("{:.1} h", s / 3600.0),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::report::tests::{hostile, report};

    fn data(page: &str) -> Value {
        let json = page.split("<script type=\"application/json\" id=\"data\">").nth(1).expect("there is data");
        serde_json::from_str(json.split("</script>").next().expect("it ends")).expect("it is JSON")
    }

    #[test]
    fn the_page_needs_nothing_from_elsewhere() {
        let page = render(&[report()]).expect("it can be written");
        assert!(
            !page.contains(" src=") && !page.contains("url(") && !page.contains("@import") && !page.contains("<link")
        );
        assert_eq!(page.matches("http").count(), page.matches("http-equiv").count(), "no address is in it");
        assert!(page.contains("default-src 'none'"));
    }

    #[test]
    fn the_same_records_give_the_same_bytes() {
        assert_eq!(render(&[report(), report()]).ok(), render(&[report(), report()]).ok());
    }

    #[test]
    fn a_page_of_several_suites_has_charts_of_the_longest_horizons_only() {
        let charts = |reports: &[Report]| render(reports).expect("it can be written").matches("<figure").count();
        let (one, two) = (charts(&[report()]), charts(&[report(), report()]));
        assert!(two > one && two < 2 * one, "{one} and {two}");
    }

    #[test]
    fn names_with_markup_stay_names() {
        let page = render(&[hostile()]).expect("it can be written");
        assert_eq!(page.matches("</script>").count(), 2, "the data and the script end where they end");
        assert!(!page.contains("<img src=x") && !page.contains("alert(1)\">"), "{page}");
        assert_eq!(data(&page)["settings"][0]["name"], "</script><img src=x onerror=\"alert(1)\">&'");
    }

    #[test]
    fn every_record_has_a_receipt_and_cells_link_to_it() {
        let report = report();
        let page = render(std::slice::from_ref(&report)).expect("it can be written");
        let data = data(&page);
        let records = data["suites"][0]["records"].as_array().expect("there are records");
        assert_eq!(records.len(), report.records.len());
        for record in records {
            let stem = record[0].as_str().expect("the file's name").trim_end_matches(".json");
            let first_seed = stem.contains("-s1-");
            assert_eq!(page.contains(&format!("href=\"#made/{stem}\"")), first_seed, "{stem}");
        }
    }

    #[test]
    fn numbers_are_grouped() {
        assert_eq!([7, 1085, 1_234_567].map(thousands), ["7", "1\u{202f}085", "1\u{202f}234\u{202f}567"]);
    }
}
