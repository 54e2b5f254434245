//! Forecasters that are a linear map, whatever it is fitted by.
//!
//! One map takes the lookback of a variate to its horizon, shared by all variates or one for each.
//! All fits start from the same second moments of the training windows; candidates for a
//! hyper-parameter are compared on the validation windows, by the moments of those.

use std::{ops::ControlFlow, path::Path};

use faer::Mat;
use ndarray::Array3;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{
    level::Level,
    linear_map::LinearMap,
    moments::{Gram, Moments},
    normal::{Normal, Solution, squared_error},
};
use crate::{
    Error, Result,
    forecaster::{BuildContext, FitObserver, FitProgress, Forecaster},
    windows::{Lookback, WindowShape, Windows},
};

/// A value, or several to choose from on the validation split.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected a number or a list of numbers")]
pub enum Choice<T> {
    Fixed(T),
    Among(Vec<T>),
}

impl<T> Choice<T> {
    /// What there is to choose from.
    pub fn candidates(&self) -> &[T] {
        match self {
            Self::Fixed(value) => std::slice::from_ref(value),
            Self::Among(values) => values,
        }
    }
}

/// What all linear maps have in common.
#[derive(Clone, Copy, Debug)]
pub struct Common {
    pub level: Level,
    pub individual: bool,
    pub intercept: bool,
}

/// A way to fit a linear map.
pub trait Solver: Send + Sync {
    /// The name in the registry.
    const NAME: &'static str;
    /// What is chosen on the validation split: "penalty".
    const CHOSEN: &'static str;
    type Candidate: Copy + std::fmt::Debug + Send + Sync;

    fn common(&self) -> Common;
    fn candidates(&self) -> &[Self::Candidate];
    /// # Errors
    /// If a candidate can never be used.
    fn check(&self) -> Result<()>;
    /// What all candidates start from.
    type Start<'a>: Send + Sync;
    /// # Errors
    /// If there is no start.
    fn start<'a>(&self, normal: &'a Normal<'a>) -> Result<Self::Start<'a>>;
    /// The weights `[lookback, horizon]`; none if this candidate does not lead to any.
    ///
    /// # Errors
    /// If the method fails for a reason that is not the candidate's.
    fn solve(&self, start: &Self::Start<'_>, candidate: Self::Candidate) -> Result<Option<Mat<f64>>>;
}

/// A forecaster made of a [`Solver`].
pub struct Linear<S: Solver> {
    solver: S,
    shape: WindowShape,
    map: Option<LinearMap>,
    /// What each map was chosen to be by the last fit; nothing for a constant.
    chosen: Vec<Option<S::Candidate>>,
}

/// The candidate it came of, and what came of it.
type Found<C> = (Option<C>, Solution);

impl<S: Solver> Linear<S> {
    /// # Errors
    /// If a hyper-parameter cannot be used, or there is none to choose from.
    pub fn new(solver: S, context: &BuildContext) -> Result<Self> {
        if solver.candidates().is_empty() {
            return Err(Error::params(S::NAME, format!("the list of '{}' to choose from is empty", S::CHOSEN)));
        }
        solver.check()?;
        Ok(Self { solver, shape: context.shape, map: None, chosen: vec![] })
    }

    fn maps(&self) -> usize {
        if self.solver.common().individual { self.shape.variates } else { 1 }
    }

    fn moments(&self, gram: &Gram<'_>, map: usize) -> Moments {
        let Common { level, individual, .. } = self.solver.common();
        if individual { gram.of_variate(map, level) } else { gram.shared(level) }
    }

    /// The best solution for each of `samples`: the moments of the training and, where there is a
    /// choice, of the validation windows. `report` hears how many solutions were tried.
    fn choose(
        &self,
        samples: &[(Moments, Option<Moments>)],
        report: &mut dyn FnMut(usize) -> Result<()>,
    ) -> Result<Vec<Found<S::Candidate>>> {
        let solver = &self.solver;
        let normals: Vec<_> = samples.iter().map(|(train, _)| Normal::new(train, solver.common().intercept)).collect();
        let starts: Vec<_> = normals
            .par_iter()
            .map(|normal| (normal.scale > 0.0).then(|| solver.start(normal)).transpose())
            .collect::<Result<_>>()?;
        let attempt = |index: usize, candidate: S::Candidate| -> Result<Option<(f64, Solution)>> {
            let Some(start) = &starts[index] else { return Ok(None) };
            let Some(weights) = solver.solve(start, candidate)? else { return Ok(None) };
            let solution = normals[index].with_bias(weights);
            let error = samples[index].1.as_ref().map_or(0.0, |valid| squared_error(valid, &solution));
            Ok((error.is_finite() && solution.is_finite()).then_some((error, solution)))
        };

        let mut best: Vec<Option<(f64, Found<S::Candidate>)>> = samples.iter().map(|_| None).collect();
        // A few at a time, so that there is something to report; as many as keep all threads busy.
        for candidates in solver.candidates().chunks(rayon::current_num_threads().div_ceil(samples.len())) {
            let jobs: Vec<_> = (0..samples.len())
                .flat_map(|index| candidates.iter().map(move |candidate| (index, *candidate)))
                .collect();
            let found: Vec<_> =
                jobs.par_iter().map(|(index, candidate)| attempt(*index, *candidate)).collect::<Result<_>>()?;
            for ((index, candidate), found) in jobs.iter().zip(found) {
                let is_better = |found: &(f64, _)| best[*index].as_ref().is_none_or(|best| found.0 < best.0);
                if let Some((error, solution)) = found.filter(is_better) {
                    best[*index] = Some((error, (Some(*candidate), solution)));
                }
            }
            report(jobs.len())?;
        }
        let solutions = best.into_iter().zip(&normals).map(|(best, normal)| match best {
            Some((_, found)) => Ok(found),
            None if normal.scale == 0.0 => Ok((None, without_weights(normal))),
            None => Err(self.undetermined()),
        });
        solutions.collect()
    }

