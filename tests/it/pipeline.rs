//! Raw values in and out, and the folder between.

use longcast::{
    data::{Builtin, Series},
    forecaster::{Pipeline, Plan},
    models,
    windows::SplitRule,
};
use tempfile::TempDir;

fn fitted(model: &str) -> (Pipeline, Series) {
    let series = Builtin::AirPassengers.series().unwrap();
    let split = SplitRule::Ratio([0.7, 0.1, 0.2]).split(series.len()).unwrap();
    let mut plan = Plan::new(model, 24, 6);
    plan.params = crate::small(model);
    (Pipeline::fit(&models::builtin(), &plan, &series, &split, &mut ()).unwrap(), series)
}

#[test]
fn a_forecast_is_in_the_units_of_the_data() {
    let (pipeline, series) = fitted("seasonal-naive");
    let next = pipeline.forecast(&series).unwrap();
    // January to June 1960, one year on.
    for (value, expected) in next.values.iter().zip([417.0, 391.0, 419.0, 461.0, 472.0, 535.0]) {
        assert!((value - expected).abs() < 1e-3, "{value} is not {expected}");
    }
}

#[test]
fn a_saved_pipeline_forecasts_the_same_bits() {
    for model in models::builtin().names() {
        let (pipeline, series) = fitted(model);
        let dir = TempDir::new().unwrap();
        pipeline.save(dir.path()).unwrap();
        let loaded = Pipeline::load(dir.path(), &models::builtin()).unwrap();
        assert_eq!(loaded.forecast(&series).unwrap(), pipeline.forecast(&series).unwrap(), "{model}");
        assert_eq!((loaded.model(), loaded.params()), (pipeline.model(), pipeline.params()));
    }
}

#[test]
fn a_gpht_fitted_once_forecasts_any_horizon() {
    let (pipeline, series) = fitted("gpht");
    let dir = TempDir::new().unwrap();
    pipeline.save(dir.path()).unwrap();
    let forecast = |horizon| {
        let loaded = Pipeline::load_with_horizon(dir.path(), &models::builtin(), horizon).unwrap();
        loaded.forecast(&series).unwrap().values.column(0).to_vec()
    };
    let longest = forecast(1000);
    assert!(longest.iter().all(|value| value.is_finite()));
    for horizon in [1, 24, 96, 720] {
        assert_eq!(forecast(horizon), longest[..horizon]);
    }
    assert_eq!(pipeline.forecast(&series).unwrap().values.column(0).to_vec(), longest[..6]);
}

#[test]
fn weights_of_one_horizon_forecast_no_other() {
    let (pipeline, _) = fitted("dlinear");
    let dir = TempDir::new().unwrap();
    pipeline.save(dir.path()).unwrap();
    let error = |horizon| Pipeline::load_with_horizon(dir.path(), &models::builtin(), horizon).err().unwrap();
    assert!(error(7).to_string().contains("is [6], but the model has [7]"), "{}", error(7));
    assert_eq!(error(0).to_string(), "horizon must be at least 1");
}

#[test]
fn data_that_does_not_fit_is_refused() {
    let (pipeline, series) = fitted("ridge");
    let times = series.timestamps().to_vec();
    let other = Series::new("other", times.clone(), vec!["boats".into()], series.values().to_owned()).unwrap();
    let error = pipeline.forecast(&other).unwrap_err().to_string();
    assert!(error.contains("\"boats\"") && error.contains("\"passengers\""), "{error}");

    let few = series.values().slice(ndarray::s![..10, ..]).to_owned();
    let short = Series::new("short", times[..10].to_vec(), vec!["passengers".into()], few).unwrap();
    assert_eq!(pipeline.forecast(&short).unwrap_err().to_string(), "short: 10 rows, but the lookback is 24");
}

#[test]
fn a_folder_that_holds_no_pipeline_is_refused() {
    let dir = TempDir::new().unwrap();
    let error = |dir: &TempDir| Pipeline::load(dir.path(), &models::builtin()).err().unwrap().to_string();
    assert!(error(&dir).contains("model.toml: cannot read"));

    let (pipeline, _) = fitted("ridge");
    pipeline.save(dir.path()).unwrap();
    let weights = dir.path().join("weights.safetensors");
    let whole = std::fs::read(&weights).unwrap();
    std::fs::write(&weights, &whole[..whole.len() / 2]).unwrap();
    assert!(error(&dir).contains("weights.safetensors"), "{}", error(&dir));
    std::fs::write(dir.path().join("model.toml"), "model = \"ridge\"").unwrap();
    assert!(error(&dir).contains("model.toml"));
}
