//! Checkpoints of the papers' code in, and their names out.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use assert_cmd::{Command, assert::Assert};
use candle_core::{DType, Device, Tensor, safetensors};
use longcast::{
    data::{Builtin, Calendar, Catalogue, Parts, Series},
    forecaster::{BuildContext, Params, Pipeline, Plan},
    models::{
        self,
        neural::reference::{REFERENCES, Reference, Sources, StateDict},
    },
    windows::{Lookback, WindowShape},
};
use ndarray::{Array3, Axis};
use predicates::{prelude::PredicateBooleanExt, str::contains};
use tempfile::TempDir;

use crate::torch_file::torch_file;

fn longcast(arguments: &[&str]) -> Assert {
    Command::cargo_bin("longcast").unwrap().args(arguments).env_remove("LONGCAST_DATA").assert()
}

/// All tensors of a golden file, and those of them that its reference's state dict holds.
struct Golden {
    all: BTreeMap<String, Tensor>,
    weights: BTreeMap<String, Tensor>,
}

impl Golden {
    fn read(name: &str) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/{name}.safetensors"));
        let all: BTreeMap<String, Tensor> = safetensors::load(path, &Device::Cpu).unwrap().into_iter().collect();
        let results = ["target", "output", "output_f64", "loss", "loss_weighted_l1", "pe_head", "rollout"];
        let aside = ["grad.", "adam3.", "input.", "selected_", "index_sample."];
        let of_state_dict =
            |name: &&String| !results.contains(&name.as_str()) && !aside.iter().any(|prefix| name.starts_with(prefix));
        let names: Vec<String> = all.keys().filter(of_state_dict).cloned().collect();
        let weights = names.into_iter().map(|name| (name.clone(), all[&name].clone())).collect();
        Self { all, weights }
    }

    fn array(&self, name: &str) -> Array3<f32> {
        let tensor = &self.all[name];
        let values = tensor.flatten_all().unwrap().to_vec1().unwrap();
        Array3::from_shape_vec(tensor.dims3().unwrap(), values).unwrap()
    }

    /// As `torch.save` writes it.
    fn pth(&self, folder: &TempDir) -> PathBuf {
        let path = folder.path().join("checkpoint.pth");
        fs::write(&path, torch_file(&self.weights)).unwrap();
        path
    }

    fn lookback(&self, horizon: usize) -> Lookback {
        let values = self.array("input.x_enc");
        let (batch, rows, _) = values.dim();
        let none = |rows| Array3::zeros((batch, rows, 0));
        match self.all.contains_key("input.x_mark_enc") {
            false => Lookback { values, past_time: none(rows), future_time: none(horizon) },
            true => {
                let future_time = match self.all.contains_key("input.x_mark_dec") {
                    // The decoder's calendar begins with the last rows of the encoder's.
                    true => {
                        let decoder = self.array("input.x_mark_dec");
                        let label = decoder.len_of(Axis(1)) - horizon;
                        decoder.slice_move(ndarray::s![.., label.., ..])
                    }
                    false => Array3::zeros((batch, horizon, 4)),
                };
                Lookback { values, past_time: self.array("input.x_mark_enc"), future_time }
            }
        }
    }
}

fn params(assignments: &[&str]) -> Params {
    let mut params = Params::default();
    assignments.iter().for_each(|assignment| params.set(assignment).unwrap());
    params
}

/// The largest difference, in units of the largest value.
fn apart(found: &Array3<f32>, expected: &Array3<f32>) -> f32 {
    assert_eq!(found.dim(), expected.dim());
    let largest = expected.iter().fold(0f32, |largest, value| largest.max(value.abs()));
    found.iter().zip(expected).fold(0f32, |most, (found, expected)| most.max((found - expected).abs())) / largest
}

/// What no shape tells of that golden.
const NOMARK: [&str; 3] = ["network.heads=2", "network.activation=relu", "network.instance_norm=false"];
const NOMARK_OPTIONS: [&str; 8] = ["--set", NOMARK[0], "--set", NOMARK[1], "--set", NOMARK[2], "--variates", "5"];

/// Model, golden, the name of its forecast, and what no shape tells.
const GOLDENS: [(&str, &str, &str, &[&str]); 8] = [
    ("dlinear", "dlinear", "output", &["network.moving_average=25"]),
    ("dlinear", "dlinear_individual", "output", &["network.moving_average=25"]),
    ("nlinear", "nlinear", "output", &[]),
    ("itransformer", "itransformer", "output", &["network.heads=2"]),
    ("itransformer", "itransformer_nomark", "output", &NOMARK),
    ("autoformer", "autoformer", "output", &["network.label=24", "network.factor=3"]),
    ("gpht", "gpht", "rollout", &["network.heads=2"]),
    ("olinear", "olinear", "output", &[]),
];

