//! How a network is trained, as numbers.

use serde::{Deserialize, Serialize};

use super::kernels::loss::Loss;
use crate::{Error, Result};

/// `[training]` of a preset.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Training {
    /// Times that all training windows are seen, at most.
    pub epochs: usize,
    /// Windows between two updates of the weights.
    pub batch_size: usize,
    pub learning_rate: f64,
    /// How the learning rate changes.
    pub schedule: Schedule,
    /// Epochs without improvement on the validation windows after which training stops.
    pub patience: usize,
    pub loss: Loss,
    /// Whether a last, smaller batch of an epoch is left out.
    pub drop_last: bool,
    /// AdamW's decay; 0 is Adam.
    pub weight_decay: f64,
    /// The largest norm of all gradients together; 0 leaves them as they are.
    pub clip: f64,
    /// Parts a batch is cut into, which threads share; 0 lets the size of the batch decide. A part of
    /// the algorithm, not of the machine: the order of sums follows from it, and not from the number of
    /// threads.
    pub shards: usize,
    /// Parts of names: only the weights whose name has one of them are trained, the others stay as they
    /// are. Empty, all are.
    // Left out where it says nothing, as what follows: the name of a record follows from its params.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub only: Vec<String>,
    /// Windows that an epoch sees, drawn anew for each; 0 is all of them.
    #[serde(skip_serializing_if = "is_zero")]
    pub epoch_windows: usize,
    /// Validation windows that are looked at, spread evenly over all; 0 is all of them.
    #[serde(skip_serializing_if = "is_zero")]
    pub valid_windows: usize,
    /// Whether an epoch sees as many windows of each data set, where there are several; windows of small
    /// ones more than once.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub balanced: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
fn is_zero(count: &usize) -> bool {
    *count == 0
}

impl Default for Training {
    fn default() -> Self {
        Self {
            epochs: 10,
            batch_size: 32,
            learning_rate: 1e-4,
            schedule: Schedule::Type1,
            patience: 3,
            loss: Loss::Mse,
            drop_last: false,
            weight_decay: 0.0,
            clip: 0.0,
            shards: 0,
            only: vec![],
            epoch_windows: 0,
            valid_windows: 0,
            balanced: false,
        }
    }
}

impl Training {
    /// What is not written where it is as by default, as it would be.
    pub const LEFT_OUT: [&str; 4] = ["only=[]", "epoch_windows=0", "valid_windows=0", "balanced=false"];

    /// The most parts a batch is cut into where its size decides: each has gradients of its own for all
    /// weights, to be kept and added up.
    pub(super) const MOST_SHARDS: usize = 4;

    /// Parts that a batch of so many windows, each with `rows` rows, is cut into for a network of so many
    /// `weights`.
    pub(super) fn parts(&self, windows: usize, rows: usize, weights: usize) -> usize {
        /// Rows that keep the products of a part busy.
        const ROWS: usize = 112;
        /// Gradients that all parts together may keep: a quarter of a gigabyte.
        const GRADIENTS: usize = 1 << 26;
        let most = (GRADIENTS / weights.max(1)).clamp(2, Self::MOST_SHARDS);
        match self.shards {
            0 => (windows * rows / ROWS).clamp(2, most).min(windows),
            shards => shards.min(windows),
        }
    }

    /// # Errors
    /// If a number cannot be used.
    pub fn check(&self, model: &str) -> Result<()> {
        const MOST_EPOCHS: usize = 1_000_000;
        if self.epochs > MOST_EPOCHS {
            return Err(Error::params(
                model,
                format!("training.epochs must be at most {MOST_EPOCHS}, not {}", self.epochs),
            ));
        }
        match self.schedule {
            Schedule::CosineAnnealing { epochs: 0 } => {
                return Err(Error::params(model, "training.schedule: epochs must be at least 1"));
            }
            Schedule::Decay { factor, .. } if !(factor > 0.0 && factor.is_finite()) => {
                return Err(Error::params(model, format!("training.schedule: factor must be above 0, not {factor}")));
            }
            _ => {}
        }
        let counts = [("epochs", self.epochs), ("batch_size", self.batch_size), ("patience", self.patience)];
        if let Some((name, _)) = counts.iter().find(|(_, count)| *count == 0) {
            return Err(Error::params(model, format!("training.{name} must be at least 1")));
        }
        if !(self.learning_rate > 0.0 && self.learning_rate.is_finite()) {
            let message = format!("training.learning_rate must be above 0, not {}", self.learning_rate);
            return Err(Error::params(model, message));
        }
        let sizes = [("weight_decay", self.weight_decay), ("clip", self.clip)];
        match sizes.iter().find(|(_, size)| !(*size >= 0.0 && size.is_finite())) {
            Some((name, size)) => Err(Error::params(model, format!("training.{name} must be at least 0, not {size}"))),
            None => Ok(()),
        }
    }
}

/// The learning rate of each epoch, as the published code has it. `rate` is the one that is set, and
/// epochs count from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Schedule {
    /// The rate twice, then half of it after each epoch.
    #[default]
    Type1,
    /// Rates of its own from the third epoch on, whatever is set.
    Type2,
    /// The rate four times, then 0.9 of it after each epoch.
    Type3,
    /// Half a cosine over all epochs.
    Cosine,
    /// Half a cosine over `epochs`, down to 1e-8 and up again.
    CosineAnnealing {
        epochs: usize,
    },
    Constant,
    /// Up over the first fifth of all steps, from 1/25 of the rate, and down to almost nothing; PyTorch's
    /// OneCycleLR with its cosines, without its change of momentum.
    OneCycle,
    /// A tenth of the rate after `epoch` epochs.
    Drop {
        epoch: usize,
    },
    /// `factor` of the rate after each epoch, from the `after`-th on.
    Decay {
        factor: f64,
        after: usize,
    },
}

