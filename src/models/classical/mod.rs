//! Forecasters without gradient descent: rules, closed-form linear maps, linfa's regressors.

#[cfg(test)]
mod brute_force;
#[cfg(feature = "regressors")]
pub mod elastic_net;
mod lags;
mod level;
mod linear;
mod linear_map;
mod moments;
pub mod naive;
mod normal;
#[cfg(feature = "regressors")]
pub mod pls;
#[cfg(feature = "regressors")]
mod pseudo;
pub mod ridge;

pub use level::Level;
pub use linear::Choice;
