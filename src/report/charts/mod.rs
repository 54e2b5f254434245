//! Charts: plain data in, SVG out. Drawn by plotters, in classes instead of colours.
//!
//! Coordinates are half pixels, so that whole numbers are fine enough.

mod critical_difference;
mod forecasts;
mod frame;
mod lines;
mod outlook;
mod scatter;
mod theme;

use std::borrow::Cow;

use askama::Template;
use plotters::{
    coord::Shift,
    drawing::{DrawingArea, IntoDrawingArea},
    prelude::SVGBackend,
};

pub use critical_difference::CriticalDifference;
pub use forecasts::{Forecast, Forecasts};
pub use lines::{Line, Lines};
pub use outlook::{Outlook, Panel};
pub use scatter::{Point, Scatter};
pub use theme::{rules, variables};

use crate::{Error, Result};

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// What can be drawn.
pub trait Draw {
    /// What it shows, in a few words.
    fn title(&self) -> String;

    /// What is to be seen on it, in words: for those who cannot see it.
    fn description(&self) -> String;

    /// Models by name and style, in the order of the suite.
    fn legend(&self) -> Vec<(&str, usize)>;

    /// Width and height, in half pixels.
    fn size(&self) -> (u32, u32) {
        (840, 500)
    }

    /// Draws it into `area`, without title and legend.
    fn draw(&self, area: &Area<'_>) -> Result<()>;
}

#[derive(Template)]
#[template(path = "chart.svg")]
struct Svg<'a> {
    file: bool,
    width: u32,
    height: u32,
    title: &'a str,
    description: &'a str,
    rules: &'a str,
    drawing: &'a str,
}

/// The chart as a part of a page, which has its rules, its title and a legend.
pub fn inline(chart: &dyn Draw) -> Result<String> {
    svg(chart, false)
}

/// The chart as a file of its own.
pub fn standalone(chart: &dyn Draw) -> Result<String> {
    svg(chart, true)
}

fn svg(chart: &dyn Draw, file: bool) -> Result<String> {
    let (width, mut height) = chart.size();
    let legend =
        if file { frame::Legend::new(&chart.title(), &chart.legend(), width) } else { frame::Legend::default() };
    height += legend.height;
    let mut drawing = String::new();
    {
        let root = SVGBackend::with_string(&mut drawing, (width, height)).into_drawing_area();
        let (upper, lower) = root.split_vertically(legend.height);
        if file {
            legend.draw(&upper)?;
        }
        chart.draw(&lower)?;
        root.present().map_err(failed)?;
    }
    let drawing = frame::without_fonts(&theme::with_classes(&drawing));
    // plotters writes the outer tag on lines of their own.
    let inner = drawing.split_once('\n').map_or("", |(_, rest)| rest);
    let inner = inner.trim_end().strip_suffix("</svg>").unwrap_or(inner);
    let (title, description) = (chart.title(), chart.description());
    let rules = if file { rules(false) } else { String::new() };
    let svg = Svg {
        file,
        width,
        height,
        title: &printable(&title),
        description: &printable(&description),
        rules: &rules,
        drawing: inner,
    };
    svg.render().map_err(failed)
}

fn failed(error: impl std::fmt::Display) -> Error {
    Error::other(format!("cannot draw a chart: {error}"))
}

/// A name without what XML cannot hold.
fn printable(text: &str) -> Cow<'_, str> {
    match text.contains(|c: char| c.is_control()) {
        true => Cow::Owned(text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()),
        false => Cow::Borrowed(text),
    }
}

/// A name short enough for a chart.
fn short(name: &str) -> String {
    cut(name, 28)
}

/// At most so many letters.
fn cut(text: &str, most: usize) -> String {
    let text = printable(text);
    match text.chars().count() > most {
        true => text.chars().take(most - 1).chain(['…']).collect(),
        false => text.into_owned(),
    }
}

