//! A multivariate time series: time stamps, names, and a complete table of values.

use std::ops::Range;

use chrono::NaiveDateTime;
use ndarray::{Array2, ArrayView2, ShapeBuilder, s};
use rayon::prelude::*;

use super::calendar::Calendar;
use crate::{Error, Result};

/// A series of `variates` observed together, one row a time step.
///
/// A `Series` is complete by construction: no value is missing, NaN or infinite. What a file
/// lacks is refused or filled, by name, when it is read. None is larger than [`LARGEST`](Self::LARGEST) either.
#[derive(Clone, Debug)]
pub struct Series {
    name: String,
    timestamps: Vec<NaiveDateTime>,
    variates: Vec<String>,
    values: Array2<f64>,
    time_features: Array2<f32>,
}

impl Series {
    /// The largest size of a value: the squares of larger ones, added up, are no numbers.
    pub const LARGEST: f64 = 1e150;

    /// A series from its parts; `values` is `[time, variates]`.
    ///
    /// `timestamps` may be empty, for data that carries none. Values are kept one variate after
    /// the other in memory, so that a window of one variate is a contiguous slice.
    ///
    /// # Errors
    /// If the lengths do not agree, or a value is NaN, infinite or larger than [`LARGEST`](Self::LARGEST).
    pub fn new(
        name: impl Into<String>,
        timestamps: Vec<NaiveDateTime>,
        variates: Vec<String>,
        values: Array2<f64>,
    ) -> Result<Self> {
        let name = name.into();
        let (time, columns) = values.dim();
        if columns != variates.len() {
            return Err(Error::Shape(format!("{name}: {columns} columns, but {} names", variates.len())));
        }
        if !timestamps.is_empty() && timestamps.len() != time {
            return Err(Error::Shape(format!("{name}: {time} rows, but {} timestamps", timestamps.len())));
        }
        // In memory order first: in row order each value of a column-major table is on another page.
        let in_memory = values.as_slice_memory_order();
        // NaN is not below anything.
        let fits = |value: &f64| value.abs() <= Self::LARGEST;
        let complete = in_memory.is_some_and(|values| values.par_iter().with_min_len(1 << 16).all(fits));
        if !complete && let Some(((row, column), value)) = values.indexed_iter().find(|(_, value)| !fits(value)) {
            let remedy =
                if value.is_finite() { "no value may be beyond 1e150, rescale it" } else { "fill or remove it" };
            return Err(Error::NotFinite(format!(
                "{name}: '{}' is {value:e} in row {}: {remedy}",
                variates[column],
                row + 1
            )));
        }
        let values = if values.t().is_standard_layout() {
            values
        } else {
            let mut by_variate = Array2::zeros((time, columns).f());
            by_variate.assign(&values);
            by_variate
        };
        let time_features = Array2::zeros((time, 0));
        Ok(Self { name, timestamps, variates, values, time_features })
    }

    /// The same series with the time features of `calendar` for each row.
    ///
    /// Without timestamps there are none, whatever the calendar.
    pub fn with_calendar(mut self, calendar: Calendar) -> Self {
        if !self.timestamps.is_empty() {
            self.time_features = calendar.features(&self.timestamps);
        }
        self
    }

    /// Only the rows `range`.
    ///
    /// # Panics
    /// If it reaches over the last row.
    #[must_use]
    pub fn rows(&self, range: Range<usize>) -> Self {
        let values = self.values.slice(s![range.clone(), ..]);
        let mut by_variate = Array2::zeros(values.dim().f());
        by_variate.assign(&values);
        let timestamps = self.timestamps.get(range.clone()).map(<[_]>::to_vec).unwrap_or_default();
        let time_features = self.time_features.slice(s![range, ..]).to_owned();
        Self { name: self.name.clone(), variates: self.variates.clone(), timestamps, values: by_variate, time_features }
    }

    /// The same rows with the variates `names`, in their order.
    ///
    /// # Errors
    /// If one is missing, or there is one that is not among them; all are named.
    pub fn select(&self, names: &[String]) -> Result<Self> {
        let list = |names: Vec<&String>| names.iter().map(|name| format!("'{name}'")).collect::<Vec<_>>().join(", ");
        let missing: Vec<&String> = names.iter().filter(|name| !self.variates.contains(name)).collect();
        let extra: Vec<&String> = self.variates.iter().filter(|name| !names.contains(name)).collect();
        let complaints =
            [("lacks", missing), ("has besides", extra)].into_iter().filter(|(_, names)| !names.is_empty());
        let complaints: Vec<String> = complaints.map(|(what, names)| format!("{what} {}", list(names))).collect();
        if !complaints.is_empty() {
            return Err(Error::Shape(format!(
                "{}: it {} of the columns that are asked for",
                self.name,
                complaints.join(" and ")
            )));
        }
        let place = |name: &String| self.variates.iter().position(|own| own == name).expect("none is missing");
        let places: Vec<usize> = names.iter().map(place).collect();
        let mut values = Array2::zeros((self.len(), names.len()).f());
        for (mut column, place) in values.columns_mut().into_iter().zip(places) {
            column.assign(&self.values.column(place));
        }
        Ok(Self { variates: names.to_vec(), values, ..self.clone() })
    }

    /// The same time axis and names with other `values`, e.g. scaled ones.
    pub(crate) fn with_values(&self, values: Array2<f64>) -> Result<Self> {
        let time_features = self.time_features.clone();
        let series = Self::new(self.name.clone(), self.timestamps.clone(), self.variates.clone(), values)?;
        Ok(Self { time_features, ..series })
    }

    /// What the series is called in messages and tables.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// One timestamp a row, or none at all.
    pub fn timestamps(&self) -> &[NaiveDateTime] {
        &self.timestamps
    }

    /// The names of the variates, in file order.
    pub fn variates(&self) -> &[String] {
        &self.variates
    }

    /// `[time, variates]`; each column is contiguous in memory.
    pub fn values(&self) -> ArrayView2<'_, f64> {
        self.values.view()
    }

    /// `[time, features]`; no columns unless [`with_calendar`](Self::with_calendar) made some.
    pub fn time_features(&self) -> ArrayView2<'_, f32> {
        self.time_features.view()
    }

    /// Rows.
    pub fn len(&self) -> usize {
        self.values.nrows()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All values of one variate, in time order.
    pub fn variate(&self, index: usize) -> &[f64] {
        let time = self.len();
        let all = self.values.as_slice_memory_order().expect("values are contiguous by construction");
        &all[index * time..(index + 1) * time]
    }
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    #[test]
    fn a_variate_is_a_contiguous_slice() -> Result<()> {
        let series =
            Series::new("s", vec![], vec!["a".into(), "b".into()], array![[1.0, 10.0], [2.0, 20.0], [3.0, 30.0]])?;
        assert_eq!(series.variate(1), [10.0, 20.0, 30.0]);
        Ok(())
    }

    #[test]
    fn a_missing_value_is_refused_by_name_and_row() {
        let error = Series::new("s", vec![], vec!["a".into()], array![[1.0], [f64::NAN]]).unwrap_err();
        assert_eq!(error.to_string(), "s: 'a' is NaN in row 2: fill or remove it");
    }
}
