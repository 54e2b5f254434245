//! One test window: what was, what came, and what models said.

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

/// Steps that are drawn at most, and rows before them: more could not be told apart.
const STEPS: usize = 96;

/// What one model said.
#[derive(Clone, Debug)]
pub struct Forecast {
    pub name: String,
    /// The model's place in its suite.
    pub style: usize,
    pub values: Vec<f64>,
}

/// Forecasts of one window, in the units of the data.
#[derive(Clone, Debug)]
pub struct Forecasts {
    pub title: String,
    /// The lookback, or its end.
    pub past: Vec<f64>,
    pub actual: Vec<f64>,
    pub forecasts: Vec<Forecast>,
}

impl Forecasts {
    /// The past that is shown: no more than twice what is forecast, so that the forecast can be seen.
    fn shown(&self) -> &[f64] {
        &self.past[self.past.len().saturating_sub(STEPS.min(2 * self.actual.len()))..]
    }

    fn axis(&self) -> String {
        match self.actual.len() {
            steps if steps > STEPS => format!("steps from the forecast's start, the first {STEPS} of {steps}"),
            _ => "steps from the forecast's start".into(),
        }
    }
}

// Counted in steps from the first forecast one.
fn stepped(values: &[f64], first: f64) -> Vec<(f64, f64)> {
    let points = values.iter().enumerate().take(STEPS);
    points.map(|(step, value)| (first + step as f64, *value)).filter(|point| point.1.abs() < 1e30).collect()
}

impl Draw for Forecasts {
    fn title(&self) -> String {
        self.title.clone()
    }

    fn description(&self) -> String {
        let error = |forecast: &Forecast| {
            let pairs = forecast.values.iter().zip(&self.actual);
            pairs.map(|(said, came)| (said - came).abs()).sum::<f64>() / self.actual.len().max(1) as f64
        };
        let mut errors: Vec<(f64, &str)> =
            self.forecasts.iter().map(|said| (error(said), said.name.as_str())).collect();
        errors.sort_by(|one, other| one.0.total_cmp(&other.0).then(one.1.cmp(other.1)));
        let errors: Vec<String> = errors.iter().map(|(error, name)| format!("{name} {error:.3}")).collect();
        let steps = self.actual.len();
        format!("{steps} steps and what was forecast of them; mean absolute error here: {}.", errors.join("; "))
    }

    fn legend(&self) -> Vec<(&str, usize)> {
        self.forecasts.iter().map(|forecast| (forecast.name.as_str(), forecast.style)).collect()
    }

    fn draw(&self, area: &Area<'_>) -> Result<()> {
        let past = self.shown();
        let mut lines = vec![
            (stepped(past, -(past.len() as f64)), theme::part(Part::Past), 3),
            (stepped(&self.actual, 0.0), theme::part(Part::Actual), 4),
        ];
        lines.extend(self.forecasts.iter().map(|said| (stepped(&said.values, 0.0), theme::line(said.style), 3)));
        let points = || lines.iter().flat_map(|(points, ..)| points);
        let (x, y) = (span(points().map(|point| point.0)), span(points().map(|point| point.1)));
        let mut chart = axes(area, x, y.clone(), (&self.axis(), "value"), &|value| format!("{value:.0}"))?;
        let start = PathElement::new(vec![(-0.5, y.start), (-0.5, y.end)], theme::part(Part::Grid).stroke_width(3));
        chart.draw_series([start]).map_err(failed)?;
        for (points, color, width) in lines {
            chart.draw_series(LineSeries::new(points, color.stroke_width(width))).map_err(failed)?;
        }
        Ok(())
    }
}
