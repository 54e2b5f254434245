//! Partial least squares: a linear map through a few directions of the lookback.
//!
//! Wold's PLS2 as in Wegelin, "A Survey of Partial Least Squares (PLS) Methods" (2000), section 4.1,
//! by `linfa-pls`, on samples that stand for all windows, so that none has to be left out.

use faer::Mat;
use linfa::{DatasetBase, traits::Fit};
use linfa_pls::{PlsError, PlsRegression};
use ndarray::{Array2, Axis, concatenate};
use serde::{Deserialize, Serialize};

use super::{
    level::Level,
    linear::{Choice, Common, Linear, Solver},
    normal::Normal,
    pseudo::PseudoSamples,
};
use crate::{Error, Result};

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PlsParams {
    /// What is taken off each window before the map and put back after it.
    pub level: Level,
    /// One map for each variate, not one for all.
    pub individual: bool,
    /// Whether a constant is added to each step.
    pub intercept: bool,
    /// How many directions of the lookback the map goes through; a list is chosen from on the
    /// validation split.
    pub components: Choice<usize>,
}

impl Default for PlsParams {
    fn default() -> Self {
        let components = Choice::Among(vec![4, 8, 16, 32]);
        Self { level: Level::default(), individual: false, intercept: true, components }
    }
}

/// The linear map of partial least squares.
pub type Pls = Linear<PlsParams>;

impl Solver for PlsParams {
    const NAME: &'static str = "pls";
    const CHOSEN: &'static str = "components";
    type Candidate = usize;
    type Start<'a> = (PseudoSamples, Array2<f64>, Array2<f64>);

    fn common(&self) -> Common {
        Common { level: self.level, individual: self.individual, intercept: self.intercept }
    }

    fn candidates(&self) -> &[usize] {
        self.components.candidates()
    }

    fn check(&self) -> Result<()> {
        match self.components.candidates().contains(&0) {
            true => Err(Error::params(Self::NAME, "components must be at least 1")),
            false => Ok(()),
        }
    }

    /// linfa centres its samples. Those that stand for the windows are centred in their moments, not
    /// in their rows; each of them together with its negative is both.
    fn start<'a>(&self, normal: &'a Normal<'a>) -> Result<Self::Start<'a>> {
        let samples = PseudoSamples::of(normal)?;
        let mirrored = |half: &Array2<f64>| {
            concatenate(Axis(0), &[half.view(), (-half).view()]).expect("a matrix and its negative are equally wide")
        };
        let (past, future) = (mirrored(&samples.past), mirrored(&samples.future));
        Ok((samples, past, future))
    }

    fn solve(&self, start: &Self::Start<'_>, components: usize) -> Result<Option<Mat<f64>>> {
        // Power iterations; linfa's 500 are few where two directions are nearly as good.
        const ITERATIONS: usize = 5000;
        let (samples, past, future) = start;
        let data = DatasetBase::new(past.view(), future.view());
        // Where fewer directions explain all there is, linfa refuses to look for another.
        for components in (1..=components.min(samples.past.nrows())).rev() {
            let fitted = PlsRegression::params(components).scale(false).max_iterations(ITERATIONS).fit(&data);
            return match fitted {
                Ok(pls) => Ok(Some(samples.to_steps(pls.coefficients()))),
                Err(PlsError::PowerMethodConstantResidualError()) => continue,
                Err(PlsError::PowerMethodNotConvergedError(_)) => Ok(None),
                Err(error) => Err(Error::other(format!("pls: {error}"))),
            };
        }
        Ok(None)
    }
}
