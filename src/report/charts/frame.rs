//! What charts share: axes, text, the legend of a file.

use std::ops::Range;

use plotters::{
    chart::{ChartBuilder, ChartContext},
    coord::{
        ranged1d::{AsRangedCoord, Ranged, ValueFormatter},
        types::RangedCoordf64,
    },
    prelude::{Cartesian2d, PathElement, SVGBackend, Text},
    style::{
        Color, FontDesc, FontFamily, FontStyle, IntoTextStyle, TextStyle,
        text_anchor::{HPos, Pos, VPos},
    },
};

use super::{
    Area, cut, failed, short,
    theme::{self, Part},
};
use crate::Result;

/// A chart with linear values upwards.
pub type Axes<'a, X> = ChartContext<'a, SVGBackend<'a>, Cartesian2d<X, RangedCoordf64>>;

// In the end the rules of the page say how large text is; plotters divides a size by 1.24.
const SIZE: f64 = 22.0 * 1.24;
/// About as wide as a letter is at that size.
pub const LETTER: f64 = 11.5;

/// Text of a chart.
pub fn text(part: Part, h: HPos, v: VPos) -> TextStyle<'static> {
    let font = FontDesc::new(FontFamily::SansSerif, SIZE, FontStyle::Normal);
    font.color(&theme::part(part)).pos(Pos::new(h, v)).into_text_style(&(0, 0))
}

/// The drawing without the font of each of its texts: that is a rule of the page.
pub fn without_fonts(svg: &str) -> String {
    svg.replace(&format!(" font-family=\"sans-serif\" font-size=\"{}\"", SIZE / 1.24), "")
}

/// A chart of this span with its axes drawn.
pub fn axes<'a, X>(
    area: &Area<'a>,
    x: impl AsRangedCoord<CoordDescType = X, Value = f64>,
    y: Range<f64>,
    labels: (&str, &str),
    x_format: &dyn Fn(&f64) -> String,
) -> Result<Axes<'a, X>>
where
    X: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    let mut chart = ChartBuilder::on(area)
        .margin_top(40)
        .margin_right(34)
        .x_label_area_size(72)
        .y_label_area_size(84)
        .build_cartesian_2d(x, y.clone())
        .map_err(failed)?;
    mesh(&mut chart, area, &y, labels, x_format)?;
    Ok(chart)
}

/// Axes with their labels, and nothing but horizontal lines behind the data.
fn mesh<X>(
    chart: &mut Axes<'_, X>,
    area: &Area<'_>,
    y: &Range<f64>,
    labels: (&str, &str),
    x_format: &dyn Fn(&f64) -> String,
) -> Result<()>
where
    X: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    let decimals = decimals(y.end - y.start);
    let (label, grid) = (text(Part::Text, HPos::Center, VPos::Top), theme::part(Part::Grid));
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(grid.mix(0.0))
        .bold_line_style(grid)
        .axis_style(grid)
        .x_labels(6)
        .y_labels(5)
        .x_label_style(label.clone())
        .y_label_style(label)
        .x_label_formatter(x_format)
        .y_label_formatter(&|value| format!("{value:.decimals$}"))
        .draw()
        .map_err(failed)?;
    let (width, height) = area.dim_in_pixel();
    let (x_label, y_label) = labels;
    let below = text(Part::Text, HPos::Right, VPos::Bottom);
    area.draw(&Text::new(x_label.to_string(), (width as i32 - 20, height as i32 - 4), below)).map_err(failed)?;
    let above = text(Part::Text, HPos::Left, VPos::Top);
    area.draw(&Text::new(y_label.to_string(), (4, 4), above)).map_err(failed)
}

/// The span of `values` and a little more; some span where there is none. What is not finite is left out.
pub fn span(values: impl Iterator<Item = f64>) -> Range<f64> {
    // What no error is in earnest would leave no number between its ends.
    let finite = values.filter(|value| value.abs() < 1e30);
    let (low, high) =
        finite.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)));
    if low > high {
        return 0.0..1.0;
    }
    let room = 0.06 * (high - low);
    match room > 1e-9 * high.abs().max(1e-6) {
        true => low - room..high + room,
        false => low - 0.5 * low.abs().max(1e-3)..high + 0.5 * high.abs().max(1e-3),
    }
}

/// Digits after the point that tell the labels of an axis apart.
pub fn decimals(span: f64) -> usize {
    (1.0 - (span / 4.0).log10()).floor().clamp(0.0, 9.0) as usize
}

/// The title of a chart and the names of its lines, above it.
#[derive(Default)]
pub struct Legend {
    title: String,
    /// Name, style, and where it stands.
    entries: Vec<(String, usize, (i32, i32))>,
    pub height: u32,
}

impl Legend {
    pub fn new(title: &str, lines: &[(&str, usize)], width: u32) -> Self {
        let (mut x, mut y) = (20, 76);
        let mut entries = Vec::new();
        for (name, style) in lines {
            let name = short(name);
            let wide = 56 + (name.chars().count() as f64 * LETTER) as i32;
            if x + wide > width as i32 && x > 20 {
                (x, y) = (20, y + 32);
            }
            entries.push((name, *style, (x, y)));
            x += wide + 12;
        }
        Self { title: cut(title, 60), entries, height: y as u32 + if lines.is_empty() { 0 } else { 30 } }
    }

    pub fn draw(&self, area: &Area<'_>) -> Result<()> {
        let title = text(Part::Title, HPos::Left, VPos::Center);
        area.draw(&Text::new(self.title.clone(), (20, 36), title)).map_err(failed)?;
        for (name, style, (x, y)) in &self.entries {
            let line = PathElement::new(vec![(*x, *y), (x + 40, *y)], theme::line(*style).stroke_width(4));
            area.draw(&line).map_err(failed)?;
            let label = text(Part::Text, HPos::Left, VPos::Center);
            area.draw(&Text::new(name.clone(), (x + 48, *y), label)).map_err(failed)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_of_an_axis_have_the_digits_they_need() {
        assert_eq!([0.3, 1.0, 40.0, 1e6, 0.01].map(decimals), [2, 1, 0, 0, 3]);
    }
}