/// At most `most` points for a curve: means of so many neighbours, at the middle of them.
pub fn thinned(points: &[(f64, f64)], most: usize) -> Vec<(f64, f64)> {
    let size = points.len().div_ceil(most.max(1)).max(1);
    let mean = |group: &[(f64, f64)]| {
        let count = group.len() as f64;
        let sum = group.iter().fold((0.0, 0.0), |sum, point| (sum.0 + point.0, sum.1 + point.1));
        (sum.0 / count, sum.1 / count)
    };
    points.chunks(size).map(mean).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(name: &str) -> Lines {
        let line = |style: usize, height: f64| Line {
            name: format!("{name}{style}"),
            style,
            points: (1..=40).map(|step| (f64::from(step), height + f64::from(step) / 100.0)).collect(),
            mark: None,
        };
        Lines {
            title: "ETTh1, 96 → 40".into(),
            x: "steps ahead",
            y: "MSE",
            lines: vec![line(0, 0.3), line(1, 0.4), line(2, 3.0)],
        }
    }

    #[test]
    fn a_chart_in_a_page_has_classes_and_no_colours() {
        let svg = inline(&chart("model-")).expect("it can be drawn");
        assert!(svg.contains("class=\"l0\"") && svg.contains("class=\"l1\"") && svg.contains("class=\"tx\""), "{svg}");
        assert!(!svg.contains('#'), "{svg}");
        assert!(svg.contains("<title>ETTh1, 96 → 40</title>") && svg.contains("<desc>"), "{svg}");
    }

    #[test]
    fn a_line_far_above_the_others_is_named_instead_of_drawn() {
        let svg = inline(&chart("model-")).expect("it can be drawn");
        assert!(!svg.contains("class=\"l2\"") && svg.contains("above: model-2"), "{svg}");
    }

    #[test]
    fn a_file_has_its_colours_title_and_legend() {
        let svg = standalone(&chart("model-")).expect("it can be drawn");
        assert!(svg.contains("#0072b2") && svg.contains("xmlns=") && svg.matches("model-1").count() >= 2, "{svg}");
    }

    #[test]
    fn a_name_with_markup_is_text() {
        let svg = standalone(&chart("</text><script>\u{1}&\"")).expect("it can be drawn");
        assert!(!svg.contains("<script>") && !svg.contains('\u{1}') && svg.contains("&lt;script"), "{svg}");
    }

    #[test]
    fn a_thinned_curve_keeps_its_mean() {
        let points: Vec<(f64, f64)> = (0..720).map(|step| (f64::from(step), f64::from(step % 24))).collect();
        let thin = thinned(&points, 60);
        assert_eq!(thin.len(), 60);
        let mean = |points: &[(f64, f64)]| points.iter().map(|point| point.1).sum::<f64>() / points.len() as f64;
        assert!((mean(&thin) - mean(&points)).abs() < 1e-9);
        assert_eq!(thinned(&points[..5], 60), points[..5]);
    }

    #[test]
    fn odd_numbers_are_drawn_without_a_panic() {
        for value in [0.0, f64::NAN, f64::INFINITY, -1e300, 1e-300] {
            let line = Line { name: "m".into(), style: 99, points: vec![(1.0, value)], mark: Some((1.0, value)) };
            let chart = Lines { title: String::new(), x: "x", y: "y", lines: vec![line] };
            standalone(&chart).expect("it can be drawn");
            let point = Point { name: "m".into(), style: 0, x: value, y: value };
            standalone(&Scatter { title: String::new(), points: vec![point] }).expect("it can be drawn");
        }
        inline(&Lines { title: String::new(), x: "x", y: "y", lines: vec![] }).expect("it can be drawn");
        inline(&Scatter { title: String::new(), points: vec![] }).expect("it can be drawn");
    }

    #[test]
    fn forecasts_stand_beside_what_came() {
        let values = |from: u16, to: u16| (from..to).map(f64::from).collect::<Vec<f64>>();
        let forecast = Forecast { name: "ridge".into(), style: 1, values: values(96, 192) };
        let chart = Forecasts {
            title: "ETTh1 · OT".into(),
            past: values(0, 96),
            actual: values(96, 192),
            forecasts: vec![forecast],
        };
        let svg = inline(&chart).expect("it can be drawn");
        assert!(["class=\"pa\"", "class=\"ac\"", "class=\"l1\""].iter().all(|class| svg.contains(class)), "{svg}");
    }

    #[test]
    fn models_that_are_not_told_apart_are_joined_by_a_bar() {
        let ranks = [("a", 1.2), ("b", 1.5), ("c", 3.4), ("d", 3.9)].map(|(name, rank)| (name.to_string(), rank));
        let chart = CriticalDifference { ranks: ranks.to_vec(), groups: vec![0..2, 2..4] };
        let svg = inline(&chart).expect("it can be drawn");
        assert_eq!(svg.matches("stroke-width=\"8\"").count(), 2, "{svg}");
        assert!(chart.description().ends_with("Not told apart: a, b; c, d."), "{}", chart.description());
    }
}
