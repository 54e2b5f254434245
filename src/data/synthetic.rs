//! A multivariate series made up from a seed: what real ones are made of, with nothing to fetch.

use std::f64::consts::TAU;

use chrono::{DateTime, Datelike, NaiveDateTime, TimeDelta, Timelike, Weekday};
use ndarray::Array2;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};
use serde::{Deserialize, Serialize};

use super::Series;
use crate::{Error, Result};

/// Hourly rows from 2024-01-01 00:00 on, a Monday.
///
/// The variates come in pairs of a leader and a follower. A leader is
///
/// ```text
/// level + daily season + weekly season + trend + level shifts + disturbance
/// ```
///
/// where the disturbance is a first-order autoregression that nothing else foretells. A follower
/// repeats 0.8 of its leader's way some hours later, with a small daily season and noise of its
/// own: whoever looks at the leader forecasts it better than its own past allows.
///
/// Each variate is drawn from its own stream of the seed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Synthetic {
    pub rows: usize,
    pub variates: usize,
    pub seed: u64,
    /// Height of the daily season; its phase is drawn.
    pub daily: f64,
    /// How much lower Saturdays and Sundays are.
    pub weekly: f64,
    /// Largest change from the first row to the last; each leader draws its share, up or down.
    pub trend: f64,
    /// Hours the first follower is behind its leader; the second is twice that, and so on.
    pub lag: usize,
    /// Level shifts in each leader, at drawn rows, of drawn heights.
    pub shifts: usize,
    /// Deviation of what is drawn each hour.
    pub noise: f64,
}

impl Default for Synthetic {
    /// 90 days of six variates.
    fn default() -> Self {
        Self {
            rows: 90 * 24,
            variates: 6,
            seed: 2021,
            daily: 2.0,
            weekly: 1.5,
            trend: 2.0,
            lag: 3,
            shifts: 2,
            noise: 0.3,
        }
    }
}

/// What an hour's disturbance keeps of that of the hour before.
const PERSISTENCE: f64 = 0.9;
/// What a follower repeats of its leader's way.
const FOLLOWED: f64 = 0.8;

impl Synthetic {
    /// The series, to four decimals.
    ///
    /// # Errors
    /// If there is to be no row or no variate, or a number is not finite.
    pub fn series(&self) -> Result<Series> {
        if self.rows == 0 || self.variates == 0 {
            return Err(Error::other("a synthetic series needs at least one row and one variate"));
        }
        // Followers look back; what they see at the first row is made too, and dropped.
        let before = self.lag * (self.variates / 2);
        let hours: Vec<NaiveDateTime> = (0..before + self.rows).map(|hour| hour_of(hour, before)).collect();

        let mut values = Array2::zeros((self.rows, self.variates));
        let mut leader = Vec::new();
        for (variate, mut column) in values.columns_mut().into_iter().enumerate() {
            let mut random = ChaCha8Rng::seed_from_u64(self.seed);
            random.set_stream(variate as u64);
            let level = 10.0 * (variate + 1) as f64;
            let way = match variate % 2 {
                0 => {
                    leader = self.leader(&hours, before, &mut random);
                    leader.clone()
                }
                _ => self.follower(&hours, &leader, self.lag * (variate / 2 + 1), &mut random),
            };
            for (value, way) in column.iter_mut().zip(&way[before..]) {
                *value = ((level + way) * 1e4).round() / 1e4;
            }
        }
        let names = (0..self.variates).map(|variate| match variate % 2 {
            0 => format!("leader {}", variate / 2 + 1),
            _ => format!("follower {}", variate / 2 + 1),
        });
        Series::new("Synthetic", hours[before..].to_vec(), names.collect(), values)
    }

    fn leader(&self, hours: &[NaiveDateTime], before: usize, random: &mut ChaCha8Rng) -> Vec<f64> {
        let phase = random.random_range(0.0..TAU);
        let slope = self.trend * random.random_range(-1.0..1.0) / self.rows as f64;
        let mut shifts: Vec<(usize, f64)> =
            (0..self.shifts).map(|_| (before + random.random_range(0..self.rows), 1.5 * normal(random))).collect();
        shifts.sort_by_key(|(row, _)| *row);

        let mut disturbance = 0.0;
        let way = hours.iter().enumerate().map(|(row, hour)| {
            disturbance = PERSISTENCE * disturbance + self.noise * normal(random);
            let shifted: f64 = shifts.iter().filter(|(from, _)| *from <= row).map(|(_, height)| height).sum();
            let trend = slope * (row as f64 - before as f64);
            self.daily * time_of_day(hour, phase) + self.weekend(hour) + trend + shifted + disturbance
        });
        way.collect()
    }

