//! Tests of the closed form against least squares over windows that are written down.

use std::sync::atomic::{AtomicU64, Ordering};

use faer::{Mat, linalg::solvers::SolveLstsq};
use ndarray::{Array2, Array3, ArrayView1, Axis, s};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{
    level::Level,
    linear::{Choice, Linear},
    moments::Gram,
    normal::{Normal, squared_error},
    ridge::{Ridge, RidgeParams},
};
use crate::{
    Error, Result,
    data::Series,
    forecaster::{BuildContext, FitObserver, FitProgress, Forecaster},
    windows::{Lookback, Order, WindowShape, Windows},
};

const LEVELS: [Level; 4] = [Level::None, Level::Last, Level::Mean, Level::Standardise];

/// A season, a random walk and noise; another series for every call.
fn series(rows: usize, variates: usize) -> Series {
    static SEED: AtomicU64 = AtomicU64::new(2021);
    let seed = SEED.fetch_add(1, Ordering::Relaxed);
    println!("series with seed {seed}");
    let mut draw = ChaCha8Rng::seed_from_u64(seed);
    let mut walk = vec![0.0; variates];
    let values = Array2::from_shape_fn((rows, variates), |(row, variate)| {
        walk[variate] += draw.random_range(-0.1..0.1);
        let season = (row as f64 / 12.0 * std::f64::consts::TAU).sin();
        walk[variate] + season * (variate + 1) as f64 + draw.random_range(-1.0..1.0)
    });
    let names = (0..variates).map(|variate| format!("v{variate}")).collect();
    Series::new("random", vec![], names, values).unwrap()
}

fn params(level: Level, individual: bool, penalty: f64) -> RidgeParams {
    RidgeParams { level, individual, penalty: Choice::Fixed(penalty), ..RidgeParams::default() }
}

/// One sample as the level leaves it: the row of regressors, of the intercept too, and the targets.
fn sample(level: Level, past: ArrayView1<'_, f64>, future: ArrayView1<'_, f64>) -> (Vec<f64>, Vec<f64>) {
    let mean = past.mean().unwrap();
    let off = match level {
        Level::None => 0.0,
        Level::Last => past[past.len() - 1],
        Level::Mean | Level::Standardise => mean,
    };
    let constant = match level {
        Level::Standardise => (past.mapv(|value| (value - mean).powi(2)).mean().unwrap() + 1e-5).sqrt(),
        _ => 1.0,
    };
    let regressors = past.iter().map(|value| value - off).chain([constant]).collect();
    (regressors, future.iter().map(|value| value - off).collect())
}

/// All samples of `windows`, of one variate or of all.
fn samples(windows: &Windows<'_>, level: Level, variate: Option<usize>) -> (Mat<f64>, Mat<f64>) {
    let (mut left, mut right) = (vec![], vec![]);
    for window in windows.iter() {
        for index in 0..windows.shape().variates {
            if variate.is_none_or(|variate| variate == index) {
                let (regressors, targets) = sample(level, window.lookback.column(index), window.target.column(index));
                left.push(regressors);
                right.push(targets);
            }
        }
    }
    let matrix = |rows: Vec<Vec<f64>>| Mat::from_fn(rows.len(), rows[0].len(), |row, column| rows[row][column]);
    (matrix(left), matrix(right))
}

