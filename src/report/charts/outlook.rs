//! A forecast of the future: what was, what is expected, and how far it may be off.

use plotters::{
    prelude::{LineSeries, PathElement, Polygon},
    style::Color,
};

use super::{
    Area, Draw, failed,
    frame::{axes, span},
    theme::{self, Part},
};
use crate::Result;

/// The height of one variate's panel, in half pixels.
const PANEL: u32 = 440;
/// Variates that are drawn at most; the file with the numbers holds all.
pub const PANELS: usize = 12;

/// The future of one variate.
#[derive(Clone, Debug)]
pub struct Panel {
    pub variate: String,
    /// The last rows that are known.
    pub past: Vec<f64>,
    pub future: Vec<f64>,
    /// Lower and upper ends, the narrowest first.
    pub bands: Vec<(Vec<f64>, Vec<f64>)>,
}

/// The future of several variates, one below the other.
#[derive(Clone, Debug)]
pub struct Outlook {
    pub title: String,
    /// What the line of the forecast is called.
    pub name: String,
    /// The time of each row, those of the past first, as it is to be read; without it rows are counted from the first
    /// forecast one.
    pub times: Vec<String>,
    pub panels: Vec<Panel>,
}

impl Outlook {
    fn shown(&self) -> &[Panel] {
        &self.panels[..self.panels.len().min(PANELS)]
    }
}

impl Panel {
    fn rows(&self, values: &[f64], first: usize) -> Vec<(f64, f64)> {
        let points = values.iter().enumerate().map(|(row, value)| ((first + row) as f64, *value));
        points.filter(|point| point.1.abs() < 1e30).collect()
    }

    fn draw(&self, outlook: &Outlook, area: &Area<'_>) -> Result<()> {
        let start = self.past.len();
        let past = self.rows(&self.past, 0);
        let mut future = self.rows(&self.future, start);
        // The forecast goes on from the last known value.
        let joint = past.last().copied();
        future.splice(0..0, joint);
        let bands: Vec<[Vec<(f64, f64)>; 2]> =
            self.bands.iter().map(|(lower, upper)| [self.rows(lower, start), self.rows(upper, start)]).collect();
        let points = || past.iter().chain(&future).chain(bands.iter().flatten().flatten());
        let (x, y) = (span(points().map(|point| point.0)), span(points().map(|point| point.1)));
        let label = |row: &f64| match outlook.times.is_empty() {
            true => format!("{:.0}", row - start as f64 + 1.0),
            false => {
                let row = row.round();
                let known = row >= 0.0 && row < outlook.times.len() as f64;
                if known { outlook.times[row as usize].clone() } else { String::new() }
            }
        };
        let below = if outlook.times.is_empty() { "rows ahead" } else { "" };
        let mut chart = axes(area, x, y.clone(), (below, &super::short(&self.variate)), &label)?;
        // The widest first, so that the narrower ones lie on it.
        for [lower, upper] in bands.iter().rev() {
            let outline: Vec<(f64, f64)> =
                joint.into_iter().chain(lower.iter().copied()).chain(upper.iter().rev().copied()).collect();
            chart.draw_series([Polygon::new(outline, theme::line(0).mix(0.18))]).map_err(failed)?;
        }
        let edge = start as f64 - 0.5;
        let border = PathElement::new(vec![(edge, y.start), (edge, y.end)], theme::part(Part::Grid).stroke_width(3));
        chart.draw_series([border]).map_err(failed)?;
        let lines = [(past, theme::part(Part::Actual), 3), (future, theme::line(0), 4)];
        for (points, color, width) in lines {
            chart.draw_series(LineSeries::new(points, color.stroke_width(width))).map_err(failed)?;
        }
        Ok(())
    }
}

impl Draw for Outlook {
    fn title(&self) -> String {
        self.title.clone()
    }

    fn description(&self) -> String {
        let each = |panel: &Panel| {
            let ends = |values: &[f64]| values.first().zip(values.last()).map(|(first, last)| (*first, *last));
            match (panel.past.last(), ends(&panel.future)) {
                (Some(past), Some((first, last))) => format!(
                    "{}: {past:.4} in the last known row, {first:.4} in the next, {last:.4} after {} rows",
                    panel.variate,
                    panel.future.len()
                ),
                _ => panel.variate.clone(),
            }
        };
        let shown: Vec<String> = self.shown().iter().map(each).collect();
        let left_out = self.panels.len() - shown.len();
        let more = if left_out > 0 { format!(" {left_out} more variates are not drawn.") } else { String::new() };
        format!("Known rows and their forecast. {}.{more}", shown.join("; "))
    }

    fn legend(&self) -> Vec<(&str, usize)> {
        vec![(&self.name, 0)]
    }

    fn size(&self) -> (u32, u32) {
        (1400, PANEL * self.shown().len().max(1) as u32)
    }

    fn draw(&self, area: &Area<'_>) -> Result<()> {
        for (panel, area) in self.shown().iter().zip(area.split_evenly((self.shown().len().max(1), 1))) {
            panel.draw(self, &area)?;
        }
        Ok(())
    }
}
