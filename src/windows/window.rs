//! Every sliding window whose target lies in given rows, as views.

use std::ops::Range;

use ndarray::{ArrayView2, s};
use rand::{SeedableRng, seq::index};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::batch::{Batches, Order};
use crate::{Error, Result, data::Series};

/// The sizes of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WindowShape {
    /// Rows a forecast is made from.
    pub lookback: usize,
    /// Rows that are forecast.
    pub horizon: usize,
    /// Columns of each row.
    pub variates: usize,
    /// Calendar features of each row, 0 for data without timestamps.
    pub time_features: usize,
}

impl WindowShape {
    /// The shape of windows over `series`.
    ///
    /// # Errors
    /// If lookback or horizon is 0.
    pub fn of(series: &Series, lookback: usize, horizon: usize) -> Result<Self> {
        for (name, size) in [("lookback", lookback), ("horizon", horizon)] {
            if size == 0 {
                return Err(Error::Shape(format!("{name} must be at least 1")));
            }
        }
        let time_features = series.time_features().ncols();
        Ok(Self { lookback, horizon, variates: series.variates().len(), time_features })
    }
}

/// One question and its answer; all arrays are views into the series.
#[derive(Clone, Debug)]
pub struct Window<'a> {
    /// Which of the series it is cut from.
    pub series: usize,
    /// The row of the first target.
    pub row: usize,
    /// `[lookback, variates]`.
    pub lookback: ArrayView2<'a, f64>,
    /// `[horizon, variates]`.
    pub target: ArrayView2<'a, f64>,
    /// `[lookback, time features]`.
    pub past_time: ArrayView2<'a, f32>,
    /// `[horizon, time features]`.
    pub future_time: ArrayView2<'a, f32>,
}

/// Neighbouring windows of one series: window `i` covers rows `i .. i + lookback + horizon`.
#[derive(Clone, Debug)]
pub struct Run<'a> {
    /// The series the rows belong to.
    pub series: &'a Series,
    /// The rows that the windows cover together.
    pub rows: Range<usize>,
    /// How many windows there are, each one row after the other.
    pub windows: usize,
}

#[derive(Clone, Copy, Debug)]
struct Segment {
    series: usize,
    first_target: usize,
    windows: usize,
}

impl Segment {
    /// Only the windows `range` of it.
    fn part(self, range: Range<usize>) -> Self {
        Self { first_target: self.first_target + range.start, windows: range.len(), ..self }
    }
}

/// Every window with stride 1 whose target lies in the given rows of the given series.
///
/// Targets do not depend on the lookback, as long as it fits before the first of them: the
/// lookback of the first window reaches back before the rows of its part.
#[derive(Clone, Debug)]
pub struct Windows<'a> {
    series: &'a [Series],
    segments: Vec<Segment>,
    shape: WindowShape,
    len: usize,
    whole_past: bool,
    dropped: Option<Dropped>,
}

/// How some windows are left out, others in each epoch.
#[derive(Clone, Debug)]
struct Dropped {
    /// What they are left out of.
    all: Vec<Segment>,
    batch: usize,
    seed: u64,
}

impl<'a> Windows<'a> {
    /// The windows whose targets lie in `targets[i]` of `series[i]`.
    ///
    /// Series too short for a window are passed over.
    ///
    /// # Errors
    /// If no series has a window, a range reaches over the end of its series, or a series does not
    /// have the variates or time features of `shape`.
    pub fn new(series: &'a [Series], targets: &[Range<usize>], shape: WindowShape) -> Result<Self> {
        Self::cut(series, targets, shape, false)
    }

    /// The same, each lookback reaching to the first row of its series, however short or long
    /// that is.
    ///
    /// For sets of many short series, where methods may use all that came before.
    ///
    /// # Errors
    /// As for [`new`](Self::new).
    pub fn whole_past(series: &'a [Series], targets: &[Range<usize>], shape: WindowShape) -> Result<Self> {
        Self::cut(series, targets, shape, true)
    }

