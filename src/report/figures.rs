//! From records to charts: which there are, and what is drawn on them.

use std::collections::BTreeMap;

use super::{
    Ranking, Report, Scoreboard,
    charts::{CriticalDifference, Draw, Forecast, Forecasts, Line, Lines, Point, Scatter, thinned},
};
use crate::benchmark::{Example, Record, file_safe};

/// Points of a curve at most.
const POINTS: usize = 60;

/// What a chart shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Ranks,
    Steps,
    Forecasts,
    Time,
    Training,
}

impl Kind {
    /// The word for it in names of files.
    pub fn word(self) -> &'static str {
        match self {
            Self::Ranks => "ranks",
            Self::Steps => "steps",
            Self::Forecasts => "forecasts",
            Self::Time => "time",
            Self::Training => "training",
        }
    }
}

/// A chart and where it belongs.
pub struct Figure {
    pub kind: Kind,
    /// Empty where it is of all data sets.
    pub dataset: String,
    pub lookback: usize,
    /// `None` where it is of all horizons.
    pub horizon: Option<usize>,
    pub chart: Box<dyn Draw>,
}

impl Figure {
    /// What a file with it is called, less the extension.
    pub fn file_stem(&self, suite: &str) -> String {
        let mut name = format!("{suite}-{}", self.kind.word());
        if !self.dataset.is_empty() {
            name += &format!("-{}-{}", self.dataset, self.lookback);
        }
        if let Some(horizon) = self.horizon {
            name += &format!("-{horizon}");
        }
        file_safe(&name)
    }
}

/// Average ranks of models over the rows of a report, where there are enough.
fn ranks(report: &Report) -> Option<CriticalDifference> {
    let ranking = Ranking::of(&Scoreboard::of_series(report)?)?;
    let ranks = ranking.models.iter().map(|model| (model.name.clone(), model.average_rank)).collect();
    Some(CriticalDifference { ranks, groups: ranking.groups })
}

/// Records of one data set, lookback and horizon, in the order of models and seeds.
struct Place<'a> {
    dataset: &'a str,
    lookback: usize,
    horizon: usize,
    records: Vec<&'a Record>,
}

impl Place<'_> {
    fn title(&self) -> String {
        format!("{}, {} → {}", self.dataset, self.lookback, self.horizon)
    }
}

fn places(report: &Report) -> Vec<Place<'_>> {
    let mut places: BTreeMap<_, Vec<&Record>> = BTreeMap::new();
    for record in &report.records {
        let task = &record.task;
        let order = report.suite.dataset_order(&task.dataset);
        places.entry((order, &*task.dataset, task.lookback, task.horizon)).or_default().push(record);
    }
    let style = styles(report);
    places
        .into_iter()
        .map(|((_, dataset, lookback, horizon), mut records)| {
            records.sort_by_key(|record| (style(&record.task.name), record.task.seed));
            Place { dataset, lookback, horizon, records }
        })
        .collect()
}

/// A model's place in the report, which is how its lines look.
pub(super) fn styles(report: &Report) -> impl Fn(&str) -> usize {
    let models: Vec<String> = report.models().into_iter().map(String::from).collect();
    move |name| models.iter().position(|model| model == name).unwrap_or(models.len())
}

/// Every chart of a report: by kind, data set, lookback and horizon.
pub fn figures(report: &Report) -> Vec<Figure> {
    let style = styles(report);
    let places = places(report);
    let mut figures: Vec<Figure> = Vec::new();
    if let Some(chart) = ranks(report) {
        let (dataset, chart) = (String::new(), Box::new(chart));
        figures.push(Figure { kind: Kind::Ranks, dataset, lookback: 0, horizon: None, chart });
    }
    let mut add = |kind: Kind, place: &Place<'_>, horizon: Option<usize>, chart: Box<dyn Draw>| {
        figures.push(Figure { kind, dataset: place.dataset.to_string(), lookback: place.lookback, horizon, chart });
    };
    for place in &places {
        if let Some(chart) = steps(place, &style) {
            add(Kind::Steps, place, Some(place.horizon), Box::new(chart));
        }
    }
    for place in &places {
        let of_records: Vec<_> = place.records.iter().map(|record| (*record, &record.examples[..])).collect();
        for chart in forecasts(place, &of_records, &style) {
            add(Kind::Forecasts, place, Some(place.horizon), Box::new(chart));
        }
    }
    for group in places.chunk_by(|one, other| one.dataset == other.dataset && one.lookback == other.lookback) {
        if let Some(chart) = time(group, &style) {
            add(Kind::Time, &group[0], None, Box::new(chart));
        }
    }
    for place in &places {
        if let Some(chart) = training(place, &style) {
            add(Kind::Training, place, Some(place.horizon), Box::new(chart));
        }
    }
    figures
}

/// The error of each step ahead, the mean over seeds.
fn steps(place: &Place<'_>, style: &impl Fn(&str) -> usize) -> Option<Lines> {
    let of_models = place.records.chunk_by(|one, other| one.task.name == other.task.name);
    let lines: Vec<Line> = of_models
        .filter_map(|records| {
            let steps = records.iter().map(|record| record.scores.per_step.mse.len()).min()?;
            let mean = |step: usize| {
                records.iter().map(|record| record.scores.per_step.mse[step]).sum::<f64>() / records.len() as f64
            };
            let points: Vec<(f64, f64)> = (0..steps).map(|step| ((step + 1) as f64, mean(step))).collect();
            let name = records[0].task.name.clone();
            Some(Line { style: style(&name), name, points: thinned(&points, POINTS), mark: None })
        })
        .filter(|line| line.points.len() > 1)
        .collect();
    (!lines.is_empty()).then(|| Lines { title: place.title(), x: "steps ahead", y: "MSE", lines })
}