/// Penalised least squares by QR: the penalty is so many more rows.
///
/// The level leaves a direction without any data; a row for that makes it unique.
fn brute_force(windows: &Windows<'_>, level: Level, variate: Option<usize>, penalty: f64) -> (Mat<f64>, Vec<f64>) {
    let (left, right) = samples(windows, level, variate);
    let lookback = left.ncols() - 1;
    // The scale of the penalty: the mean diagonal of the moments that the intercept leaves.
    let constant = left.col(lookback);
    let scale: f64 = (0..lookback)
        .map(|column| {
            let column = left.col(column);
            let with_constant: f64 = column.transpose() * constant;
            column.squared_norm_l2() - with_constant.powi(2) / constant.squared_norm_l2()
        })
        .sum::<f64>()
        / lookback as f64;
    let empty = level.weights(lookback).unwrap_or_else(|| vec![0.0; lookback]);
    let rows = left.nrows();
    let more = Mat::from_fn(rows + lookback + 1, lookback + 1, |row, column| match row.checked_sub(rows) {
        None => left[(row, column)],
        Some(row) if row < lookback => f64::from(u8::from(row == column)) * (penalty * scale).sqrt(),
        Some(_) => empty.get(column).map_or(0.0, |weight| weight * scale.sqrt()),
    });
    let targets =
        Mat::from_fn(more.nrows(), right.ncols(), |row, column| if row < rows { right[(row, column)] } else { 0.0 });
    let solution = more.qr().solve_lstsq(&targets);
    let bias = (0..right.ncols()).map(|step| solution[(lookback, step)]).collect();
    (solution.subrows(0, lookback).to_owned(), bias)
}

fn assert_near(found: &Mat<f64>, expected: &Mat<f64>, what: &str) {
    let distance = (found - expected).norm_l2() / expected.norm_l2();
    assert!(distance < 1e-6, "{what}: relative distance {distance:e}");
}

#[test]
fn the_closed_form_is_least_squares_over_all_windows() -> Result<()> {
    // Several runs, one of them short, one too short for any window.
    let all = [series(150, 3), series(40, 3), series(15, 3)];
    let shape = WindowShape::of(&all[0], 12, 5)?;
    let windows = Windows::new(&all, &[20..150, 0..40, 0..15], shape)?;
    let gram = Gram::of(&windows);
    for level in LEVELS {
        for penalty in [0.0, 0.03] {
            for variate in [None, Some(0), Some(2)] {
                let moments = variate.map_or_else(|| gram.shared(level), |index| gram.of_variate(index, level));
                let normal = Normal::new(&moments, true);
                let solution = normal.with_bias(normal.ridge(penalty, level).expect("noise is never singular"));
                let (weights, bias) = brute_force(&windows, level, variate, penalty);
                let what = format!("{level:?}, variate {variate:?}, penalty {penalty}");
                assert_near(&solution.weights, &weights, &what);
                for (found, expected) in solution.bias.iter().zip(&bias) {
                    assert!(
                        (found - expected).abs() < 1e-6 * (1.0 + expected.abs()),
                        "{what}: bias {found} {expected}"
                    );
                }
            }
        }
    }
    Ok(())
}

#[test]
fn the_squared_error_is_that_of_the_forecasts() -> Result<()> {
    let all = [series(120, 2), series(60, 2)];
    let shape = WindowShape::of(&all[0], 8, 4)?;
    let (train, valid) = (Windows::new(&all, &[0..80, 0..40], shape)?, Windows::new(&all, &[80..120, 40..60], shape)?);
    for level in LEVELS {
        let moments = Gram::of(&train).shared(level);
        let normal = Normal::new(&moments, true);
        let solution = normal.with_bias(normal.ridge(0.01, level).expect("noise is never singular"));
        let (left, right) = samples(&valid, level, None);
        let all =
            Mat::from_fn(9, 4, |row, step| if row < 8 { solution.weights[(row, step)] } else { solution.bias[step] });
        let expected = (left * all - right).squared_norm_l2();
        let found = squared_error(&Gram::of(&valid).shared(level), &solution);
        assert!((found / expected - 1.0).abs() < 1e-9, "{level:?}: {found}, not {expected}");
    }
    Ok(())
}