impl Schedule {
    /// The rate of `epoch` (from 1) of `epochs`, `done` (0 to 1) of all steps being done.
    pub fn rate(self, rate: f64, epoch: usize, epochs: usize, done: f64) -> f64 {
        let power = |base: f64, from: usize| base.powi(i32::try_from(epoch.saturating_sub(from)).unwrap_or(i32::MAX));
        let cosine =
            |from: f64, to: f64, part: f64| to + (from - to) / 2.0 * (1.0 + (std::f64::consts::PI * part).cos());
        match self {
            Self::Type1 => rate * power(0.5, 2),
            Self::Type2 => {
                let table = [(2, 5e-5), (4, 1e-5), (6, 5e-6), (8, 1e-6), (10, 5e-7), (15, 1e-7), (20, 5e-8)];
                table.iter().rfind(|(after, _)| *after < epoch).map_or(rate, |(_, rate)| *rate)
            }
            Self::Type3 => rate * power(0.9, 4),
            Self::Cosine => cosine(rate, 0.0, (epoch - 1) as f64 / epochs as f64),
            Self::CosineAnnealing { epochs } => cosine(rate, 1e-8, (epoch - 1) as f64 / epochs as f64),
            Self::Constant => rate,
            Self::OneCycle => {
                const UP: f64 = 0.2;
                let (first, last) = (rate / 25.0, rate / 25.0 / 1e4);
                match done < UP {
                    true => cosine(first, rate, done / UP),
                    false => cosine(rate, last, (done - UP) / (1.0 - UP)),
                }
            }
            Self::Drop { epoch: after } => {
                if epoch <= after {
                    rate
                } else {
                    rate * 0.1
                }
            }
            Self::Decay { factor, after } => rate * power(factor, after),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // The column "lr actually used in epoch k" of the published code, for a rate of 1 and 12 epochs.
    #[test]
    fn rates_are_those_of_the_published_code() {
        let rates = |schedule: Schedule| (1..=12).map(|epoch| schedule.rate(1.0, epoch, 12, 0.0)).collect::<Vec<_>>();
        assert_eq!(rates(Schedule::Type1)[..5], [1.0, 1.0, 0.5, 0.25, 0.125]);
        let type2 = [1.0, 1.0, 5e-5, 5e-5, 1e-5, 1e-5, 5e-6, 5e-6, 1e-6, 1e-6, 5e-7, 5e-7];
        assert_eq!(rates(Schedule::Type2), type2);
        let close =
            |left: &[f64], right: &[f64]| left.iter().zip(right).all(|(left, right)| (left - right).abs() < 1e-12);
        assert!(close(&rates(Schedule::Type3), &[1.0, 1.0, 1.0, 1.0, 0.9, 0.81, 0.729]));
        let cosine: Vec<f64> =
            (0..12).map(|k| 0.5 * (1.0 + (std::f64::consts::PI * f64::from(k) / 12.0).cos())).collect();
        assert!(close(&rates(Schedule::Cosine), &cosine));
        assert_eq!(rates(Schedule::Constant), [1.0; 12]);
        assert!(close(&rates(Schedule::Drop { epoch: 5 })[3..7], &[1.0, 1.0, 0.1, 0.1]));
        assert!(close(&rates(Schedule::Decay { factor: 0.5, after: 1 }), &[1.0, 0.5, 0.25]));
        assert!(close(&rates(Schedule::CosineAnnealing { epochs: 2 })[..3], &[1.0, 0.5 + 5e-9, 1e-8]));
    }

    #[test]
    fn what_leads_to_no_rate_is_refused() {
        let check = |text: &str| toml::from_str::<Training>(text).unwrap().check("linear").unwrap_err().to_string();
        assert!(check("schedule = { cosine-annealing = { epochs = 0 } }").contains("epochs must be at least 1"));
        assert!(check("schedule = { decay = { factor = -5.0, after = 0 } }").contains("factor must be above 0"));
        assert!(check("epochs = 9000000000000000000").contains("at most 1000000"));
    }

    #[test]
    fn what_is_left_out_is_as_by_default() {
        let written = toml::to_string(&Training::default()).unwrap();
        assert!(Training::LEFT_OUT.iter().all(|setting| !written.contains(setting.split('=').next().unwrap())));
        let whole = Training::LEFT_OUT.join("\n") + "\n" + &written;
        assert_eq!(toml::from_str::<Training>(&whole).unwrap(), Training::default());
    }

    #[test]
    fn one_cycle_goes_up_and_down_again() {
        let rate = |done| Schedule::OneCycle.rate(1.0, 1, 10, done);
        for (done, expected) in [(0.0, 0.04), (0.1, 0.52), (0.2, 1.0), (0.6, 0.500_002), (1.0, 4e-6)] {
            assert!((rate(done) - expected).abs() < 1e-6, "{done}: {}", rate(done));
        }
    }

    #[test]
    fn a_schedule_is_a_word_or_a_table() {
        let read = |text: &str| toml::from_str::<Training>(text).map(|training| training.schedule);
        assert_eq!(read("schedule = 'one-cycle'").unwrap(), Schedule::OneCycle);
        assert_eq!(read("schedule = { drop = { epoch = 5 } }").unwrap(), Schedule::Drop { epoch: 5 });
        assert!(read("schedule = 'type9'").is_err());
    }
}
