//! The forecasters.
//!
//! They know windows and the contract; they do not know files, metrics or one another.

pub mod classical;

use crate::forecaster::Registry;
#[cfg(feature = "regressors")]
use classical::{elastic_net, pls};
use classical::{
    naive::{Drift, Mean, Naive, Repeat, SeasonalNaive},
    ridge,
};

/// All forecasters of this crate.
pub fn builtin() -> Registry {
    let mut models = Registry::default();
    models.register("repeat", "the last value, repeated", Naive::<Repeat>::new);
    models.register("seasonal-naive", "the last season, repeated", Naive::<SeasonalNaive>::new);
    models.register("drift", "the line through the first and the last value, continued", Naive::<Drift>::new);
    models.register("mean", "the mean of the lookback", Naive::<Mean>::new);
    models.register("ridge", "the linear map from lookback to horizon, by least squares", ridge::Ridge::new);
    #[cfg(feature = "regressors")]
    {
        models.register(
            "elastic-net",
            "the linear map from lookback to horizon that leaves out most lookback rows",
            elastic_net::ElasticNet::new,
        );
        models.register("pls", "the linear map through a few directions of the lookback", pls::Pls::new);
    }
    models
}