    fn follower(&self, hours: &[NaiveDateTime], leader: &[f64], lag: usize, random: &mut ChaCha8Rng) -> Vec<f64> {
        let phase = random.random_range(0.0..TAU);
        let way = hours.iter().enumerate().map(|(row, hour)| {
            let own = 0.2 * self.daily * time_of_day(hour, phase) + 0.3 * self.noise * normal(random);
            FOLLOWED * leader[row.saturating_sub(lag)] + own
        });
        way.collect()
    }

    fn weekend(&self, hour: &NaiveDateTime) -> f64 {
        match hour.weekday() {
            Weekday::Sat | Weekday::Sun => -self.weekly,
            _ => 0.0,
        }
    }
}

fn hour_of(hour: usize, before: usize) -> NaiveDateTime {
    let monday = DateTime::from_timestamp(1_704_067_200, 0).expect("2024-01-01 is a date").naive_utc();
    monday + TimeDelta::hours(hour as i64 - before as i64)
}

/// A day with a morning and an evening peak of different height.
fn time_of_day(hour: &NaiveDateTime, phase: f64) -> f64 {
    let angle = TAU * f64::from(hour.hour()) / 24.0 + phase;
    angle.sin() + 0.4 * (2.0 * angle).sin()
}

fn normal(random: &mut ChaCha8Rng) -> f64 {
    StandardNormal.sample(random)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn correlation(a: &[f64], b: &[f64]) -> f64 {
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
        let (mean_a, mean_b) = (mean(a), mean(b));
        let sum = |product: &dyn Fn(f64, f64) -> f64| -> f64 {
            a.iter().zip(b).map(|(a, b)| product(a - mean_a, b - mean_b)).sum()
        };
        sum(&|a, b| a * b) / (sum(&|a, _| a * a) * sum(&|_, b| b * b)).sqrt()
    }

    #[test]
    fn a_seed_gives_one_series() -> Result<()> {
        let (series, again) = (Synthetic::default().series()?, Synthetic::default().series()?);
        assert_eq!(series.values(), again.values());
        let other = Synthetic { seed: 1, ..Synthetic::default() }.series()?;
        assert_ne!(series.values(), other.values());
        Ok(())
    }

    #[test]
    fn the_default_is_what_the_manifest_says() -> Result<()> {
        let manifest = super::super::Manifest::builtin()?;
        let (dataset, series) = (manifest.get("Synthetic")?, Synthetic::default().series()?);
        assert_eq!((Some(series.len()), Some(series.variates().len())), (dataset.rows, dataset.variates));
        assert_eq!(super::super::Step::detect(series.timestamps()), dataset.step);
        Ok(())
    }

    #[test]
    fn followers_are_behind_their_leaders_by_the_lag() -> Result<()> {
        let quiet = Synthetic { daily: 0.0, weekly: 0.0, shifts: 0, trend: 0.0, ..Synthetic::default() };
        let series = quiet.series()?;
        for (leader, lag) in [(0, 3), (2, 6), (4, 9)] {
            let (leader, follower) = (series.variate(leader), series.variate(leader + 1));
            let at = |lag: usize| correlation(&leader[..leader.len() - lag], &follower[lag..]);
            let best = (0..24).max_by(|a, b| at(*a).total_cmp(&at(*b))).unwrap();
            assert_eq!(best, lag);
            assert!(at(lag) > 0.9, "{}", at(lag));
        }
        Ok(())
    }

    #[test]
    fn a_single_variate_is_a_leader() -> Result<()> {
        let one = Synthetic { variates: 1, ..Synthetic::default() }.series()?;
        assert_eq!((one.variates(), one.len()), (&["leader 1".to_string()][..], 2160));
        Ok(())
    }

    #[test]
    fn nothing_cannot_be_made() {
        assert!(Synthetic { rows: 0, ..Synthetic::default() }.series().is_err());
        assert!(Synthetic { variates: 0, ..Synthetic::default() }.series().is_err());
    }
}