#[test]
fn a_checkpoint_forecasts_what_its_reference_does() {
    for (model, name, output, set) in GOLDENS {
        let (folder, golden) = (TempDir::new().unwrap(), Golden::read(name));
        let dict = StateDict::read(&golden.pth(&folder)).unwrap();
        let reference = Reference::of(model).unwrap();
        let inferred = reference.infer(&dict).unwrap();
        let expected = golden.array(output);
        let (_, horizon, variates) = expected.dim();
        let lookback = golden.lookback(horizon);
        let shape = WindowShape {
            lookback: inferred.lookback.unwrap_or(lookback.values.len_of(Axis(1))),
            horizon: inferred.horizon.unwrap_or(horizon),
            variates: inferred.variates.unwrap_or(variates),
            time_features: lookback.past_time.len_of(Axis(2)),
        };
        let params = params(set).overlaid(&inferred.as_params());
        let given = ["q_mat", "q_out_mat"].into_iter();
        let given = given.filter_map(|name| Some((name, golden.all.get(&format!("input.{name}"))?.clone())));
        let sources = Sources { train: None, given: given.collect() };
        let imported = reference.import(&dict, &params, &BuildContext::new(shape), &sources).unwrap();
        let distance = apart(&imported.forecaster.predict(&lookback).unwrap(), &expected);
        println!("{name}: {distance:.1e}");
        assert!(distance < 1e-5, "{name}: {distance:e}");
    }
}

#[test]
fn every_network_has_a_reference() {
    let models = models::builtin();
    let trained = |model: &&str| models.resolve(model, &params(&["training.epochs=1"])).is_ok();
    let networks: BTreeSet<&str> = models.names().filter(trained).collect();
    assert_eq!(networks, REFERENCES.iter().map(|reference| reference.model).collect());
}

fn import(checkpoint: &Path, model: &str, save: &Path, rest: &[&str]) -> Assert {
    let fixed = ["import", checkpoint.to_str().unwrap(), "--model", model, "--save", save.to_str().unwrap()];
    longcast(&[&fixed[..], rest].concat())
}

#[test]
fn without_data_forecasts_are_scaled_and_variates_are_numbers() {
    let (folder, golden) = (TempDir::new().unwrap(), Golden::read("itransformer_nomark"));
    let (checkpoint, dir) = (golden.pth(&folder), folder.path().join("made"));
    import(&checkpoint, "itransformer", &dir, &NOMARK_OPTIONS)
        .success()
        .stdout(contains("48 rows of 5 variates, of which 24 follow").and(contains("scaled: there was no data")))
        .stdout(contains("network.d_ff=32").and(contains("network.heads=2")));
    let pipeline = Pipeline::load(&dir, &models::builtin()).unwrap();
    let (input, expected) = (golden.array("input.x_enc"), golden.array("output"));
    for (window, expected) in input.outer_iter().zip(expected.outer_iter()) {
        let names = (0..5).map(|variate| variate.to_string()).collect();
        let series = Series::new("golden", vec![], names, window.mapv(f64::from)).unwrap();
        let forecast = pipeline.forecast(&series).unwrap().values.mapv(|value| value as f32);
        assert!(apart(&forecast.insert_axis(Axis(0)), &expected.to_owned().insert_axis(Axis(0))) < 1e-5);
    }
    import(&checkpoint, "itransformer", &dir, &["--variates", "5"]).code(1).stderr(contains("there already"));
}

#[test]
fn what_the_checkpoint_says_is_not_overridden() {
    let (folder, golden) = (TempDir::new().unwrap(), Golden::read("itransformer_nomark"));
    let (checkpoint, dir) = (golden.pth(&folder), folder.path().join("made"));
    let refused = |rest: &[&str], reason: &str| {
        let rest = [&["--set", "network.heads=2", "--variates", "5"], rest].concat();
        import(&checkpoint, "itransformer", &dir, &rest).code(2).stderr(contains(reason));
        assert!(!dir.exists());
    };
    refused(&["--set", "network.d_model=32"], "the checkpoint has network.d_model=16, and --set says otherwise");
    refused(&["--lookback", "96"], "the checkpoint has lookback=48, and --lookback says 96");
    refused(&["--horizon", "96"], "the checkpoint has horizon=24, and --horizon says 96");
    refused(&["--set", "network.heads=3"], "divide d_model");
    import(&checkpoint, "itransformer", &dir, &[]).code(2).stderr(contains("give --variates"));
    import(&checkpoint, "ridge", &dir, &[]).code(2).stderr(contains("no model with checkpoints named 'ridge'"));
    let same = ["--set", "network.heads=2", "--variates", "5", "--set", "network.d_model=16", "--lookback", "48"];
    let made = import(&checkpoint, "itransformer", &dir, &[&same[..], &["--json"]].concat()).success();
    let made: serde_json::Value = serde_json::from_slice(&made.get_output().stdout).unwrap();
    assert_eq!((&made["lookback"], &made["read_off"][2]), (&48.into(), &"network.d_model=16".into()));
}