    fn cut(series: &'a [Series], targets: &[Range<usize>], shape: WindowShape, whole_past: bool) -> Result<Self> {
        if series.len() != targets.len() {
            return Err(Error::Shape(format!("{} series, but {} target ranges", series.len(), targets.len())));
        }
        let mut segments = Vec::new();
        for (index, (series, targets)) in series.iter().zip(targets).enumerate() {
            let expected = WindowShape::of(series, shape.lookback, shape.horizon)?;
            if expected != shape {
                return Err(Error::Shape(format!(
                    "{}: {} variates and {} time features, not {} and {}",
                    series.name(),
                    expected.variates,
                    expected.time_features,
                    shape.variates,
                    shape.time_features
                )));
            }
            if targets.end > series.len() {
                return Err(Error::Shape(format!(
                    "{}: rows up to {} are asked for, but there are {}",
                    series.name(),
                    targets.end,
                    series.len()
                )));
            }
            let first_target = targets.start.max(if whole_past { 1 } else { shape.lookback });
            let windows = (targets.end + 1).saturating_sub(first_target.saturating_add(shape.horizon));
            if windows > 0 {
                segments.push(Segment { series: index, first_target, windows });
            }
        }
        let len = segments.iter().map(|segment| segment.windows).sum();
        match (len, series) {
            (0, []) => Err(Error::Shape("there is no series to cut windows from".into())),
            (0, [series, ..]) => Err(Error::TooFewRows {
                series: series.name().to_string(),
                rows: targets[0].clone(),
                lookback: shape.lookback,
                horizon: shape.horizon,
            }),
            _ => Ok(Self { series, segments, shape, len, whole_past, dropped: None }),
        }
    }

    /// Only as many windows, from the first on, as fill batches of `size`.
    ///
    /// Repeats papers whose test loader dropped the last incomplete batch. 0 keeps all.
    ///
    /// # Errors
    /// If not one batch is full.
    pub fn whole_batches(self, size: usize) -> Result<Self> {
        if size == 0 {
            return Ok(self);
        }
        match self.len / size * size {
            0 => Err(Error::Shape(format!("{} windows do not fill one batch of {size}", self.len))),
            keep => Ok(self.first(keep)),
        }
    }

    /// Only as many windows as fill batches of `batch`: which of them is drawn anew for each epoch, see
    /// [`for_epoch`](Self::for_epoch).
    ///
    /// Repeats papers whose validation loader shuffled and dropped the last incomplete batch. 0 keeps all.
    ///
    /// # Errors
    /// If not one batch is full.
    pub fn dropping(self, batch: usize, seed: u64) -> Result<Self> {
        if batch == 0 {
            return Ok(self);
        }
        if self.len < batch {
            return Err(Error::Shape(format!("{} windows do not fill one batch of {batch}", self.len)));
        }
        let dropped = Some(Dropped { all: self.segments.clone(), batch, seed });
        Ok(Self { dropped, ..self }.for_epoch(0))
    }

    /// The windows of one epoch: all of them, but where some are left out by [`dropping`](Self::dropping).
    pub fn for_epoch(&self, epoch: usize) -> Self {
        let Some(Dropped { all, batch, seed }) = &self.dropped else { return self.clone() };
        let len = all.iter().map(|segment| segment.windows).sum::<usize>();
        // A stream of its own for each epoch.
        let mut draw = ChaCha8Rng::seed_from_u64(*seed);
        draw.set_stream(epoch as u64);
        let mut left_out = index::sample(&mut draw, len, len % batch).into_vec();
        left_out.sort_unstable();
        let (mut segments, mut start) = (vec![], 0);
        let mut left_out = left_out.into_iter().peekable();
        for segment in all {
            let mut from = 0;
            let end = start + segment.windows;
            while let Some(position) = left_out.next_if(|position| *position < end) {
                segments.push(segment.part(from..position - start));
                from = position - start + 1;
            }
            segments.push(segment.part(from..segment.windows));
            start = end;
        }
        segments.retain(|segment| segment.windows > 0);
        Self { segments, len: len - len % batch, ..self.clone() }
    }

