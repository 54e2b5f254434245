//! Ridge regression from lookback to horizon, in closed form.
//!
//! The exact optimum of the linear models of Zeng et al., "Are Transformers Effective for Time Series
//! Forecasting?", AAAI 2023, <https://arxiv.org/abs/2205.13504>, where they use gradient descent;
//! see [`Level`] for which is which. Toner & Darlow, "An Analysis of Linear Time Series Forecasting
//! Models", ICML 2024, <https://arxiv.org/abs/2403.14587>, show that these models are least squares
//! over the same functions. The penalty is Hoerl & Kennard's, Technometrics 12 (1970).

use faer::Mat;
use serde::{Deserialize, Serialize};

use super::{
    level::Level,
    linear::{Choice, Common, Linear, Solver},
    normal::Normal,
};
use crate::{Error, Result};

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RidgeParams {
    /// What is taken off each window before the map and put back after it.
    pub level: Level,
    /// One map for each variate, not one for all.
    pub individual: bool,
    /// Whether a constant is added to each step; it is not penalised.
    pub intercept: bool,
    /// The weight of the squared weights, in units of the mean variance of a lookback row; a list is
    /// chosen from on the validation split.
    pub penalty: Choice<f64>,
}

impl Default for RidgeParams {
    fn default() -> Self {
        let penalty = Choice::Among(vec![0.0, 1e-4, 1e-3, 1e-2, 1e-1, 1.0]);
        Self { level: Level::default(), individual: false, intercept: true, penalty }
    }
}

/// The closed-form linear map.
pub type Ridge = Linear<RidgeParams>;

impl Solver for RidgeParams {
    const NAME: &'static str = "ridge";
    const CHOSEN: &'static str = "penalty";
    type Candidate = f64;
    type Start<'a> = &'a Normal<'a>;

    fn common(&self) -> Common {
        Common { level: self.level, individual: self.individual, intercept: self.intercept }
    }

    fn candidates(&self) -> &[f64] {
        self.penalty.candidates()
    }

    fn check(&self) -> Result<()> {
        match self.penalty.candidates().iter().find(|penalty| !(0.0..f64::INFINITY).contains(*penalty)) {
            Some(penalty) => {
                Err(Error::params(Self::NAME, format!("a penalty is at least 0 and finite, not {penalty}")))
            }
            None => Ok(()),
        }
    }

    fn start<'a>(&self, normal: &'a Normal<'a>) -> Result<&'a Normal<'a>> {
        Ok(normal)
    }

    fn solve(&self, normal: &&Normal<'_>, penalty: f64) -> Result<Option<Mat<f64>>> {
        Ok(normal.ridge(penalty, self.level))
    }
}
