//! The layering rule of ARCHITECTURE.md: a folder may use what stands above it in the list, never
//! what stands below.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// Each layer and the layers it may use besides itself. What is not listed here is a new layer and
/// needs a line.
const LAYERS: &[(&str, &[&str])] = &[
    ("error", &[]),
    ("data", &["error"]),
    ("windows", &["error", "data"]),
    ("forecaster", &["error", "data", "windows"]),
    ("models", &["error", "data", "windows", "forecaster"]),
    ("evaluator", &["error", "data", "windows", "forecaster"]),
    ("benchmark", &["error", "data", "windows", "forecaster", "evaluator"]),
    ("report", &["error", "benchmark"]),
    ("cli", &["error", "data", "windows", "forecaster", "models", "evaluator", "benchmark", "report"]),
];

/// The layer a file below `src` belongs to: its folder, or its own name.
fn layer(path: &Path) -> String {
    let first = path.components().next().expect("a file has a name").as_os_str().to_string_lossy();
    first.trim_end_matches(".rs").to_string()
}

/// The first names after each `crate::` in the code of a file, tests left out: they may use all.
fn uses(code: &str) -> BTreeSet<String> {
    let code = code.split("#[cfg(test)]").next().expect("a split has a first part");
    let code: String = code.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
    let mut names = BTreeSet::new();
    for after in code.split("crate::").skip(1) {
        match after.strip_prefix('{') {
            None => names.extend(first_word(after)),
            Some(list) => {
                // The names of one `use crate::{…}`, at its outermost level.
                let mut depth = 0;
                let mut item = String::new();
                for c in list.chars() {
                    match c {
                        '{' => depth += 1,
                        '}' if depth == 0 => break,
                        '}' => depth -= 1,
                        ',' if depth == 0 => names.extend(first_word(&std::mem::take(&mut item))),
                        _ if depth == 0 => item.push(c),
                        _ => {}
                    }
                }
                names.extend(first_word(&item));
            }
        }
    }
    names
}

fn first_word(text: &str) -> Option<String> {
    let word: String = text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    // `crate::Result` and `crate::Error` are names of the error layer.
    let module = word.starts_with(|c: char| c.is_ascii_lowercase());
    (module && !word.is_empty()).then_some(word)
}

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("src can be read") {
        let path = entry.expect("src can be read").path();
        match path.is_dir() {
            true => sources(&path, found),
            false => found.push(path),
        }
    }
}

fn violations(path: &Path, code: &str) -> Vec<String> {
    let layer = layer(path);
    if matches!(layer.as_str(), "lib" | "main") {
        return vec![];
    }
    let Some((_, allowed)) = LAYERS.iter().find(|(name, _)| *name == layer) else {
        return vec![format!("{}: '{layer}' is not a layer", path.display())];
    };
    let known = |name: &String| LAYERS.iter().any(|(layer, _)| layer == name);
    uses(code)
        .into_iter()
        .filter(|name| known(name) && *name != layer && !allowed.contains(&name.as_str()))
        .map(|name| format!("{}: {layer} may not use {name}", path.display()))
        .collect()
}

#[test]
fn no_layer_uses_one_below_it() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = vec![];
    sources(&src, &mut files);
    assert!(files.len() > 20, "the sources are there");
    let broken: Vec<String> = files
        .iter()
        .flat_map(|file| {
            let code = fs::read_to_string(file).expect("a source can be read");
            violations(file.strip_prefix(&src).expect("it is below src"), &code)
        })
        .collect();
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn only_the_loader_names_polars() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = vec![];
    sources(&src, &mut files);
    for file in files {
        let code = fs::read_to_string(&file).expect("a source can be read");
        if code.contains("polars::") {
            assert!(
                file.starts_with(src.join("data/loader")) || file.ends_with("data/loader.rs"),
                "{}",
                file.display()
            );
        }
    }
}

#[test]
fn a_forbidden_use_is_found() {
    let code = "use crate::{\n    Result, evaluator::{self, Scores},\n    windows::Windows,\n};\nfn f() { crate::cli::main() }";
    let broken = violations(Path::new("windows/mod.rs"), code);
    assert_eq!(broken, ["windows/mod.rs: windows may not use cli", "windows/mod.rs: windows may not use evaluator"]);
    assert_eq!(violations(Path::new("surprise/mod.rs"), ""), ["surprise/mod.rs: 'surprise' is not a layer"]);
}
