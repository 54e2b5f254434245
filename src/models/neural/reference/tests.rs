//! What needs more of a network than the public seam shows.

use std::path::PathBuf;

use candle_core::DType;
use ndarray::{Array3, s};

use super::*;
use crate::{models::neural::kernels::prob_sparse::Samples, windows::Lookback};

/// Informer's reference draws the keys that its forecast tries, so its forecast is told only with them.
#[test]
fn a_checkpoint_of_informer_forecasts_what_its_reference_does_with_the_same_keys() -> Result<()> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/informer.safetensors");
    let golden = StateDict::read(&path)?;
    let tensor = |name: &str| golden.tensors()[name].clone();
    let array = |name: &str| {
        let values = tensor(name).flatten_all().and_then(|flat| flat.to_vec1::<f32>()).unwrap();
        Array3::from_shape_vec(tensor(name).dims3().unwrap(), values).unwrap()
    };
    let expected = array("output");
    let (_, horizon, variates) = expected.dim();
    let values = array("input.x_enc");
    let lookback = values.dim().1;
    let decoder = array("input.x_mark_dec");
    let future_time = decoder.slice(s![.., decoder.dim().1 - horizon.., ..]).to_owned();
    let input = Lookback { values, past_time: array("input.x_mark_enc"), future_time };

    let of_reference = |name: &&String| {
        let weight = name.starts_with("encoder.") || name.starts_with("decoder.");
        (weight || name.contains("_embedding.")) && !name.starts_with("grad.") && !name.starts_with("adam3.")
    };
    let names = golden.tensors().keys().filter(of_reference);
    let weights = names.map(|name| (name.clone(), tensor(name))).collect();
    let dict = StateDict::of(&path, weights)?;
    let inferred = Reference::of("informer")?.infer(&dict)?;
    let mut params = Params::default();
    for assignment in ["network.heads=2", "network.label=24", "network.factor=3"] {
        params.set(assignment)?;
    }
    let params = params.overlaid(&inferred.as_params()).read("informer")?;
    let shape = WindowShape { lookback, horizon, variates, time_features: 4 };
    let context = BuildContext::new(shape);
    let (mut neural, left_out) = import::<Informer>(&dict, params, &context, &Sources::default())?;
    assert_eq!(left_out, ["encoder.conv_layers.0.norm.num_batches_tracked"]);
    let tables = (0..4).map(|index| {
        let table = tensor(&format!("index_sample.{index}"));
        let keys = table.to_dtype(DType::U32)?.flatten_all()?.to_vec1()?;
        Ok(Samples::of(&keys, table.dims2()?.1))
    });
    neural.network.try_these(tables.collect::<candle_core::Result<_>>().map_err(tensor_error)?);
    let forecast = neural.predict(&input)?;
    let apart = forecast.iter().zip(&expected).fold(0f32, |most, (found, expected)| most.max((found - expected).abs()));
    println!("informer: {apart:.1e}");
    assert!(apart < 1e-5, "{apart:e}");
    Ok(())
}
