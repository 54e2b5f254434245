//! Fit, save, load and forecast in one's own program: raw values in, raw values out.

#![allow(clippy::print_stdout)]

use longcast::{
    Result,
    data::Synthetic,
    forecaster::{Pipeline, Plan},
    models,
    windows::SplitRule,
};

fn main() -> Result<()> {
    let series = Synthetic::default().series()?; // or one's own: Series::new(name, timestamps, variates, values)
    let split = SplitRule::Ratio([0.7, 0.1, 0.2]).split(series.len())?;
    let models = models::builtin();

    let mut plan = Plan::new("ridge", 96, 24);
    plan.params.set("level=last")?;
    let pipeline = Pipeline::fit(&models, &plan, &series, &split, &mut ())?;

    let folder = std::env::temp_dir().join("longcast-embed");
    pipeline.save(&folder)?;
    let pipeline = Pipeline::load(&folder, &models)?;

    let forecast = pipeline.forecast(&series)?; // the 24 rows after the last one
    println!("{:?} at {}: {:.2}", forecast.variates, forecast.timestamps[0], forecast.values.row(0));
    Ok(())
}