/// Validation errors by epoch, relative to the smallest: models have losses of their own.
fn training(place: &Place<'_>, style: &impl Fn(&str) -> usize) -> Option<Lines> {
    let line = |record: &&Record| {
        let epochs = record.curve.iter().map(|epoch| (epoch.epoch as f64, epoch.valid_loss));
        // Of equal epochs the last one's weights are kept.
        let best = epochs.clone().rev().min_by(|one, other| one.1.total_cmp(&other.1)).filter(|best| best.1 > 0.0)?;
        let points: Vec<(f64, f64)> = epochs.map(|(epoch, loss)| (epoch, loss / best.1)).collect();
        let name = record.task.name.clone();
        Some(Line { style: style(&name), name, points: thinned(&points, POINTS), mark: Some((best.0, 1.0)) })
    };
    let lines: Vec<Line> = place.records.iter().filter_map(line).collect();
    let (title, y) = (place.title(), "validation loss / its smallest");
    lines.iter().any(|line| line.points.len() > 1).then_some(Lines { title, x: "epoch", y, lines })
}

/// Seconds against the mean error of those models that have been scored at every horizon of the group.
fn time(group: &[Place<'_>], style: &impl Fn(&str) -> usize) -> Option<Scatter> {
    let mut sums: BTreeMap<usize, (&str, usize, f64, f64)> = BTreeMap::new();
    for place in group {
        for records in place.records.chunk_by(|one, other| one.task.name == other.task.name) {
            let name = &*records[0].task.name;
            let count = records.len() as f64;
            let sum = sums.entry(style(name)).or_insert((name, 0, 0.0, 0.0));
            sum.1 += 1;
            sum.2 += records.iter().map(|record| record.seconds.fit + record.seconds.evaluate).sum::<f64>() / count;
            sum.3 += records.iter().map(|record| record.scores.mse).sum::<f64>() / count;
        }
    }
    let complete = sums.into_iter().filter(|(_, (_, places, ..))| *places == group.len());
    let points: Vec<Point> = complete
        .map(|(style, (name, places, seconds, mse))| {
            let y = mse / places as f64;
            Point { name: name.to_string(), style, x: seconds, y }
        })
        .collect();
    let title = format!("{}, lookback {}", group[0].dataset, group[0].lookback);
    (points.len() > 1).then_some(Scatter { title, points })
}

/// Windows and what all models forecast of them, each window once.
fn forecasts(
    place: &Place<'_>,
    of_records: &[(&Record, &[Example])],
    style: &impl Fn(&str) -> usize,
) -> Vec<Forecasts> {
    let mut windows: BTreeMap<(&str, usize, &str), Forecasts> = BTreeMap::new();
    for (record, examples) in of_records {
        for example in *examples {
            let window = windows.entry((&*example.series, example.row, &example.variate)).or_insert_with(|| {
                let when = example.time.clone().unwrap_or_else(|| format!("row {}", example.row));
                Forecasts {
                    title: format!("{} · {} · {when}", place.title(), example.variate),
                    past: example.past.clone(),
                    actual: example.actual.clone(),
                    forecasts: vec![],
                }
            });
            let name = &record.task.name;
            // Of several seeds the first is shown.
            if window.forecasts.iter().all(|forecast| forecast.name != *name) {
                let (name, values) = (name.clone(), example.forecast.clone());
                window.forecasts.push(Forecast { style: style(&name), name, values });
            }
        }
    }
    windows.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::report;

    #[test]
    fn a_suite_has_a_chart_for_each_place_and_one_of_time() {
        let report = report();
        let figures = figures(&report);
        let of = |kind: Kind| figures.iter().filter(|figure| figure.kind == kind).count();
        assert_eq!((of(Kind::Steps), of(Kind::Time), of(Kind::Training)), (2, 1, 2));
        assert_eq!(figures[0].file_stem("su/ite"), "su_ite-steps-Made_____-8-2");
    }

    #[test]
    fn a_window_has_one_line_a_model() {
        let report = report();
        let place = &places(&report)[0];
        let example = |row: usize, value: f64| Example {
            series: "s".into(),
            row,
            time: None,
            variate: "OT".into(),
            past: vec![1.0; 8],
            actual: vec![2.0; 2],
            forecast: vec![value; 2],
        };
        let examples: Vec<_> =
            (0..place.records.len()).map(|index| [example(40, index as f64), example(10, index as f64)]).collect();
        let of_records: Vec<_> =
            place.records.iter().zip(&examples).map(|(record, examples)| (*record, &examples[..])).collect();
        let charts = forecasts(place, &of_records, &styles(&report));
        assert_eq!(charts.len(), 2);
        assert!(charts[0].title.ends_with("OT · row 10"), "{}", charts[0].title);
        assert_eq!(charts[0].forecasts.len(), report.models().len());
    }
}
