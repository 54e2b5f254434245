//! What a linear map takes off each window before it maps it, and puts back afterwards.

use serde::{Deserialize, Serialize};

/// How a linear map handles the level of a window.
///
/// With `x` the lookback, `y` the forecast and `W`, `b` what is fitted:
///
/// | level | the map | it is the optimum of |
/// |---|---|---|
/// | `none` | `y = W x + b` | Linear ([Zeng et al.](https://arxiv.org/abs/2205.13504)) |
/// | `last` | `y = W (x - x_last) + b + x_last` | NLinear (same paper) |
/// | `mean` | `y = W (x - mean) + b + mean` | – |
/// | `standardise` | `y = W (x - mean) + b sigma + mean` | RLinear without affine ([Li et al.](https://arxiv.org/abs/2305.10721)) |
///
/// where `sigma = sqrt(var(x) + 1e-5)` as in RevIN. There the map `W` sees `(x - mean) / sigma` and
/// its output is multiplied by `sigma`, which leaves `W` as it is and puts `sigma` before `b`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    None,
    #[default]
    Last,
    Mean,
    Standardise,
}

impl Level {
    /// Added to the variance before the root (RevIN's epsilon).
    pub const EPSILON: f64 = 1e-5;

    /// The level as weights of the lookback rows, if there is one: `x_last` or `mean`.
    pub fn weights(self, lookback: usize) -> Option<Vec<f64>> {
        match self {
            Self::None => None,
            Self::Last => {
                let mut weights = vec![0.0; lookback];
                weights[lookback - 1] = 1.0;
                Some(weights)
            }
            Self::Mean | Self::Standardise => Some(vec![1.0 / lookback as f64; lookback]),
        }
    }

    /// Whether the intercept is multiplied by the deviation of the window.
    pub fn scales_intercept(self) -> bool {
        self == Self::Standardise
    }

    /// The name in params and files.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Last => "last",
            Self::Mean => "mean",
            Self::Standardise => "standardise",
        }
    }
}
