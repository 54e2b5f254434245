//! Lines: error by step, training curves.

use plotters::{
    prelude::{Circle, LineSeries, Text},
    style::{
        Color,
        text_anchor::{HPos, VPos},
    },
};

use super::{
    Area, Draw, cut, failed,
    frame::{axes, span, text},
    short,
    theme::{self, Part},
};
use crate::Result;

/// How many times the error of the best may be another's that is drawn beside it: one far above would
/// leave no room to tell the others apart.
const FAR: f64 = 2.5;

/// The line of one model.
#[derive(Clone, Debug)]
pub struct Line {
    pub name: String,
    /// The model's place in its suite.
    pub style: usize,
    pub points: Vec<(f64, f64)>,
    /// A point to mark.
    pub mark: Option<(f64, f64)>,
}

impl Line {
    fn mean(&self) -> f64 {
        self.points.iter().map(|point| point.1).sum::<f64>() / self.points.len().max(1) as f64
    }
}

/// Lines over one axis.
#[derive(Clone, Debug)]
pub struct Lines {
    pub title: String,
    pub x: &'static str,
    pub y: &'static str,
    pub lines: Vec<Line>,
}

impl Lines {
    /// Those drawn, and those far above them.
    fn parted(&self) -> (Vec<&Line>, Vec<&Line>) {
        let best = self.lines.iter().map(Line::mean).fold(f64::INFINITY, f64::min);
        let (near, far): (Vec<_>, Vec<_>) = self.lines.iter().partition(|line| line.mean() <= FAR * best);
        if near.len() < 2 { (self.lines.iter().collect(), vec![]) } else { (near, far) }
    }
}

impl Draw for Lines {
    fn title(&self) -> String {
        self.title.clone()
    }

    fn description(&self) -> String {
        let mut ends: Vec<(&str, f64, f64)> = self
            .lines
            .iter()
            .filter_map(|line| Some((line.name.as_str(), line.points.first()?.1, line.points.last()?.1)))
            .collect();
        ends.sort_by(|one, other| one.2.total_cmp(&other.2).then(one.0.cmp(other.0)));
        let ends: Vec<String> =
            ends.iter().map(|(name, first, last)| format!("{name} {first:.3} to {last:.3}")).collect();
        format!("{} over {}, from the first to the last point, lowest end first: {}.", self.y, self.x, ends.join("; "))
    }

    fn legend(&self) -> Vec<(&str, usize)> {
        let mut legend: Vec<(&str, usize)> = self.lines.iter().map(|line| (line.name.as_str(), line.style)).collect();
        legend.sort_by_key(|(_, style)| *style);
        legend.dedup();
        legend
    }

    fn draw(&self, area: &Area<'_>) -> Result<()> {
        let (near, far) = self.parted();
        let x = span(near.iter().flat_map(|line| &line.points).map(|point| point.0));
        let y = span(near.iter().flat_map(|line| &line.points).map(|point| point.1));
        let mut chart = axes(area, x, y, (self.x, self.y), &|value| format!("{value:.0}"))?;
        for line in near {
            let color = theme::line(line.style);
            let finite = line.points.iter().copied().filter(|point| point.1.abs() < 1e30);
            chart.draw_series(LineSeries::new(finite, color.stroke_width(4))).map_err(failed)?;
            let marked = line.mark.filter(|mark| mark.1.abs() < 1e30);
            chart.draw_series(marked.map(|mark| Circle::new(mark, 7, color.filled()))).map_err(failed)?;
        }
        if !far.is_empty() {
            let names: Vec<String> =
                far.iter().map(|line| format!("{} {:.2}", short(&line.name), line.mean())).collect();
            let style = text(Part::Text, HPos::Right, VPos::Top);
            let place = (area.dim_in_pixel().0 as i32 - 20, 4);
            area.draw(&Text::new(cut(&format!("above: {}", names.join(", ")), 48), place, style)).map_err(failed)?;
        }
        Ok(())
    }
}
