//! What was, and what a model says comes next.

use plotters::{
    prelude::{LineSeries, PathElement},
    style::Color,
};

use super::{
    Area, Draw, failed,
    frame::{axes, span},
    theme::{self, Part},
};
use crate::Result;

/// A forecast of what has not come yet, in the units of the data.
#[derive(Clone, Debug)]
pub struct Continued {
    pub title: String,
    pub past: Vec<f64>,
    /// Who forecasts.
    pub name: String,
    pub next: Vec<f64>,
}

impl Draw for Continued {
    fn title(&self) -> String {
        self.title.clone()
    }

    fn description(&self) -> String {
        let (past, next) = (&self.past, &self.next);
        let ends = |values: &[f64]| match (values.first(), values.last()) {
            (Some(first), Some(last)) => format!("{first:.3} to {last:.3}"),
            _ => "none".into(),
        };
        let (steps, rows) = (next.len(), past.len());
        format!("{steps} steps after {rows}. What was: {}; {}: {}.", ends(past), self.name, ends(next))
    }

    fn legend(&self) -> Vec<(&str, usize)> {
        vec![(&self.name, 0)]
    }

    fn size(&self) -> (u32, u32) {
        (1360, 560)
    }

    fn draw(&self, area: &Area<'_>) -> Result<()> {
        let points = |values: &[f64], first: f64| -> Vec<(f64, f64)> {
            let steps = values.iter().enumerate().map(|(step, value)| (first + step as f64, *value));
            steps.filter(|point| point.1.abs() < 1e30).collect()
        };
        // Counted in steps from the first that is forecast.
        let (past, next) = (points(&self.past, -(self.past.len() as f64)), points(&self.next, 0.0));
        let all = || past.iter().chain(&next);
        let (x, y) = (span(all().map(|point| point.0)), span(all().map(|point| point.1)));
        let labels = ("steps from the forecast's start", "value");
        let mut chart = axes(area, x, y.clone(), labels, &|value| format!("{value:.0}"))?;
        let start = PathElement::new(vec![(-0.5, y.start), (-0.5, y.end)], theme::part(Part::Grid).stroke_width(3));
        chart.draw_series([start]).map_err(failed)?;
        chart.draw_series(LineSeries::new(past.clone(), theme::part(Part::Actual).stroke_width(3))).map_err(failed)?;
        chart.draw_series(LineSeries::new(next.clone(), theme::line(0).stroke_width(4))).map_err(failed)?;
        Ok(())
    }
}