#[test]
fn moments_are_the_sums_over_all_windows() -> Result<()> {
    let all = [series(200, 2)];
    for (lookback, horizon) in [(30, 7), (1, 1), (1, 6), (5, 1)] {
        let shape = WindowShape::of(&all[0], lookback, horizon)?;
        let windows = Windows::new(&all, &[0..200], shape)?;
        for level in LEVELS {
            let found = Gram::of(&windows).shared(level);
            let (left, right) = samples(&windows, level, None);
            let past = left.subcols(0, lookback);
            let near = |found: f64, expected: f64| assert!((found - expected).abs() < 1e-9 * (1.0 + expected.abs()));
            let (gram, cross) = (past.transpose() * past, right.transpose() * past);
            for column in 0..lookback {
                (0..lookback).for_each(|row| near(found.products[(row, column)], gram[(row, column)]));
                (0..horizon).for_each(|step| near(found.products[(lookback + step, column)], cross[(step, column)]));
            }
            let constant = left.col(lookback);
            (0..lookback).for_each(|row| near(found.sums[row], left.col(row).transpose() * constant));
            (0..horizon).for_each(|step| near(found.sums[lookback + step], right.col(step).transpose() * constant));
            near(found.squares, constant.squared_norm_l2());
            near(found.targets, right.squared_norm_l2());
        }
    }
    Ok(())
}

fn fitted(params: RidgeParams, all: &[Series], shape: WindowShape) -> Result<Ridge> {
    let rows = all[0].len();
    let mut model = Linear::new(params, &BuildContext::new(shape))?;
    let cut = |range: std::ops::Range<usize>| Windows::new(all, &[range], shape);
    model.fit(&cut(0..rows * 2 / 3)?, &cut(rows * 2 / 3..rows)?, &mut ())?;
    Ok(model)
}

fn lookback(windows: &Windows<'_>, count: usize) -> Lookback {
    windows.batches(count, Order::InTime).next_batch().expect("there is a window").lookback.clone()
}

#[test]
fn forecasts_move_with_the_level_that_is_taken_off() -> Result<()> {
    let all = [series(300, 2)];
    let shape = WindowShape::of(&all[0], 24, 6)?;
    let past = lookback(&Windows::new(&all, &[0..300], shape)?, 5);
    let mut moved = past.clone();
    moved.values += 3.0;
    for level in LEVELS {
        let model = fitted(params(level, false, 0.0), &all, shape)?;
        let shift = model.predict(&moved)? - model.predict(&past)? - 3.0;
        let largest = shift.iter().fold(0f32, |largest, value| largest.max(value.abs()));
        assert_eq!(largest < 1e-4, level != Level::None, "{level:?}: {largest}");
    }
    Ok(())
}

#[test]
fn a_shared_map_does_not_know_one_variate_from_another() -> Result<()> {
    let all = [series(300, 3)];
    let shape = WindowShape::of(&all[0], 24, 6)?;
    let past = lookback(&Windows::new(&all, &[0..300], shape)?, 5);
    let mut turned = past.clone();
    turned.values.invert_axis(Axis(2));
    turned.values = turned.values.as_standard_layout().into_owned();
    for level in LEVELS {
        let model = fitted(params(level, false, 0.1), &all, shape)?;
        let mut forecast = model.predict(&turned)?;
        forecast.invert_axis(Axis(2));
        assert_eq!(forecast, model.predict(&past)?);
    }
    Ok(())
}

#[test]
fn a_forecast_does_not_depend_on_its_batch() -> Result<()> {
    // Longer than one block of the matrix product in every direction, and never a multiple of a tile.
    let all = [series(900, 3)];
    let shape = WindowShape::of(&all[0], 301, 97)?;
    let windows = Windows::new(&all, &[0..900], shape)?;
    let past = lookback(&windows, 131);
    for individual in [false, true] {
        let model = fitted(params(Level::Standardise, individual, 0.1), &all, shape)?;
        let whole = model.predict(&past)?;
        for range in [0..1, 130..131, 3..10, 7..70, 86..131] {
            let part = Lookback { values: past.values.slice(s![range.clone(), .., ..]).to_owned(), ..past.clone() };
            assert_eq!(model.predict(&part)?, whole.slice(s![range, .., ..]));
        }
    }
    Ok(())
}

