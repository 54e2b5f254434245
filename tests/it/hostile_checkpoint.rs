//! Checkpoints that are damaged, or made to do harm.

use std::{collections::BTreeMap, fs};

use candle_core::{DType, Device, Tensor};
use longcast::{
    forecaster::BuildContext,
    models::neural::reference::{Reference, Sources, StateDict},
    windows::WindowShape,
};
use proptest::prelude::*;
use tempfile::TempDir;

use crate::torch_file::{Pickle, state_dict, storages, torch_file, zipped};

fn refusal(bytes: &[u8]) -> String {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("hostile.pth");
    fs::write(&path, bytes).unwrap();
    StateDict::read(&path).err().expect("it is refused").to_string()
}

#[test]
fn a_pickle_that_is_more_than_a_state_dict_is_refused() {
    let folder = TempDir::new().unwrap();
    let touched = folder.path().join("touched");
    let mut call = Pickle::begin();
    call.raw(b"cposix\nsystem\n").text(&format!("touch {}", touched.display())).raw(b"\x85R.");
    let hostile: [(&[u8], &str); 9] = [
        (&call.bytes, "'posix.system'"),
        (b"\x80\x02cbuiltins\neval\n.", "'builtins.eval'"),
        (b"\x80\x02carchive.model\nModel\n)\x81}b.", "'archive.model.Model'"),
        (b"\x80\x02X\xff\xff\xff\xffabc.", "cut off in a text"),
        (b"\x80\x02\x8a\xff.", "more than 64 bits"),
        (b"\x80\x02(d.", "op-code"),
        (b"\x80\x02}K\x01K\x02s.", "no text"),
        (b"\x80\x02K\x01.", "no state dict"),
        (b"\x80\x02}", "cut off"),
    ];
    for (pickle, reason) in hostile {
        let message = refusal(&zipped(pickle, &[]));
        assert!(message.contains(reason), "{message} does not tell of {reason}");
    }
    assert!(!touched.exists());

    let nested = [&b"\x80\x02)"[..], &[0x85; 100_000], b"."].concat();
    assert!(refusal(&zipped(&nested, &[])).contains("deeper"));
    // Each object is a pair of the one before: 2 to the power of 30 of them.
    let doubled: Vec<u8> = (0..30).flat_map(|at| [b'q', at, b'h', at, 0x86]).collect();
    assert!(refusal(&zipped(&[b"\x80\x02)", &doubled[..], b"."].concat(), &[])).contains("twice"));
    // A long tuple, remembered again and again.
    let remembered: Vec<u8> = (0..200_000u32).flat_map(|at| [&b"r"[..], &at.to_le_bytes()].concat()).collect();
    let pickle = [b"\x80\x02(", &[b'N'; 200_000][..], b"t", &remembered, b"."].concat();
    assert!(refusal(&zipped(&pickle, &[])).contains("copies more"));
}

