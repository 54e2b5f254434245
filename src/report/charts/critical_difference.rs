//! Average ranks on one line, and bars over models that are not told apart (Demšar, JMLR 2006, section 3.2; with
//! pairwise tests in place of one critical difference, as in Benavoli et al., JMLR 2016).

use std::ops::Range;

use plotters::{
    prelude::{PathElement, Text},
    style::{
        Color,
        text_anchor::{HPos, VPos},
    },
};

use super::{
    Area, Draw, failed,
    frame::text,
    short,
    theme::{self, Part},
};
use crate::Result;

const WIDTH: u32 = 1200;
const AXIS: i32 = 60;
const ROW: i32 = 36;
/// Room at each side for names.
const SIDE: i32 = 330;

/// A critical-difference diagram.
#[derive(Clone, Debug)]
pub struct CriticalDifference {
    /// Models and their average ranks, the best first.
    pub ranks: Vec<(String, f64)>,
    /// Neighbours no two of which are told apart, two or more, as places in `ranks`.
    pub groups: Vec<Range<usize>>,
}

impl CriticalDifference {
    fn bars(&self) -> i32 {
        self.groups.len() as i32 * 16
    }
}

impl Draw for CriticalDifference {
    fn title(&self) -> String {
        "Average ranks".into()
    }

    fn description(&self) -> String {
        let ranks: Vec<String> = self.ranks.iter().map(|(name, rank)| format!("{name} {rank:.2}")).collect();
        let groups: Vec<String> = self
            .groups
            .iter()
            .map(|group| self.ranks[group.clone()].iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", "))
            .collect();
        let alike = match groups.is_empty() {
            true => String::new(),
            false => format!(" Not told apart: {}.", groups.join("; ")),
        };
        format!("Average ranks, the best first: {}.{alike}", ranks.join("; "))
    }

    fn legend(&self) -> Vec<(&str, usize)> {
        vec![]
    }

    fn size(&self) -> (u32, u32) {
        let rows = self.ranks.len().div_ceil(2) as i32;
        (WIDTH, (AXIS + self.bars() + 30 + (rows + 1) * ROW) as u32)
    }

    fn draw(&self, area: &Area<'_>) -> Result<()> {
        let count = self.ranks.len();
        let most = count.max(2) as f64;
        let place = |rank: f64| SIDE + ((rank - 1.0) / (most - 1.0) * f64::from(WIDTH as i32 - 2 * SIDE)) as i32;
        let path = |points: Vec<(i32, i32)>, part: Part, width: u32| {
            area.draw(&PathElement::new(points, theme::part(part).stroke_width(width))).map_err(failed)
        };
        let write = |words: String, at: (i32, i32), h: HPos, v: VPos| {
            area.draw(&Text::new(words, at, text(Part::Text, h, v))).map_err(failed)
        };
        path(vec![(place(1.0), AXIS), (place(most), AXIS)], Part::Past, 2)?;
        for rank in 1..=count {
            let x = place(rank as f64);
            path(vec![(x, AXIS - 8), (x, AXIS)], Part::Past, 2)?;
            write(rank.to_string(), (x, AXIS - 14), HPos::Center, VPos::Bottom)?;
        }
        // The better half is named on the left, the other on the right, so that no two lines cross.
        for (index, (name, rank)) in self.ranks.iter().enumerate() {
            let left = index < count.div_ceil(2);
            let row = if left { index } else { count - 1 - index } as i32;
            let (x, y) = (place(*rank), AXIS + self.bars() + 40 + row * ROW);
            let edge = if left { SIDE - 24 } else { WIDTH as i32 - SIDE + 24 };
            path(vec![(x, AXIS), (x, y), (edge, y)], Part::Past, 2)?;
            let label = format!("{} · {rank:.2}", short(name));
            let (at, h) = if left { (edge - 10, HPos::Right) } else { (edge + 10, HPos::Left) };
            write(label, (at, y), h, VPos::Center)?;
        }
        for (index, group) in self.groups.iter().enumerate() {
            let y = AXIS + 16 + index as i32 * 16;
            let (first, last) = (place(self.ranks[group.start].1), place(self.ranks[group.end - 1].1));
            path(vec![(first - 8, y), (last + 8, y)], Part::Actual, 8)?;
        }
        Ok(())
    }
}
