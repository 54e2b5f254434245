//! Nothing that comes after the lookback reaches a forecast, and nothing after the training rows
//! reaches the scaler or the fit.

use longcast::{
    data::Series,
    forecaster::{BuildContext, Pipeline, Plan},
    models,
    windows::{Order, Part, Scaler, Split, SplitRule, WindowShape, Windows},
};
use ndarray::{Array2, Array3};

const ROWS: usize = 400;
const LOOKBACK: usize = 24;
const HORIZON: usize = 6;

fn values() -> Array2<f64> {
    Array2::from_shape_fn((ROWS, 2), |(row, variate)| {
        let angle = (row + 5 * variate) as f64 / 12.0 * std::f64::consts::TAU;
        angle.sin() * 3.0 + ((row * 31 + variate * 17) % 23) as f64 / 23.0 + row as f64 / 200.0
    })
}

fn series(values: Array2<f64>) -> Series {
    Series::new("s", vec![], vec!["a".into(), "b".into()], values).unwrap()
}

fn changed(from: usize) -> Array2<f64> {
    let mut values = values();
    values.slice_mut(ndarray::s![from.., ..]).mapv_inplace(|value| 1000.0 - 7.0 * value);
    values
}

fn split() -> Split {
    SplitRule::Ratio([0.6, 0.2, 0.2]).split(ROWS).unwrap()
}

fn first_test_forecast(model: &str, values: Array2<f64>) -> Array3<f32> {
    let raw = series(values);
    let scaled = [Scaler::fit(&raw, &split()).transform(&raw).unwrap()];
    let shape = WindowShape::of(&scaled[0], LOOKBACK, HORIZON).unwrap();
    let windows = |part| Windows::new(&scaled, &[split().targets(part, LOOKBACK)], shape).unwrap();
    let context = BuildContext { season: 12, ..BuildContext::new(shape) };
    let mut forecaster = models::builtin().build(model, &crate::small(model), &context).unwrap();
    forecaster.fit(&windows(Part::Train), &windows(Part::Valid), &mut ()).unwrap();
    let test = windows(Part::Test);
    let mut batches = test.batches(1, Order::InTime);
    forecaster.predict(&batches.next_batch().unwrap().lookback).unwrap()
}

#[test]
fn no_forecast_moves_when_what_comes_after_its_lookback_changes() {
    let test_start = split().test.start;
    for model in models::builtin().names() {
        let before = first_test_forecast(model, values());
        let after = first_test_forecast(model, changed(test_start));
        assert_eq!(before, after, "{model} sees rows after its lookback");
    }
}

// The test above would be blind if the change did not show where it should.
#[test]
fn forecasts_do_move_when_their_lookback_changes() {
    let test_start = split().test.start;
    for model in models::builtin().names() {
        let before = first_test_forecast(model, values());
        let after = first_test_forecast(model, changed(test_start - LOOKBACK / 2));
        assert_ne!(before, after, "{model} does not see its lookback");
    }
}

#[test]
fn the_scaler_knows_training_rows_only() {
    let train_end = split().train.end;
    let scaler = |values| Scaler::fit(&series(values), &split());
    assert_eq!(scaler(values()), scaler(changed(train_end)));
    assert_ne!(scaler(values()), scaler(changed(train_end - 1)));
}

#[test]
fn a_fit_with_nothing_to_choose_knows_training_rows_only() {
    let train_end = split().train.end;
    let forecast = |values: Array2<f64>| {
        let mut plan = Plan::new("ridge", LOOKBACK, HORIZON);
        plan.params.set("level=last").unwrap();
        plan.params.set("penalty=0.1").unwrap();
        let pipeline = Pipeline::fit(&models::builtin(), &plan, &series(values), &split(), &mut ()).unwrap();
        let recent = values_of_the_first_rows();
        pipeline.forecast(&recent).unwrap()
    };
    assert_eq!(forecast(values()), forecast(changed(train_end)));
    assert_ne!(forecast(values()), forecast(changed(train_end - 1)));
}

fn values_of_the_first_rows() -> Series {
    series(values().slice(ndarray::s![..LOOKBACK, ..]).to_owned())
}
