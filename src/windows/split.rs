//! Which rows a forecaster learns from, chooses by, and is scored on.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::{Error, Result, data::SplitRule};

/// The rows of each part: half-open ranges, counted from 0.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Split {
    pub train: Range<usize>,
    pub valid: Range<usize>,
    pub test: Range<usize>,
    /// Whether the lookback of the first window of a part may reach back into the part before it,
    /// so that its first target is the part's first row.
    pub lookback_reaches_back: bool,
}

impl SplitRule {
    /// The parts of a series with `rows` rows.
    ///
    /// # Errors
    /// If a part is empty, shares are not positive numbers of sum 1 at most, or rows are missing.
    pub fn split(&self, rows: usize) -> Result<Split> {
        let (train, valid, test, lookback_reaches_back) = match *self {
            Self::Rows([train, valid, test]) => (train, valid, test, true),
            Self::Ratio(ratio @ [train, _, test]) => {
                if !ratio.iter().all(|share| *share > 0.0) || (ratio.iter().sum::<f64>() - 1.0).abs() > 1e-9 {
                    return Err(Error::other(format!("split {ratio:?} is not three positive shares of sum 1")));
                }
                let (train, test) = (share_of(train, rows), share_of(test, rows));
                (train, rows - train - test, test, true)
            }
            Self::Cuts([first, second]) => {
                if !(first > 0.0 && first < second && second < 1.0) {
                    return Err(Error::other(format!("split cuts {first}, {second} do not rise between 0 and 1")));
                }
                let (first, second) = (share_of(first, rows), share_of(second, rows));
                (first, second - first, rows - second, false)
            }
        };
        if train == 0 || valid == 0 || test == 0 {
            return Err(Error::other(format!(
                "{rows} rows split into {train} train, {valid} valid and {test} test rows: none may be empty"
            )));
        }
        let (valid_end, test_end) = (train + valid, train + valid + test);
        if test_end > rows {
            return Err(Error::other(format!("the split needs {test_end} rows, but there are {rows}")));
        }
        Ok(Split { train: 0..train, valid: train..valid_end, test: valid_end..test_end, lookback_reaches_back })
    }
}

// The reference computes int(0.7 * n): a product in f64, truncated.
fn share_of(share: f64, rows: usize) -> usize {
    (share * rows as f64) as usize
}

impl Split {
    /// The rows that may be targets when windows look back `lookback` rows: those of `part`,
    /// less the first `lookback` where lookbacks stay inside their part.
    pub fn targets(&self, part: Part, lookback: usize) -> Range<usize> {
        let rows = match part {
            Part::Train => &self.train,
            Part::Valid => &self.valid,
            Part::Test => &self.test,
        };
        match self.lookback_reaches_back {
            true => rows.clone(),
            false => (rows.start + lookback).min(rows.end)..rows.end,
        }
    }
}

/// One of the three parts of a [`Split`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Train,
    Valid,
    Test,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_truncated_products() -> Result<()> {
        let split = SplitRule::Ratio([0.7, 0.1, 0.2]).split(730)?;
        assert_eq!((split.train.len(), split.valid.len(), split.test.len()), (510, 74, 146));
        Ok(())
    }

    #[test]
    fn rows_after_the_last_border_are_not_used() -> Result<()> {
        assert_eq!(SplitRule::Rows([8640, 2880, 2880]).split(17420)?.test, 11520..14400);
        Ok(())
    }

    #[test]
    fn a_split_that_needs_more_rows_is_refused() {
        let error = SplitRule::Rows([10, 5, 5]).split(19).unwrap_err();
        assert_eq!(error.to_string(), "the split needs 20 rows, but there are 19");
    }

    #[test]
    fn shares_that_are_no_shares_are_refused() {
        assert!(SplitRule::Ratio([0.7, 0.2, 0.2]).split(100).is_err());
        assert!(SplitRule::Ratio([f64::NAN, 0.5, 0.5]).split(100).is_err());
        assert!(SplitRule::Ratio([0.7, 0.1, 0.2]).split(3).is_err());
    }

    #[test]
    fn lookbacks_stay_inside_where_the_rule_says_so() -> Result<()> {
        let split = SplitRule::Cuts([0.6, 0.8]).split(26208)?;
        assert_eq!((split.train.len(), split.valid.len(), split.test.len()), (15724, 5242, 5242));
        assert_eq!(split.targets(Part::Test, 96), 20966 + 96..26208);
        Ok(())
    }

    #[test]
    fn the_known_sets_split_as_published() -> Result<()> {
        let manifest = crate::data::Manifest::builtin()?;
        let published = [
            ("ETTh1", [8640, 2880, 2880]),
            ("ETTm2", [34560, 11520, 11520]),
            ("Weather", [36887, 5270, 10539]),
            ("Exchange", [5311, 760, 1517]),
            ("ILI", [676, 97, 193]),
            ("Electricity", [18412, 2632, 5260]),
            ("Traffic", [12280, 1756, 3508]),
            ("Solar", [36792, 5256, 10512]),
            ("PEMS03", [15724, 5242, 5242]),
            ("PEMS04", [10195, 3398, 3399]),
            ("PEMS07", [16934, 5645, 5645]),
            ("PEMS08", [10713, 3571, 3572]),
            ("CarSales", [4709, 674, 1345]),
            ("COVID-19", [234, 34, 67]),
            ("DowJones", [4603, 659, 1315]),
            ("NASDAQ", [2739, 393, 782]),
            ("Power", [830, 119, 237]),
            ("SP500", [5653, 809, 1615]),
            ("Unemployment", [318, 107, 106]),
            ("Website", [1516, 218, 433]),
            ("Wiki", [510, 74, 146]),
            ("Los-loop", [1209, 404, 403]),
            ("AirPassengers", [96, 24, 24]),
        ];
        for (name, rows) in published {
            let dataset = manifest.get(name)?;
            let rule = dataset.split.clone().unwrap();
            let split = rule.split(dataset.rows.unwrap())?;
            assert_eq!([split.train.len(), split.valid.len(), split.test.len()], rows, "{name}");
        }
        Ok(())
    }
}
