//! Elastic net: least squares with a penalty that drops whole lookback rows.
//!
//! Zou & Hastie, JRSS B 67 (2005); the group penalty over all steps of the horizon is that of the
//! multi-task lasso, Obozinski, Taskar & Jordan (2006). Coordinate descent by `linfa-elasticnet`, on
//! samples that stand for all windows, so that none has to be left out.

use faer::Mat;
use linfa::{DatasetBase, traits::Fit};
use linfa_elasticnet::MultiTaskElasticNet;
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
pub struct ElasticNetParams {
    /// What is taken off each window before the map and put back after it.
    pub level: Level,
    /// One map for each variate, not one for all.
    pub individual: bool,
    /// Whether a constant is added to each step; it is not penalised.
    pub intercept: bool,
    /// The weight of the penalty, in units of the least one that leaves no weights at all; a list is
    /// chosen from on the validation split.
    pub penalty: Choice<f64>,
    /// The part of the penalty that is on lengths and not on their squares; above 0, at most 1.
    pub l1_ratio: f64,
    /// Rounds over all lookback rows, at most.
    pub rounds: u32,
    /// Rounds end when no weight changes by more than this part of the largest.
    pub tolerance: f64,
}

impl Default for ElasticNetParams {
    fn default() -> Self {
        Self {
            level: Level::default(),
            individual: false,
            intercept: true,
            penalty: Choice::Among(vec![1e-4, 1e-3, 1e-2]),
            l1_ratio: 0.5,
            rounds: 100,
            tolerance: 1e-3,
        }
    }
}

/// The elastic net's linear map.
pub type ElasticNet = Linear<ElasticNetParams>;

impl Solver for ElasticNetParams {
    const NAME: &'static str = "elastic-net";
    const CHOSEN: &'static str = "penalty";
    type Candidate = f64;
    type Start<'a> = PseudoSamples;

    fn common(&self) -> Common {
        Common { level: self.level, individual: self.individual, intercept: self.intercept }
    }

    fn candidates(&self) -> &[f64] {
        self.penalty.candidates()
    }

    fn check(&self) -> Result<()> {
        let refuse = |what: String| Err(Error::params(Self::NAME, what));
        if let Some(penalty) = self.penalty.candidates().iter().find(|penalty| !(0.0..=1.0).contains(*penalty)) {
            return refuse(format!("a penalty is between 0 and 1, not {penalty}"));
        }
        if !(self.l1_ratio > 0.0 && self.l1_ratio <= 1.0) {
            return refuse(format!("l1_ratio is above 0 and at most 1, not {}: for 0 use ridge", self.l1_ratio));
        }
        if !(self.tolerance > 0.0 && self.tolerance < 1.0) {
            return refuse(format!("tolerance is between 0 and 1, not {}", self.tolerance));
        }
        Ok(())
    }

    fn start<'a>(&self, normal: &'a Normal<'a>) -> Result<PseudoSamples> {
        PseudoSamples::of(normal)
    }

    fn solve(&self, samples: &PseudoSamples, penalty: f64) -> Result<Option<Mat<f64>>> {
        let correlation = samples.past.t().dot(&samples.future) / samples.past.nrows() as f64;
        let largest = correlation.rows().into_iter().map(|row| row.dot(&row).sqrt()).fold(0.0, f64::max);
        let net = MultiTaskElasticNet::params()
            .penalty(penalty * largest / self.l1_ratio)
            .l1_ratio(self.l1_ratio)
            .with_intercept(false)
            .max_iterations(self.rounds)
            .tolerance(self.tolerance)
            .fit(&DatasetBase::new(samples.past.view(), samples.future.view()))
            .map_err(|error| Error::other(format!("elastic-net: {error}")))?;
        Ok(Some(samples.to_steps(net.hyperplane())))
    }
}
