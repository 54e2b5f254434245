//! The forecasters.
//!
//! They know windows and the contract; they do not know files, metrics or one another.

pub mod classical;
#[cfg(feature = "neural")]
pub mod neural;

#[cfg(feature = "neural")]
use crate::forecaster::Preset;
use crate::forecaster::Registry;
#[cfg(feature = "regressors")]
use classical::{elastic_net, pls};
use classical::{
    naive::{Drift, Mean, Naive, Repeat, SeasonalNaive},
    ridge,
};
#[cfg(feature = "neural")]
use neural::{Network, Neural, autoformer, gpht, informer, itransformer, linear, olinear};

#[cfg(feature = "neural")]
const PRESETS: &[(&str, &str)] = &[
    ("linear", include_str!("../../presets/linear.toml")),
    ("nlinear", include_str!("../../presets/nlinear.toml")),
    ("dlinear", include_str!("../../presets/dlinear.toml")),
    ("dlinear-96", include_str!("../../presets/dlinear-96.toml")),
    ("autoformer", include_str!("../../presets/autoformer.toml")),
    ("autoformer-small", include_str!("../../presets/autoformer-small.toml")),
    ("informer", include_str!("../../presets/informer.toml")),
    ("informer-small", include_str!("../../presets/informer-small.toml")),
    ("itransformer", include_str!("../../presets/itransformer.toml")),
    ("gpht", include_str!("../../presets/gpht.toml")),
    ("gpht-head", include_str!("../../presets/gpht-head.toml")),
    ("gpht-small", include_str!("../../presets/gpht-small.toml")),
    ("gpht-small-pretrain", include_str!("../../presets/gpht-small-pretrain.toml")),
    ("olinear", include_str!("../../presets/olinear.toml")),
    ("olinear-c", include_str!("../../presets/olinear-c.toml")),
];

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
    #[cfg(feature = "neural")]
    {
        network::<linear::Linear>(&mut models);
        network::<linear::NLinear>(&mut models);
        network::<linear::DLinear>(&mut models);
        network::<autoformer::Autoformer>(&mut models);
        network::<informer::Informer>(&mut models);
        network::<itransformer::ITransformer>(&mut models);
        network::<gpht::Gpht>(&mut models);
        network::<olinear::OLinear>(&mut models);
        network::<olinear::OLinearC>(&mut models);
        for (name, text) in PRESETS {
            let preset = Preset::parse(name, text).expect("a test reads every preset");
            models.add_preset(preset).expect("a test reads every preset");
        }
    }
    models
}

#[cfg(feature = "neural")]
fn network<N: Network>(models: &mut Registry) {
    models.register(N::NAME, N::ABOUT, Neural::<N>::new);
}

#[cfg(all(test, feature = "neural"))]
mod tests {
    use super::*;
    use crate::Result;

    #[test]
    fn every_setting_of_every_preset_is_known_to_its_model() -> Result<()> {
        let models = builtin();
        assert_eq!(models.presets().count(), PRESETS.len());
        for preset in models.presets() {
            for (dataset, horizon) in preset.settings() {
                let params = preset.params(&dataset, horizon.unwrap_or(0));
                let named = |error| crate::Error::other(format!("{} for {dataset}: {error}", preset.name));
                models.resolve(&preset.model, &params).map_err(named)?;
            }
        }
        Ok(())
    }
}