#[test]
fn only_the_last_rows_of_a_longer_lookback_are_used() -> Result<()> {
    let all = [series(300, 2)];
    let shape = WindowShape::of(&all[0], 24, 6)?;
    let model = fitted(params(Level::Last, true, 0.1), &all, shape)?;
    let longer = lookback(&Windows::whole_past(&all, &[100..300], shape)?, 1);
    let last = Lookback { values: longer.values.slice(s![.., -24.., ..]).to_owned(), ..longer.clone() };
    assert_eq!(model.predict(&longer)?, model.predict(&last)?);
    let short = Lookback { values: longer.values.slice(s![.., ..23, ..]).to_owned(), ..longer };
    assert!(matches!(model.predict(&short), Err(Error::Shape(_))));
    Ok(())
}

#[test]
fn the_number_of_threads_changes_no_bit() -> Result<()> {
    let all = [series(400, 5)];
    let shape = WindowShape::of(&all[0], 24, 6)?;
    let past = lookback(&Windows::new(&all, &[0..400], shape)?, 50);
    for individual in [false, true] {
        let forecast = |threads| -> Result<Array3<f32>> {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let params = RidgeParams { level: Level::Standardise, individual, ..RidgeParams::default() };
            pool.install(|| fitted(params, &all, shape)?.predict(&past))
        };
        assert_eq!(forecast(1)?, forecast(3)?);
    }
    Ok(())
}

#[test]
fn with_a_fixed_penalty_the_validation_rows_change_nothing() -> Result<()> {
    let all = [series(300, 2)];
    let shape = WindowShape::of(&all[0], 24, 6)?;
    let past = lookback(&Windows::new(&all, &[0..300], shape)?, 5);
    let mut values = all[0].values().to_owned();
    values.slice_mut(s![200.., ..]).mapv_inplace(|value| 5.0 - value);
    let changed = [Series::new("changed", vec![], all[0].variates().to_vec(), values)?];
    for level in LEVELS {
        let forecast = |all| fitted(params(level, false, 0.01), all, shape)?.predict(&past);
        assert_eq!(forecast(&all)?, forecast(&changed)?);
    }
    Ok(())
}

#[test]
fn the_chosen_penalty_is_the_best_on_the_validation_windows() -> Result<()> {
    let all = [series(90, 2)];
    let shape = WindowShape::of(&all[0], 24, 6)?;
    let valid = Windows::new(&all, &[60..90], shape)?;
    let error = |penalty| -> Result<f32> {
        let model = fitted(RidgeParams { penalty, ..RidgeParams::default() }, &all, shape)?;
        let mut batches = valid.batches(1000, Order::InTime);
        let batch = batches.next_batch().expect("there is a window");
        Ok((model.predict(&batch.lookback)? - &batch.target).mapv(|error| error * error).mean().unwrap())
    };
    let grid = [1e-4, 1e-2, 1.0, 100.0];
    let chosen = error(Choice::Among(grid.to_vec()))?;
    let fixed = grid.map(|penalty| error(Choice::Fixed(penalty)));
    let best = fixed.into_iter().collect::<Result<Vec<_>>>()?.into_iter().fold(f32::INFINITY, f32::min);
    assert_eq!(chosen, best);
    Ok(())
}

#[test]
fn a_penalty_that_leaves_the_map_undetermined_is_named() -> Result<()> {
    // Without noise a season fills two directions of 24.
    let season = Array2::from_shape_fn((300, 1), |(row, _)| (row as f64 / 12.0 * std::f64::consts::TAU).sin());
    let all = [Series::new("season", vec![], vec!["v".into()], season)?];
    let shape = WindowShape::of(&all[0], 24, 6)?;
    let error = fitted(params(Level::None, false, 0.0), &all, shape).err().expect("it is singular");
    assert!(error.to_string().starts_with("ridge: penalty 0.0 leaves the map undetermined"), "{error}");
    let model = fitted(RidgeParams::default(), &all, shape)?;
    let windows = Windows::new(&all, &[0..300], shape)?;
    let mut batches = windows.batches(100, Order::InTime);
    let batch = batches.next_batch().expect("there is a window");
    let worst =
        (model.predict(&batch.lookback)? - &batch.target).mapv(f32::abs).fold(0.0, |worst, error| error.max(worst));
    assert!(worst < 1e-2, "a season without noise is continued, but for {worst}");
    Ok(())
}

