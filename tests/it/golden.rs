//! The networks against their reference implementations, number by number.

use std::path::{Path, PathBuf};

use longcast::models::neural::golden::{Differences, Verdict, check};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn checked(name: &str) -> Differences {
    match check(&golden(name)).unwrap() {
        Verdict::Checked(differences) => differences,
        Verdict::Skipped { model } => panic!("{name} was skipped: {model} is not known"),
    }
}

#[test]
fn networks_are_equal_to_their_references() {
    for name in [
        "dlinear.json",
        "dlinear_individual.json",
        "nlinear.json",
        "itransformer.json",
        "itransformer_nomark.json",
        "olinear.json",
        "autoformer.json",
        "autoformer_train.json",
        "informer.json",
        "informer_train.json",
        "gpht.json",
    ] {
        let differences = checked(name);
        assert!(differences.pass(), "{name}: {differences:?}");
    }
}

#[test]
fn a_wrong_number_in_a_golden_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let description = folder.path().join("nlinear.json");
    std::fs::copy(golden("nlinear.json"), &description).unwrap();
    let mut bytes = std::fs::read(golden("nlinear.safetensors")).unwrap();
    // The exponent of the last number of the last tensor.
    let last = bytes.len() - 2;
    bytes[last] ^= 0x10;
    std::fs::write(description.with_extension("safetensors"), bytes).unwrap();
    match check(&description) {
        Ok(Verdict::Checked(differences)) => assert!(!differences.pass(), "{differences:?}"),
        other => panic!("{other:?}"),
    }
}
