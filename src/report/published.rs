//! The papers' numbers, from `reports/published.csv`.

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// One cell of a published table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PublishedRow {
    pub model: String,
    pub dataset: String,
    /// Rows; empty where the lookback has no effect, a word such as "searched" where the paper took
    /// the best of several.
    #[serde(default)]
    pub lookback: String,
    pub horizon: usize,
    pub mse: f64,
    /// `None` where the table prints MSE only.
    pub mae: Option<f64>,
    /// Paper and table.
    pub source: String,
    #[serde(default)]
    pub note: String,
}

/// All published numbers, the first source of a cell being the one to compare with.
#[derive(Clone, Debug, Default)]
pub struct Published(Vec<PublishedRow>);

impl Published {
    /// The numbers that come with this crate.
    ///
    /// # Errors
    /// Never, as a test shows.
    pub fn builtin() -> Result<Self> {
        Self::parse(include_str!("../../reports/published.csv"))
    }

    /// Numbers from CSV with the columns of [`PublishedRow`].
    ///
    /// # Errors
    /// If a line has other columns or a number is none; the line is named.
    pub fn parse(text: &str) -> Result<Self> {
        let rows = ::csv::Reader::from_reader(text.as_bytes()).into_deserialize();
        rows.collect::<Result<Vec<PublishedRow>, _>>()
            .map(Self)
            .map_err(|error| Error::other(format!("published numbers: {error}")))
    }

    /// The published cell of `model` at this place, if a paper has one.
    pub fn get(&self, model: &str, dataset: &str, lookback: usize, horizon: usize) -> Option<&PublishedRow> {
        self.0.iter().find(|row| {
            row.model == model
                && row.dataset == dataset
                && (row.lookback.is_empty() || row.lookback.parse() == Ok(lookback))
                && row.horizon == horizon
        })
    }

    /// All rows.
    pub fn rows(&self) -> &[PublishedRow] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_that_come_with_the_crate_can_be_read() -> Result<()> {
        let published = Published::builtin()?;
        let repeat = published.get("Repeat", "ETTh1", 96, 96).expect("LTSF-Linear prints it");
        assert_eq!((repeat.mse, repeat.mae), (1.295, Some(0.713)));
        Ok(())
    }

    #[test]
    fn a_cell_of_another_lookback_is_another_cell() -> Result<()> {
        let text = "model,dataset,lookback,horizon,mse,mae,source,note\nA,S,336,96,0.1,0.2,T,\nB,S,,96,0.3,,T,\nC,S,searched,96,0.3,0.1,T,\n";
        let published = Published::parse(text)?;
        assert!(published.get("A", "S", 96, 96).is_none() && published.get("C", "S", 96, 96).is_none());
        assert!(published.get("A", "S", 336, 96).is_some());
        assert_eq!(published.get("B", "S", 96, 96).map(|row| row.mae), Some(None));
        Ok(())
    }
}