#[test]
fn every_tensor_that_does_not_fit_is_named() {
    let folder = TempDir::new().unwrap();
    let mut golden = Golden::read("itransformer_nomark");
    golden.weights.remove("encoder.norm.bias").unwrap();
    golden.weights.remove("encoder.attn_layers.1.norm1.weight").unwrap();
    let zeros = |dims: &[usize]| Tensor::zeros(dims, DType::F32, &Device::Cpu).unwrap();
    golden.weights.insert("encoder.extra".into(), zeros(&[2]));
    golden.weights.insert("encoder.attn_layers.0.norm1.weight".into(), zeros(&[17]));
    let not_finite = Tensor::from_vec(vec![f32::NAN; 24], 24, &Device::Cpu).unwrap();
    golden.weights.insert("projector.bias".into(), not_finite);
    let counts = Tensor::zeros(16, DType::I64, &Device::Cpu).unwrap();
    golden.weights.insert("encoder.norm.weight".into(), counts);
    let dir = folder.path().join("made");
    let rest = ["--set", "network.heads=2", "--variates", "5"];
    import(&golden.pth(&folder), "itransformer", &dir, &rest)
        .code(1)
        .stderr(contains("'encoder.norm.bias' [16] is missing"))
        .stderr(contains("'encoder.attn_layers.1.norm1.weight' [16] is missing"))
        .stderr(contains("'encoder.extra' [2] is not known"))
        .stderr(contains("'encoder.attn_layers.0.norm1.weight' is [17], expected [16]"))
        .stderr(contains("'encoder.norm.weight' is of whole numbers"))
        .stderr(contains("'projector.bias' holds a number that is not finite"));

    // Where a size is missing, names are told all the same, and no shape that follows from it.
    golden.weights.remove("projector.weight").unwrap();
    import(&golden.pth(&folder), "itransformer", &dir, &rest)
        .code(1)
        .stderr(contains("'projector.weight' is missing"))
        .stderr(contains("'encoder.norm.bias' is missing").and(contains("'encoder.extra' [2] is not known")))
        .stderr(contains("expected").not());
    import(&golden.pth(&folder), "gpht", &dir, &rest)
        .code(1)
        .stderr(contains("'encoders.0.forecast_head.weight' is missing"))
        .stderr(contains("'enc_embedding.value_embedding.weight' [16, 48] is not known"));
    assert!(!dir.exists());
}

#[test]
fn what_a_reference_keeps_beside_its_weights_is_checked_and_left_out() {
    let folder = TempDir::new().unwrap();
    let mut golden = Golden::read("informer");
    let angle = |step: usize, column: usize| step as f32 * (-((column / 2 * 2) as f32) * 10_000f32.ln() / 16.0).exp();
    let value = |at: usize| match at % 2 {
        0 => angle(at / 16, at % 16).sin(),
        _ => angle(at / 16, at % 16).cos(),
    };
    let table = Tensor::from_vec((0..5000 * 16).map(value).collect(), (1, 5000, 16), &Device::Cpu).unwrap();
    for name in ["enc_embedding", "dec_embedding"] {
        golden.weights.insert(format!("{name}.position_embedding.pe"), table.clone());
    }
    let dir = folder.path().join("made");
    let rest = [
        "--set",
        "network.heads=2",
        "--set",
        "network.label=24",
        "--lookback",
        "48",
        "--horizon",
        "24",
        "--step",
        "1h",
    ];
    import(&golden.pth(&folder), "informer", &dir, &rest)
        .success()
        .stdout(contains("dec_embedding.position_embedding.pe, enc_embedding.position_embedding.pe"))
        .stdout(contains("encoder.conv_layers.0.norm.num_batches_tracked"))
        .stdout(contains("network.variant=library").and(contains("network.distil=true")));

    let other = (table * 1.1).unwrap();
    golden.weights.insert("enc_embedding.position_embedding.pe".into(), other);
    import(&golden.pth(&folder), "informer", &folder.path().join("other"), &rest)
        .code(1)
        .stderr(contains("'enc_embedding.position_embedding.pe' is not the table of sines and cosines"));
}

