//! Forecasters without gradient descent: rules, closed-form linear maps, linfa's regressors.

pub mod naive;