    /// Only the first `share` (0 to 1) of the windows, rounded down.
    ///
    /// # Errors
    /// If that is not one window.
    pub fn share(self, share: f64) -> Result<Self> {
        match (self.len as f64 * share) as usize {
            0 => Err(Error::Shape(format!("{} windows, of which {} % are not one", self.len, 100.0 * share))),
            keep => Ok(self.first(keep)),
        }
    }

    fn first(mut self, windows: usize) -> Self {
        self.len = windows.min(self.len);
        let mut left = self.len;
        for segment in &mut self.segments {
            segment.windows = segment.windows.min(left);
            left -= segment.windows;
        }
        self.segments.retain(|segment| segment.windows > 0);
        self
    }

    /// Windows over the same target rows that look ahead `horizon` rows: fewer where that is more than
    /// before, and the other way round.
    ///
    /// # Errors
    /// As for [`new`](Self::new).
    pub fn with_horizon(&self, horizon: usize) -> Result<Self> {
        // A series that had no window has none now.
        let mut targets = vec![0..0; self.series.len()];
        let all = self.dropped.as_ref().map_or(&self.segments, |dropped| &dropped.all);
        for segment in all {
            let end = segment.first_target + segment.windows - 1 + self.shape.horizon;
            targets[segment.series] = segment.first_target..end;
        }
        let windows = Self::cut(self.series, &targets, WindowShape { horizon, ..self.shape }, self.whole_past)?;
        match &self.dropped {
            Some(Dropped { batch, seed, .. }) => windows.dropping(*batch, *seed),
            None => Ok(windows),
        }
    }

    /// How many windows there are; never 0.
    #[expect(clippy::len_without_is_empty, reason = "there is always a window")]
    pub fn len(&self) -> usize {
        self.len
    }

    /// The sizes of each window.
    pub fn shape(&self) -> WindowShape {
        self.shape
    }

    /// The series the windows are cut from.
    pub fn series(&self) -> &'a [Series] {
        self.series
    }

    /// Window `index` of `0..len()`, in the order of series and time.
    ///
    /// # Panics
    /// If `index` is not below `len()`.
    pub fn get(&self, index: usize) -> Window<'a> {
        let mut within = index;
        for segment in &self.segments {
            if within < segment.windows {
                return self.window(segment, within);
            }
            within -= segment.windows;
        }
        panic!("window {index} of {}", self.len);
    }

    /// The numbers of the windows of each data set, where several are together: of neighbouring series of
    /// one name.
    pub fn by_name(&self) -> Vec<Range<usize>> {
        let mut sets: Vec<(&str, Range<usize>)> = Vec::new();
        let mut start = 0;
        for segment in &self.segments {
            let (name, end) = (self.series[segment.series].name(), start + segment.windows);
            match sets.last_mut() {
                Some((last, range)) if *last == name => range.end = end,
                _ => sets.push((name, start..end)),
            }
            start = end;
        }
        sets.into_iter().map(|(_, range)| range).collect()
    }

    /// All windows in the order of series and time.
    pub fn iter(&self) -> impl Iterator<Item = Window<'a>> + '_ {
        self.segments
            .iter()
            .flat_map(move |segment| (0..segment.windows).map(move |within| self.window(segment, within)))
    }

    /// The windows as runs of neighbours that look back `lookback` rows, for methods that slide over
    /// rows themselves. Series without so many rows have none.
    pub fn runs(&self) -> impl Iterator<Item = Run<'a>> + '_ {
        let WindowShape { lookback, horizon, .. } = self.shape;
        let long_enough = move |segment: &&Segment| segment.first_target >= lookback;
        self.segments.iter().filter(long_enough).map(move |segment| {
            let start = segment.first_target - lookback;
            let rows = start..segment.first_target + segment.windows - 1 + horizon;
            Run { series: &self.series[segment.series], rows, windows: segment.windows }
        })
    }

    /// The windows gathered into batches of `size`; the last one may be smaller.
    ///
    /// # Panics
    /// If `size` is 0.
    pub fn batches(&self, size: usize, order: Order) -> Batches<'a, '_> {
        Batches::new(self, 0..self.len, size, order)
    }

    /// Only the windows `range` of `0..len()`, in time, gathered into batches of `size`.
    ///
    /// # Panics
    /// If `size` is 0, or, later, if `range` reaches over `len()`.
    pub fn batches_in(&self, range: Range<usize>, size: usize) -> Batches<'a, '_> {
        Batches::new(self, range, size, Order::InTime)
    }

    fn window(&self, segment: &Segment, within: usize) -> Window<'a> {
        let series = &self.series[segment.series];
        let row = segment.first_target + within;
        let start = if self.whole_past { 0 } else { row - self.shape.lookback };
        let end = row + self.shape.horizon;
        Window {
            series: segment.series,
            row,
            lookback: series.values().slice_move(s![start..row, ..]),
            target: series.values().slice_move(s![row..end, ..]),
            past_time: series.time_features().slice_move(s![start..row, ..]),
            future_time: series.time_features().slice_move(s![row..end, ..]),
        }
    }
}