#[test]
fn bases_of_olinear_come_from_files_or_from_data() {
    let (folder, golden) = (TempDir::new().unwrap(), Golden::read("olinear"));
    let (checkpoint, dir) = (golden.pth(&folder), folder.path().join("made"));
    import(&checkpoint, "olinear", &dir, &[]).code(2).stderr(contains("--q-mat"));
    let npy = |name: &str, tensor: &Tensor| {
        let path = folder.path().join(name);
        tensor.write_npy(&path).unwrap();
        path.to_str().unwrap().to_string()
    };
    let (q, q_out) = (npy("q.npy", &golden.all["input.q_mat"]), npy("q_out.npy", &golden.all["input.q_out_mat"]));
    let with = |q: &str, q_out: &str| import(&checkpoint, "olinear", &dir, &["--q-mat", q, "--q-out-mat", q_out]);
    with(&q_out, &q).code(1).stderr(contains("'q_mat' is [24, 24], but the checkpoint needs [48, 48]"));
    let twice = npy("twice.npy", &(&golden.all["input.q_mat"] * 2.0).unwrap());
    with(&twice, &q_out).code(1).stderr(contains("'q_mat' is not orthogonal"));
    let mut bytes = fs::read(&q).unwrap();
    let at = bytes.windows(6).position(|part| part == b"48,48,").unwrap();
    bytes[at..at + 6].copy_from_slice(b"999999");
    let hostile = folder.path().join("hostile.npy");
    fs::write(&hostile, bytes).unwrap();
    with(hostile.to_str().unwrap(), &q_out).code(1).stderr(contains("not a matrix in a .npy file"));
    with(&q, &q_out).success();

    let mut apart = golden.weights;
    let copy = (&apart["ortho_trans.1.norm.bias"] + 1.0).unwrap();
    apart.insert("ortho_trans.1.norm.bias".into(), copy);
    let checkpoint = folder.path().join("apart.pth");
    fs::write(&checkpoint, torch_file(&apart)).unwrap();
    import(&checkpoint, "olinear", &folder.path().join("apart"), &["--q-mat", &q, "--q-out-mat", &q_out])
        .code(1)
        .stderr(contains("'ortho_trans.1.norm.bias' is not the copy of 'encoder.norm.bias'"));
}

#[test]
fn what_is_exported_and_imported_again_forecasts_the_same_bits() {
    let opened = Catalogue::new(None).unwrap().open("AirPassengers").unwrap();
    let Parts::Rule(rule) = opened.parts else { panic!("it is one series") };
    let series = Builtin::AirPassengers.series().unwrap();
    let split = rule.split(series.len()).unwrap();
    for reference in REFERENCES {
        let (folder, model) = (TempDir::new().unwrap(), reference.model);
        let path = |name: &str| folder.path().join(name);
        let mut plan = Plan::new(model, 24, 6);
        (plan.params, plan.calendar) = (crate::small(model), Some(Calendar::Monthly));
        let fitted = Pipeline::fit(&models::builtin(), &plan, &series, &split, &mut ()).unwrap();
        fitted.save(path("fitted")).unwrap();
        let file = path("weights.safetensors");
        longcast(&["export", path("fitted").to_str().unwrap(), "--output", file.to_str().unwrap()]).success();

        let inferred = reference.infer(&StateDict::read(&file).unwrap()).unwrap();
        let mut rest = vec!["--dataset", "AirPassengers", "--preset", "none"];
        let sizes = [("--lookback", inferred.lookback, "24"), ("--horizon", inferred.horizon, "6")];
        sizes.iter().filter(|(_, size, _)| size.is_none()).for_each(|(name, _, value)| rest.extend([*name, *value]));
        if inferred.time_features.is_none() {
            rest.extend(["--calendar", "monthly"]);
        }
        if inferred.contradicted(&params(&["network.heads=2"])).is_none() && has_heads(model) {
            rest.extend(["--set", "network.heads=2"]);
        }
        import(&file, model, &path("made"), &rest).success().stdout(contains("those of the data"));
        let made = Pipeline::load(path("made"), &models::builtin()).unwrap();
        assert_eq!(made.forecast(&series).unwrap(), fitted.forecast(&series).unwrap(), "{model}");
        let weights = |name: &str| fs::read(path(name).join("weights.safetensors")).unwrap();
        assert_eq!(weights("made"), weights("fitted"), "{model}");
    }
}

