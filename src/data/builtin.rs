//! The data sets that are part of the program, so that a machine without any data can run it all.

use chrono::{NaiveDate, NaiveDateTime, NaiveTime};
use ndarray::Array2;
use serde::Deserialize;

use super::{Series, Synthetic};
use crate::Result;

const AIR_PASSENGERS: &str = include_str!("../../datasets/sample/air-passengers.csv");

/// A data set that needs no file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Builtin {
    /// `datasets/sample/air-passengers.csv`, compiled in.
    AirPassengers,
    /// [`Synthetic`] with its default parameters.
    Synthetic,
}

impl Builtin {
    /// The series itself.
    ///
    /// # Errors
    /// None in a build that passes its tests: nothing is read.
    pub fn series(self) -> Result<Series> {
        match self {
            Self::AirPassengers => air_passengers(),
            Self::Synthetic => Synthetic::default().series(),
        }
    }
}

fn air_passengers() -> Result<Series> {
    let (months, passengers): (Vec<NaiveDateTime>, Vec<f64>) = AIR_PASSENGERS
        .lines()
        .skip(1)
        .map(|line| {
            let (month, passengers) = line.split_once(',').expect("the sample has two columns");
            let month: NaiveDate = month.parse().expect("the sample's months are dates");
            (month.and_time(NaiveTime::MIN), passengers.parse::<f64>().expect("the sample's passengers are numbers"))
        })
        .unzip();
    let values = Array2::from_shape_fn((passengers.len(), 1), |(row, _)| passengers[row]);
    Series::new("AirPassengers", months, vec!["passengers".to_string()], values)
}

#[cfg(test)]
mod tests {
    use super::{super::Step, *};

    #[test]
    fn air_passengers_are_the_144_months_of_box_and_jenkins() -> Result<()> {
        let series = Builtin::AirPassengers.series()?;
        assert_eq!((series.len(), Step::detect(series.timestamps())), (144, Some(Step::Months(1))));
        assert_eq!(series.timestamps()[143].to_string(), "1960-12-01 00:00:00");
        let values = series.variate(0);
        assert_eq!((values[0], values[143], values.iter().sum::<f64>()), (112.0, 432.0, 40363.0));
        Ok(())
    }
}