#[test]
fn a_tensor_that_cannot_be_is_refused() {
    let tensor = |dims: &[usize], strides: &[usize], offset: usize| {
        let mut pickle = Pickle::begin();
        pickle.raw(b"}(").text("a").tensor("FloatStorage", "0", 4, offset, dims, strides).raw(b"u.");
        zipped(&pickle.bytes, &[("data/0".to_string(), vec![0; 16])])
    };
    let large = i32::MAX as usize;
    for (bytes, reason) in [
        (tensor(&[5], &[1], 0), "'a' reaches beyond its storage"),
        (tensor(&[4], &[1], 1), "'a' reaches beyond its storage"),
        (tensor(&[4], &[1], large), "'a' reaches beyond its storage"),
        (tensor(&[large], &[1], 0), "'a' is larger than the file"),
        (tensor(&[large, large, large], &[1, 1, 1], 0), "'a' is larger"),
        (tensor(&[2, 2], &[3, 1], 0), "'a' cannot be laid out"),
        (tensor(&[2, 2], &[2], 0), "'a' has a shape that cannot be"),
        (tensor(&[0], &[1], 0), "holds no number"),
        (b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.".to_vec(), "before 1.6"),
        (b"PK\x03\x04 and no zip".to_vec(), "not a zip"),
        (b"no checkpoint at all".to_vec(), "neither a file of torch.save nor one of safetensors"),
    ] {
        let message = refusal(&bytes);
        assert!(message.contains(reason), "{message} does not tell of {reason}");
    }
    // A matrix that lies column by column is read as what it is.
    let mut pickle = Pickle::begin();
    pickle.raw(b"}(").text("a").tensor("FloatStorage", "0", 4, 0, &[2, 2], &[1, 2]).raw(b"u.");
    let storage = [1f32, 2.0, 3.0, 4.0].into_iter().flat_map(f32::to_le_bytes).collect();
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("turned.pth");
    fs::write(&path, zipped(&pickle.bytes, &[("data/0".to_string(), storage)])).unwrap();
    let dict = StateDict::read(&path).unwrap();
    assert_eq!(dict.tensors()["a"].to_vec2::<f32>().unwrap(), [[1.0, 3.0], [2.0, 4.0]]);
}

#[test]
fn doubles_and_names_below_module_are_read() {
    let doubles = Tensor::from_vec(vec![0.5f64, -2.0], 2, &Device::Cpu).unwrap();
    let tensors = BTreeMap::from([("module.a.weight".to_string(), doubles)]);
    let dict = read(&torch_file(&tensors)).unwrap();
    assert_eq!(values(&dict), [("a.weight".to_string(), vec![2], vec![0.5, -2.0])]);
}

#[test]
fn a_state_dict_below_a_key_is_found_by_it() {
    let small = small();
    let mut pickle = Pickle::begin();
    // {"epoch": 3, "model": state dict, "groups": [{"rates": (0.5, 0.25), "decay": None}]}, as PyTorch writes it.
    pickle.raw(b"}").put().raw(b"(").text("epoch").raw(b"K\x03").text("model");
    pickle.raw(&state_dict(&small)[2..]);
    pickle.bytes.pop();
    pickle.text("groups").raw(b"]}(").text("rates").raw(b"G?\xe0\0\0\0\0\0\0G?\xd0\0\0\0\0\0\0\x86");
    pickle.text("decay").raw(b"Nuau.");
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("wrapped.pth");
    fs::write(&path, zipped(&pickle.bytes, &storages(&small))).unwrap();
    let below = |key| StateDict::read_below(&path, key);
    assert_eq!(values(&below(Some("model")).unwrap()), values(&read(&torch_file(&small)).unwrap()));
    for (key, reason) in
        [(Some("mode"), "did you mean 'model'"), (Some("epoch"), "model"), (None, "holds 'model': name")]
    {
        let message = below(key).err().unwrap().to_string();
        assert!(message.contains(reason), "{message} does not tell of {reason}");
    }
}

#[test]
fn sizes_of_a_hostile_checkpoint_are_not_allocated() {
    let zeros = |dims: &[usize]| Tensor::zeros(dims, DType::F32, &Device::Cpu).unwrap();
    let hostile = BTreeMap::from([
        ("enc_embedding.value_embedding.weight".to_string(), zeros(&[1_000_000, 1])),
        ("projector.weight".to_string(), zeros(&[1, 1])),
        ("encoder.attn_layers.0.conv1.weight".to_string(), zeros(&[1, 1, 1])),
    ]);
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("hostile.pth");
    fs::write(&path, torch_file(&hostile)).unwrap();
    let reference = Reference::of("itransformer").unwrap();
    let dict = StateDict::read(&path).unwrap();
    let params = reference.infer(&dict).unwrap().as_params();
    let shape = WindowShape { lookback: 1, horizon: 1, variates: 1, time_features: 0 };
    let refused = reference.import(&dict, &params, &BuildContext::new(shape), &Sources::default());
    let message = refused.err().unwrap().to_string();
    assert!(message.contains("far larger than the checkpoint"), "{message}");
}

/// Small, with a number that no float is, and two dimensions.
fn small() -> BTreeMap<String, Tensor> {
    let numbers = |count: usize, dims: &[usize]| {
        Tensor::from_vec((0..count).map(|number| number as f32).collect(), dims, &Device::Cpu).unwrap()
    };
    let counter = Tensor::from_vec(vec![3i64], (), &Device::Cpu).unwrap();
    BTreeMap::from([
        ("Linear.weight".to_string(), numbers(6, &[2, 3])),
        ("Linear.bias".to_string(), numbers(2, &[2])),
        ("counter".to_string(), counter),
    ])
}

fn values(dict: &StateDict) -> Vec<(String, Vec<usize>, Vec<f32>)> {
    let of = |tensor: &Tensor| tensor.flatten_all().unwrap().to_dtype(DType::F32).unwrap().to_vec1().unwrap();
    dict.tensors().iter().map(|(name, tensor)| (name.clone(), tensor.dims().to_vec(), of(tensor))).collect()
}

/// What is read from these bytes, if anything.
fn read(bytes: &[u8]) -> Option<StateDict> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    std::io::Write::write_all(&mut file, bytes).unwrap();
    StateDict::read(file.path()).ok()
}

#[test]
fn every_cut_is_refused_and_every_flipped_bit_is_refused_or_changes_nothing() {
    let whole = torch_file(&small());
    let expected = values(&read(&whole).unwrap());
    assert_eq!(expected.len(), 3);
    for length in 0..whole.len() {
        assert!(read(&whole[..length]).is_none(), "cut to {length} of {} bytes", whole.len());
    }
    for at in 0..8 * whole.len() {
        let mut bytes = whole.clone();
        bytes[at / 8] ^= 1 << (at % 8);
        if let Some(dict) = read(&bytes) {
            assert_eq!(values(&dict), expected, "bit {at}");
        }
    }
}

proptest! {
    // A pickle in a container of its own: no checksum stands before what is wrong with it.
    #[test]
    fn a_damaged_pickle_is_refused_or_read(
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..6),
        cut in proptest::option::of(any::<proptest::sample::Index>()),
    ) {
        let tensors = small();
        let mut pickle = state_dict(&tensors);
        for (at, byte) in changes {
            let at = at.index(pickle.len());
            pickle[at] = byte;
        }
        if let Some(cut) = cut {
            pickle.truncate(cut.index(pickle.len()));
        }
        let storages: Vec<_> = (0..3).map(|key| (format!("data/{key}"), vec![0; 24])).collect();
        if let Some(dict) = read(&zipped(&pickle, &storages)) {
            prop_assert!(dict.count() <= 4 * 3 * 24);
        }
    }

    #[test]
    fn a_damaged_file_is_refused_or_read(
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..20),
    ) {
        let mut bytes = torch_file(&small());
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Some(dict) = read(&bytes) {
            prop_assert!(dict.count() <= bytes.len());
        }
    }

    #[test]
    fn any_pickle_is_refused_or_read(pickle in proptest::collection::vec(
        proptest::sample::select(b"\x80\x02c)RqXK(JtQ\x85\x86\x87\x88\x89Nhrjsu}b.\x81]Gae\x8a\n\x00\x01".to_vec()), 0..200,
    )) {
        let _ = read(&zipped(&pickle, &[]));
    }
}