#[cfg(test)]
mod tests {
    use ndarray::Array2;

    use super::*;
    use crate::windows::{Part, SplitRule};

    fn counting(rows: usize) -> Series {
        let values = Array2::from_shape_fn((rows, 1), |(row, _)| row as f64);
        Series::new("counting", vec![], vec!["n".into()], values).unwrap()
    }

    fn cut(series: &Series, targets: Range<usize>, lookback: usize, horizon: usize) -> Result<Windows<'_>> {
        let shape = WindowShape::of(series, lookback, horizon)?;
        Windows::new(std::slice::from_ref(series), &[targets], shape)
    }

    #[test]
    fn lookback_may_reach_into_the_rows_before() -> Result<()> {
        let series = counting(20);
        let windows = cut(&series, 10..20, 4, 3)?;
        assert_eq!(windows.len(), 8);
        assert_eq!(windows.get(0).lookback.column(0).to_vec(), [6.0, 7.0, 8.0, 9.0]);
        assert_eq!(windows.get(7).target.column(0).to_vec(), [17.0, 18.0, 19.0]);
        Ok(())
    }

    #[test]
    fn another_horizon_covers_the_same_target_rows() -> Result<()> {
        let series = [counting(50), counting(12), counting(40)];
        let targets = [30..50, 10..12, 0..40];
        let shape = |horizon| WindowShape { lookback: 4, horizon, variates: 1, time_features: 0 };
        let rows = |windows: &Windows<'_>| -> Vec<(usize, f64, f64)> {
            let each = windows.iter().map(|window| {
                let target = window.target.column(0).to_vec();
                (window.series, target[0], target[target.len() - 1])
            });
            each.collect()
        };
        for (from, to) in [(5, 8), (8, 5), (3, 20)] {
            let windows = Windows::new(&series, &targets, shape(from))?.with_horizon(to)?;
            assert_eq!(rows(&windows), rows(&Windows::new(&series, &targets, shape(to))?), "{from} to {to}");
        }
        let windows = Windows::whole_past(&series, &targets, shape(5))?;
        assert_eq!(rows(&windows.with_horizon(8)?), rows(&Windows::whole_past(&series, &targets, shape(8))?));
        let error = windows.with_horizon(100).unwrap_err();
        assert!(matches!(error, Error::TooFewRows { horizon: 100, lookback: 4, .. }), "{error}");
        Ok(())
    }

    #[test]
    fn targets_are_the_same_for_every_lookback() -> Result<()> {
        let series = counting(50);
        let targets = |lookback| -> Result<Vec<f64>> {
            Ok(cut(&series, 30..50, lookback, 5)?.iter().map(|window| window.target[[0, 0]]).collect())
        };
        assert_eq!(targets(3)?, targets(30)?);
        Ok(())
    }

    #[test]
    fn whole_batches_leave_out_the_last_windows() -> Result<()> {
        let series = counting(50);
        let windows = cut(&series, 10..50, 5, 1)?.whole_batches(32)?;
        assert_eq!((windows.len(), windows.iter().count()), (32, 32));
        assert!(cut(&series, 40..50, 5, 1)?.whole_batches(32).is_err());
        Ok(())
    }

    #[test]
    fn other_windows_are_left_out_in_each_epoch() -> Result<()> {
        let series = [counting(30), counting(25)];
        let shape = WindowShape { lookback: 4, horizon: 2, variates: 1, time_features: 0 };
        let all = Windows::new(&series, &[10..30, 5..25], shape)?;
        let dropping = all.clone().dropping(8, 7)?;
        let rows = |windows: &Windows<'_>| windows.iter().map(|window| (window.series, window.row)).collect::<Vec<_>>();
        assert_eq!(all.len(), 38);
        let epochs: Vec<_> = (0..20).map(|epoch| rows(&dropping.for_epoch(epoch))).collect();
        for epoch in &epochs {
            assert_eq!(epoch.len(), 32);
            assert!(epoch.is_sorted() && epoch.iter().all(|row| rows(&all).contains(row)));
        }
        assert_eq!(epochs[0], rows(&dropping));
        assert_ne!(epochs[0], epochs[1]);
        assert!(rows(&all).iter().all(|row| epochs.iter().any(|epoch| epoch.contains(row))));
        assert_eq!(rows(&all.clone().dropping(8, 7)?.for_epoch(5)), epochs[5]);
        assert_ne!(rows(&all.clone().dropping(8, 8)?.for_epoch(5)), epochs[5]);
        // Runs and gathered windows are the same ones; another horizon leaves out of its own.
        assert_eq!(dropping.runs().map(|run| run.windows).sum::<usize>(), 32);
        assert_eq!(dropping.with_horizon(4)?.len(), 32);
        assert_eq!(rows(&all.for_epoch(3)), rows(&all));
        assert!(all.dropping(64, 7).is_err());
        Ok(())
    }

    #[test]
    fn a_share_is_of_the_first_windows() -> Result<()> {
        let series = counting(50);
        let few = cut(&series, 10..50, 5, 1)?.share(0.1)?;
        assert_eq!((few.len(), few.get(3).row), (4, 13));
        assert!(cut(&series, 10..50, 5, 1)?.share(0.02).is_err());
        Ok(())
    }

    #[test]
    fn too_few_rows_are_named() {
        let error = cut(&counting(10), 8..10, 4, 3).unwrap_err();
        assert_eq!(
            error.to_string(),
            "counting: 2 rows (8..10) are too few for lookback 4 and horizon 3; shorten them or use more data"
        );
    }

    #[test]
    fn a_horizon_of_zero_is_refused() {
        assert_eq!(cut(&counting(10), 8..10, 4, 0).unwrap_err().to_string(), "horizon must be at least 1");
    }

    #[test]
    fn runs_cover_the_rows_of_their_windows() -> Result<()> {
        let series = counting(20);
        let windows = cut(&series, 0..12, 4, 3)?;
        let run = windows.runs().next().expect("one series has one run");
        assert_eq!((run.rows.clone(), run.windows), (0..12, 6));
        assert_eq!(windows.get(5).target[[2, 0]], 11.0);
        Ok(())
    }

    #[test]
    fn many_series_follow_one_another() -> Result<()> {
        let all = [counting(6), counting(3), counting(5)];
        let shape = WindowShape::of(&all[0], 2, 2)?;
        let windows = Windows::new(&all, &[0..6, 0..3, 0..5], shape)?;
        let rows: Vec<_> = windows.iter().map(|window| (window.series, window.row, window.lookback.nrows())).collect();
        assert_eq!(rows, [(0, 2, 2), (0, 3, 2), (0, 4, 2), (2, 2, 2), (2, 3, 2)]);
        Ok(())
    }

    #[test]
    fn with_the_whole_past_no_series_is_too_short() -> Result<()> {
        let all = [counting(6), counting(3)];
        let shape = WindowShape::of(&all[0], 4, 2)?;
        let windows = Windows::whole_past(&all, &[4..6, 1..3], shape)?;
        let rows: Vec<_> = windows.iter().map(|window| (window.series, window.row, window.lookback.nrows())).collect();
        assert_eq!(rows, [(0, 4, 4), (1, 1, 1)]);
        Ok(())
    }

    // The table of window counts of the standard data sets: rows, split, lookback, horizon and the
    // windows of train, valid and test.
    #[test]
    fn window_counts_are_those_of_the_standard_protocol() -> Result<()> {
        use SplitRule::{Cuts, Ratio, Rows};
        let (etth, ettm) = (Rows([8640, 2880, 2880]), Rows([34560, 11520, 11520]));
        let (ratio, pems) = (Ratio([0.7, 0.1, 0.2]), Cuts([0.6, 0.8]));
        let table = [
            (17420, &etth, 96, 96, [8449, 2785, 2785]),
            (17420, &etth, 96, 720, [7825, 2161, 2161]),
            (69680, &ettm, 96, 96, [34369, 11425, 11425]),
            (69680, &ettm, 96, 720, [33745, 10801, 10801]),
            (52696, &ratio, 96, 96, [36696, 5175, 10444]),
            (52696, &ratio, 96, 720, [36072, 4551, 9820]),
            (26304, &ratio, 96, 96, [18221, 2537, 5165]),
            (26304, &ratio, 96, 720, [17597, 1913, 4541]),
            (17544, &ratio, 96, 96, [12089, 1661, 3413]),
            (17544, &ratio, 96, 720, [11465, 1037, 2789]),
            (7588, &ratio, 96, 96, [5120, 665, 1422]),
            (7588, &ratio, 96, 720, [4496, 41, 798]),
            (966, &ratio, 96, 24, [557, 74, 170]),
            (966, &ratio, 96, 60, [521, 38, 134]),
            (52560, &ratio, 96, 96, [36601, 5161, 10417]),
            (52560, &ratio, 96, 720, [35977, 4537, 9793]),
            (26208, &pems, 96, 12, [15617, 5135, 5135]),
            (16992, &pems, 96, 12, [10088, 3291, 3292]),
            (28224, &pems, 96, 12, [16827, 5538, 5538]),
            (17856, &pems, 96, 12, [10606, 3464, 3465]),
        ];
        for (rows, rule, lookback, horizon, expected) in table {
            let series = counting(rows);
            let split = rule.split(rows)?;
            let counts = [Part::Train, Part::Valid, Part::Test].map(|part| {
                cut(&series, split.targets(part, lookback), lookback, horizon).map(|windows| windows.len())
            });
            for (count, expected) in counts.into_iter().zip(expected) {
                assert_eq!(count?, expected, "{rows} rows, {rule:?}, {lookback} to {horizon}");
            }
        }
        Ok(())
    }

    #[test]
    fn the_first_test_target_is_the_first_test_row() -> Result<()> {
        let series = counting(17420);
        let windows = cut(&series, 11520..14400, 96, 96)?;
        assert_eq!(windows.get(0).target[[0, 0]], 11520.0);
        assert_eq!(windows.get(windows.len() - 1).target[[95, 0]], 14399.0);
        Ok(())
    }
}