#[test]
fn a_file_gives_the_scaler_and_the_names() {
    let (folder, golden) = (TempDir::new().unwrap(), Golden::read("nlinear"));
    let rows: String = (0..40).map(|row| format!("{row},{}\n", 2 * row)).collect();
    let file = folder.path().join("data.csv");
    fs::write(&file, format!("a,b\n{rows}")).unwrap();
    let rest = ["--file", file.to_str().unwrap(), "--time-column", "none", "--split", "0.5,0.25,0.25"];
    let (checkpoint, dir) = (golden.pth(&folder), folder.path().join("made"));
    import(&checkpoint, "nlinear", &dir, &[&rest[..], &["--variates", "5"]].concat())
        .code(1)
        .stderr(contains("the data has 2 variates, but the checkpoint is of 5"));
    import(&checkpoint, "nlinear", &dir, &rest).success();
    let made = fs::read_to_string(dir.join("model.toml")).unwrap();
    // 0 to 19, and twice as much.
    assert!(made.contains("variates = [\"a\", \"b\"]") && made.contains("mean = [9.5, 19.0]"), "{made}");
    import(&checkpoint, "nlinear", &dir.join("x"), &[&rest[..4], &["--split", "0.5,0.5"]].concat())
        .code(2)
        .stderr(contains("'--split <TRAIN,VALID,TEST>': three shares"));
}

fn has_heads(model: &str) -> bool {
    models::builtin().resolve(model, &params(&["network.heads=2"])).is_ok()
}

#[test]
fn exported_names_are_those_of_the_reference() {
    for (model, name, rest) in [
        ("nlinear", "nlinear", &["--variates", "5"][..]),
        ("dlinear", "dlinear_individual", &[]),
        ("informer", "informer", &["--set", "network.heads=2", "--lookback", "48", "--horizon", "24", "--step", "1h"]),
        ("autoformer", "autoformer", &["--lookback", "48", "--horizon", "24", "--step", "1h"]),
        ("gpht", "gpht", &["--set", "network.heads=2", "--lookback", "96", "--horizon", "24", "--variates", "5"]),
    ] {
        let (folder, mut golden) = (TempDir::new().unwrap(), Golden::read(name));
        let (dir, file) = (folder.path().join("made"), folder.path().join("out.safetensors"));
        import(&golden.pth(&folder), model, &dir, rest).success();
        longcast(&["export", dir.to_str().unwrap(), "--output", file.to_str().unwrap()]).success();
        let exported: BTreeMap<String, Tensor> = safetensors::load(&file, &Device::Cpu).unwrap().into_iter().collect();
        golden.weights.retain(|name, _| !name.ends_with(".num_batches_tracked"));
        assert_eq!(exported.keys().collect::<Vec<_>>(), golden.weights.keys().collect::<Vec<_>>(), "{name}");
        let values = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert!(exported.iter().all(|(name, tensor)| values(tensor) == values(&golden.weights[name])), "{name}");
    }
}

#[test]
fn bases_that_were_exported_are_taken_in_again() {
    let (folder, golden) = (TempDir::new().unwrap(), Golden::read("olinear"));
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_string();
    for (name, file) in [("q_mat", "q.npy"), ("q_out_mat", "q_out.npy")] {
        golden.all[&format!("input.{name}")].write_npy(path(file)).unwrap();
    }
    let made = |checkpoint: &str, q: &str, q_out: &str, dir: &str| {
        import(Path::new(checkpoint), "olinear", Path::new(dir), &["--q-mat", q, "--q-out-mat", q_out]).success();
        fs::read(Path::new(dir).join("weights.safetensors")).unwrap()
    };
    let pth = golden.pth(&folder);
    let first = made(pth.to_str().unwrap(), &path("q.npy"), &path("q_out.npy"), &path("one"));
    longcast(&["export", &path("one"), "--output", &path("out.safetensors")])
        .success()
        .stdout(contains("out.q_mat.npy"));
    let exported = StateDict::read(Path::new(&path("out.safetensors"))).unwrap();
    assert_eq!(exported.tensors().keys().collect::<Vec<_>>(), golden.weights.keys().collect::<Vec<_>>());
    let second = made(&path("out.safetensors"), &path("out.q_mat.npy"), &path("out.q_out_mat.npy"), &path("two"));
    assert_eq!(first, second);
}