#[test]
fn a_constant_is_continued() -> Result<()> {
    let all = [Series::new("constant", vec![], vec!["v".into()], Array2::from_elem((300, 1), 0.1))?];
    let shape = WindowShape::of(&all[0], 24, 6)?;
    let past = lookback(&Windows::new(&all, &[0..300], shape)?, 3);
    for level in LEVELS {
        let forecast = fitted(params(level, false, 0.0), &all, shape)?.predict(&past)?;
        assert!(forecast.iter().all(|value| (value - 0.1).abs() < 1e-6), "{level:?}: {forecast}");
    }
    Ok(())
}

#[test]
fn params_that_cannot_be_used_are_refused() -> Result<()> {
    let shape = WindowShape { lookback: 4, horizon: 2, variates: 1, time_features: 0 };
    let build = |text: &str| {
        let mut params = crate::forecaster::Params::default();
        params.set(text)?;
        crate::models::builtin().build("ridge", &params, &BuildContext::new(shape)).map(|_| ())
    };
    for fine in ["penalty=1", "penalty=0.5", "penalty=[0, 0.5]", "level=standardise"] {
        build(fine)?;
    }
    for wrong in ["penalty=-1", "penalty=nan", "penalty=[]", "penalty=much", "level=first", "lambda=1"] {
        let error = build(wrong).expect_err(wrong);
        assert!(error.to_string().starts_with("ridge: "), "{error}");
    }
    Ok(())
}

#[test]
fn a_break_of_the_observer_ends_the_fit() -> Result<()> {
    let all = [series(300, 20)];
    let shape = WindowShape::of(&all[0], 8, 2)?;
    let windows = Windows::new(&all, &[0..300], shape)?;
    let mut model: Ridge = Linear::new(params(Level::Last, true, 0.1), &BuildContext::new(shape))?;
    let mut heard = 0;
    let observer: &mut dyn FitObserver = &mut |progress: FitProgress| {
        heard = progress.done;
        std::ops::ControlFlow::Break(())
    };
    assert!(matches!(model.fit(&windows, &windows, observer), Err(Error::Interrupted)));
    assert!(heard < 20);
    assert!(matches!(model.predict(&lookback(&windows, 1)), Err(Error::NotFitted("ridge"))));
    Ok(())
}

#[test]
fn a_file_that_is_not_this_models_is_named() -> Result<()> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("weights.safetensors");
    let all = [series(300, 2)];
    let shape = WindowShape::of(&all[0], 24, 6)?;
    fitted(params(Level::Last, false, 0.1), &all, shape)?.save(dir.path())?;
    let refused = |params, shape, why: &str| {
        let mut model: Ridge = Linear::new(params, &BuildContext::new(shape)).unwrap();
        let error = model.load(dir.path()).unwrap_err().to_string();
        assert!(error.contains("weights.safetensors") && error.contains(why), "{error}");
    };
    refused(params(Level::Mean, false, 0.1), shape, "the level is 'last', but 'mean' is expected");
    refused(params(Level::Last, true, 0.1), shape, "'weight' is F32 [6, 24], not F32 [2, 6, 24]");
    refused(params(Level::Last, false, 0.1), WindowShape { horizon: 7, ..shape }, "not F32 [7, 24]");
    let whole = std::fs::read(&file).unwrap();
    std::fs::write(&file, &whole[..whole.len() / 2]).unwrap();
    refused(params(Level::Last, false, 0.1), shape, "not a whole safetensors file");
    std::fs::remove_file(&file).unwrap();
    refused(params(Level::Last, false, 0.1), shape, "cannot read");
    Ok(())
}
