//! Time against error: a point a model.

use plotters::{
    prelude::{Circle, IntoLogRange, Polygon, Text},
    style::{
        Color,
        text_anchor::{HPos, VPos},
    },
};

use super::{
    Area, Draw, failed,
    frame::{LETTER, axes, span, text},
    short,
    theme::{self, Part},
};
use crate::Result;

/// A model.
#[derive(Clone, Debug)]
pub struct Point {
    pub name: String,
    /// The model's place in its suite.
    pub style: usize,
    /// Seconds.
    pub x: f64,
    /// MSE.
    pub y: f64,
}

/// Seconds on a logarithmic axis against errors.
#[derive(Clone, Debug)]
pub struct Scatter {
    pub title: String,
    pub points: Vec<Point>,
}

// 0.003 → "3 ms"
fn seconds(value: &f64) -> String {
    match *value {
        v if v < 0.9995e-3 => format!("{:.0} µs", v * 1e6),
        v if v < 0.9995 => format!("{:.0} ms", v * 1e3),
        v if v < 600.0 => format!("{v:.0} s"),
        v if v < 6000.0 => format!("{:.0} min", v / 60.0),
        v => format!("{:.1} h", v / 3600.0),
    }
}

impl Draw for Scatter {
    fn title(&self) -> String {
        self.title.clone()
    }

    fn description(&self) -> String {
        let mut points: Vec<&Point> = self.points.iter().collect();
        points.sort_by(|one, other| one.y.total_cmp(&other.y).then(one.name.cmp(&other.name)));
        let points: Vec<String> =
            points.iter().map(|point| format!("{} {:.3} in {}", point.name, point.y, seconds(&point.x))).collect();
        format!("MSE and seconds of fitting and scoring, lowest error first: {}.", points.join("; "))
    }

    fn legend(&self) -> Vec<(&str, usize)> {
        // Points are named where they stand.
        vec![]
    }

    fn draw(&self, area: &Area<'_>) -> Result<()> {
        let drawn = || self.points.iter().filter(|point| point.x > 0.0 && point.x < 1e12 && point.y.abs() < 1e30);
        let decades = span(drawn().map(|point| point.x.log10()));
        let x = 10f64.powf((decades.start - 0.15).floor())..10f64.powf((decades.end + 0.15).ceil());
        let y = span(drawn().map(|point| point.y));
        let chart = axes(area, x.log_scale(), y, ("fitting and scoring", "MSE"), &seconds)?;
        let mut places: Vec<(&Point, (i32, i32))> =
            drawn().map(|point| (point, chart.backend_coord(&(point.x, point.y)))).collect();
        let (origin, _) = area.get_base_pixel();
        let top = area.get_base_pixel().1;
        places.iter_mut().for_each(|(_, place)| *place = (place.0 - origin, place.1 - top));
        for (point, place) in &places {
            mark(area, *place, point.style)?;
        }
        let mut taken: Vec<Label> = places.iter().map(|(_, (x, y))| Label::around(*x, *y)).collect();
        for (point, place) in &places {
            let name = short(&point.name);
            if let Some((label, h)) = Label::free(*place, &name, &taken, area.dim_in_pixel()) {
                let style = text(Part::Text, h, VPos::Center);
                let x = if matches!(h, HPos::Left) { label.left } else { label.right };
                area.draw(&Text::new(name, (x, (label.top + label.bottom) / 2), style)).map_err(failed)?;
                taken.push(label);
            }
        }
        Ok(())
    }
}

// Shapes tell models apart where colours do not.
fn mark(area: &Area<'_>, (x, y): (i32, i32), style: usize) -> Result<()> {
    let color = theme::line(style);
    let corners = match style % 4 {
        0 => return area.draw(&Circle::new((x, y), 9, color.filled())).map_err(failed),
        1 => vec![(x, y - 11), (x + 10, y + 8), (x - 10, y + 8)],
        2 => vec![(x - 8, y - 8), (x + 8, y - 8), (x + 8, y + 8), (x - 8, y + 8)],
        _ => vec![(x, y - 12), (x + 12, y), (x, y + 12), (x - 12, y)],
    };
    area.draw(&Polygon::new(corners, color.filled())).map_err(failed)
}

/// Room that is taken.
struct Label {
    left: i32,
    right: i32,
    top: i32,
    bottom: i32,
}

impl Label {
    fn around(x: i32, y: i32) -> Self {
        Self { left: x - 10, right: x + 10, top: y - 10, bottom: y + 10 }
    }

    fn overlaps(&self, other: &Self) -> bool {
        self.left < other.right && other.left < self.right && self.top < other.bottom && other.top < self.bottom
    }

    /// The first place beside a point where nothing else stands.
    fn free((x, y): (i32, i32), name: &str, taken: &[Self], (width, height): (u32, u32)) -> Option<(Self, HPos)> {
        let wide = (name.chars().count() as f64 * LETTER) as i32;
        let at = |left: i32, middle: i32| Self { left, right: left + wide, top: middle - 13, bottom: middle + 13 };
        let tries = [0, -22, 22, -40, 40, -58, 58]
            .into_iter()
            .flat_map(|shift| [(at(x + 16, y + shift), HPos::Left), (at(x - 16 - wide, y + shift), HPos::Right)]);
        tries.into_iter().find(|(label, _)| {
            let inside = label.left >= 88 && label.right <= width as i32 - 4 && label.top >= 30;
            inside && label.bottom <= height as i32 - 74 && !taken.iter().any(|other| label.overlaps(other))
        })
    }
}