    fn undetermined(&self) -> Error {
        let tried: Vec<_> = self.solver.candidates().iter().map(|candidate| format!("{candidate:?}")).collect();
        let message = format!(
            "{} {} leaves the map undetermined: the windows hold too little variety; set another one or a shorter \
             lookback",
            S::CHOSEN,
            tried.join(", ")
        );
        Error::params(S::NAME, message)
    }

    fn fitted(&self) -> Result<&LinearMap> {
        self.map.as_ref().ok_or(Error::NotFitted(S::NAME))
    }

    fn check(&self, windows: &Windows<'_>) -> Result<()> {
        match windows.shape() == self.shape {
            true => Ok(()),
            false => Err(Error::Shape(format!("windows of {:?}, but built for {:?}", windows.shape(), self.shape))),
        }
    }
}

/// A constant has no weights, only an intercept.
fn without_weights(normal: &Normal<'_>) -> Solution {
    normal.with_bias(Mat::zeros(normal.gram.nrows(), normal.cross.ncols()))
}

impl<S: Solver> Forecaster for Linear<S> {
    fn fit(&mut self, train: &Windows<'_>, valid: &Windows<'_>, observer: &mut dyn FitObserver) -> Result<()> {
        // Only so many matrices of moments are kept at a time.
        const TOGETHER: usize = 8;
        self.check(train)?;
        let train = Gram::of(train);
        let chosen = self.solver.candidates().len() > 1;
        let valid = match chosen {
            true => {
                self.check(valid)?;
                Some(Gram::of(valid))
            }
            false => None,
        };
        let (maps, total) = (self.maps(), self.maps() * self.solver.candidates().len());
        let mut done = 0;
        let mut report = |tried: usize| {
            done += tried;
            match observer.progress(FitProgress { done, total, unit: S::CHOSEN, loss: None }) {
                ControlFlow::Continue(()) => Ok(()),
                ControlFlow::Break(()) => Err(Error::Interrupted),
            }
        };
        let mut found = Vec::with_capacity(maps);
        while found.len() < maps {
            let samples: Vec<_> = (found.len()..maps.min(found.len() + TOGETHER))
                .into_par_iter()
                .map(|map| (self.moments(&train, map), valid.as_ref().map(|valid| self.moments(valid, map))))
                .collect();
            found.extend(self.choose(&samples, &mut report)?);
        }
        let (chosen, solutions): (Vec<_>, Vec<_>) = found.into_iter().unzip();
        self.chosen = chosen;
        self.map = Some(LinearMap::of(self.solver.common().level, &solutions));
        Ok(())
    }

    fn refit(&mut self, all: &Windows<'_>, _: &mut dyn FitObserver) -> Result<bool> {
        self.check(all)?;
        // What was loaded does not say how it was chosen.
        if self.chosen.is_empty() {
            return Ok(false);
        }
        let gram = Gram::of(all);
        let solution = |(map, chosen): (usize, &Option<S::Candidate>)| {
            let moments = self.moments(&gram, map);
            let normal = Normal::new(&moments, self.solver.common().intercept);
            let Some(candidate) = chosen.filter(|_| normal.scale > 0.0) else { return Ok(without_weights(&normal)) };
            let weights = self.solver.solve(&self.solver.start(&normal)?, candidate)?;
            let solution = weights.map(|weights| normal.with_bias(weights)).filter(Solution::is_finite);
            solution.ok_or_else(|| self.undetermined())
        };
        let solutions: Vec<Solution> = self.chosen.par_iter().enumerate().map(solution).collect::<Result<_>>()?;
        self.map = Some(LinearMap::of(self.solver.common().level, &solutions));
        Ok(true)
    }

    fn predict(&self, lookback: &Lookback) -> Result<Array3<f32>> {
        self.fitted()?.apply(lookback.values.view())
    }

    fn save(&self, dir: &Path) -> Result<()> {
        self.fitted()?.save(dir)
    }

    fn load(&mut self, dir: &Path) -> Result<()> {
        let shape = [self.maps(), self.shape.horizon, self.shape.lookback];
        self.map = Some(LinearMap::load(dir, self.solver.common().level, shape)?);
        Ok(())
    }
}
