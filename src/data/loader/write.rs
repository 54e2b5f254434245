//! Tables for files: what is forecast, as CSV and as Parquet.

use std::io::Cursor;

use chrono::NaiveDateTime;
use polars::prelude::{Column, DataFrame, DatetimeChunked, IntoColumn, ParquetWriter, TimeUnit};

use crate::{Error, Result};

/// A table with a column of timestamps before its numbers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NumberTable {
    /// The name of the first column, and its timestamps; as many as there are rows, or none and no such column.
    pub time: (String, Vec<NaiveDateTime>),
    /// Names and values, all of one length.
    pub columns: Vec<(String, Vec<f64>)>,
}

/// A timestamp as it is written: the date alone, where each of `all` is the beginning of a day.
pub fn written(time: &NaiveDateTime, all: &[NaiveDateTime]) -> String {
    let midnight = |time: &NaiveDateTime| time.time() == chrono::NaiveTime::MIN;
    let format = if all.iter().all(midnight) { "%Y-%m-%d" } else { "%Y-%m-%d %H:%M:%S%.f" };
    time.format(format).to_string()
}

impl NumberTable {
    fn rows(&self) -> usize {
        self.columns.first().map_or(self.time.1.len(), |(_, values)| values.len())
    }

    /// As CSV.
    ///
    /// # Errors
    /// If a name cannot be written.
    pub fn csv(&self) -> Result<Vec<u8>> {
        let failed = |error: &dyn std::fmt::Display| Error::other(format!("cannot write CSV: {error}"));
        let mut writer = ::csv::Writer::from_writer(vec![]);
        let (time, times) = &self.time;
        let dated = !times.is_empty();
        let header = dated.then_some(time).into_iter().chain(self.columns.iter().map(|(name, _)| name));
        writer.write_record(header).map_err(|error| failed(&error))?;
        for row in 0..self.rows() {
            let time = times.get(row).map(|time| written(time, times));
            let values = self.columns.iter().map(|(_, values)| values[row].to_string());
            writer.write_record(time.into_iter().chain(values)).map_err(|error| failed(&error))?;
        }
        writer.into_inner().map_err(|error| failed(&error))
    }

    /// As Parquet.
    ///
    /// # Errors
    /// If two columns have one name.
    pub fn parquet(&self) -> Result<Vec<u8>> {
        let failed = |error: polars::error::PolarsError| Error::other(format!("cannot write Parquet: {error}"));
        let (time, times) = &self.time;
        let mut columns = Vec::new();
        if !times.is_empty() {
            let times = DatetimeChunked::from_naive_datetime(
                time.as_str().into(),
                times.iter().copied(),
                TimeUnit::Microseconds,
            );
            columns.push(times.into_column());
        }
        columns.extend(self.columns.iter().map(|(name, values)| Column::new(name.as_str().into(), values.as_slice())));
        let mut frame = DataFrame::new(self.rows(), columns).map_err(failed)?;
        let mut bytes = Cursor::new(vec![]);
        ParquetWriter::new(&mut bytes).finish(&mut frame).map_err(failed)?;
        Ok(bytes.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use chrono::NaiveDate;

    use super::*;
    use crate::data::loader::{ReadOptions, read};

    fn table(hour: u32) -> NumberTable {
        let day = |day| NaiveDate::from_ymd_opt(2020, 1, day).unwrap().and_hms_opt(hour, 0, 0).unwrap();
        NumberTable {
            time: ("date".into(), vec![day(1), day(2)]),
            columns: vec![("a, b".into(), vec![1.5, -2e9]), ("c".into(), vec![1.0 / 3.0, 0.0])],
        }
    }

    #[test]
    fn csv_is_to_be_read_again() -> Result<()> {
        let text = String::from_utf8(table(0).csv()?).unwrap();
        assert_eq!(text, "date,\"a, b\",c\n2020-01-01,1.5,0.3333333333333333\n2020-01-02,-2000000000,0\n");
        let text = String::from_utf8(table(7).csv()?).unwrap();
        assert!(text.contains("2020-01-01 07:00:00,"), "{text}");
        let undated = NumberTable { time: Default::default(), ..table(0) };
        assert!(String::from_utf8(undated.csv()?).unwrap().starts_with("\"a, b\",c\n1.5,"));
        Ok(())
    }

    #[test]
    fn parquet_is_read_again_to_the_last_bit() -> Result<()> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("table.parquet");
        std::fs::write(&file, table(7).parquet()?).unwrap();
        let read = read(&file, "table", &ReadOptions::default())?.series;
        assert_eq!((read.timestamps(), read.variates()), (&table(7).time.1[..], &["a, b".to_string(), "c".into()][..]));
        assert_eq!(read.variate(1), table(7).columns[1].1);
        Ok(())
    }
}
