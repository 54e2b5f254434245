//! `longcast report --format latex`: what a paper takes over.

use std::{fs, process::Command};

use crate::cli::{Bench, longcast};

/// A suite of words that mean something to LaTeX, of more columns than a page holds, beside published numbers.
fn suite() -> String {
    let names: Vec<String> = (0..20).map(|index| format!("ridge_{index} & 50% of $x^2$ \\\\end")).collect();
    let variants: String = names
        .iter()
        .enumerate()
        .map(|(index, name)| format!("[variants.'{name}']\nmodel = \"ridge\"\nparams = {{ penalty = {index}.0 }}\n"))
        .collect();
    let models: Vec<String> = names.iter().map(|name| format!("'{name}'")).collect();
    format!(
        "about = \"What 1 % of {{all}} <things> cost, in \\\\TeX → 天; `code` and ~ \\\"quotes\\\".\"\n\
         [published]\ncolumns = [\"DLinear\"]\n{variants}\
         [[run]]\ndatasets = [\"Synthetic\"]\nmodels = [\"repeat\", {}]\nlookback = 24\nhorizons = [6, 12]\n",
        models.join(", ")
    )
}

fn latex(bench: &Bench) -> String {
    let folder = bench.dir.path().join("out/records/tiny");
    let report = longcast(&["report", folder.to_str().unwrap(), "--format", "latex"]).success();
    String::from_utf8(report.get_output().stdout.clone()).unwrap()
}

#[test]
fn the_best_is_bold_and_the_published_in_italics() {
    let bench = Bench::new(
        "[published]\ncolumns = [\"DLinear\"]\n\
         [[run]]\ndatasets = [\"Synthetic\"]\nmodels = [\"repeat\", \"mean\", \"ridge\"]\nlookback = 24\nhorizons = [6]\n",
    );
    let table = String::from_utf8(bench.run(&[]).success().get_output().stdout.clone()).unwrap();
    let text = latex(&bench);
    assert_eq!(text, latex(&bench));
    let row = |text: &str, start: &str| text.lines().find(|line| line.starts_with(start)).unwrap().to_string();
    let (markdown, latex) = (row(&table, "| Synthetic | 24       | 6"), row(&text, "Synthetic & 24 & 6"));
    let cells = |row: &str, marks: &[&str], between: &str| -> Vec<String> {
        let plain = marks.iter().fold(row.to_string(), |row, mark| row.replace(mark, ""));
        plain.split(between).map(|cell| cell.trim().replace('–', "--")).filter(|cell| !cell.is_empty()).collect()
    };
    assert_eq!(
        cells(&latex, &["\\textbf{", "\\underline{", "}", "\\\\"], " & "),
        cells(&markdown, &["**", "<u>", "</u>"], "|")
    );
    let count = |row: &str, mark: &str| row.matches(mark).count();
    assert_eq!(2 * count(&latex, "\\textbf{"), count(&markdown, "**"));
    assert_eq!(count(&latex, "\\underline{"), count(&markdown, "<u>"));
    assert!(count(&latex, "\\textbf{") > 0 && count(&latex, "\\underline{") > 0, "{latex}");
    assert!(text.contains("\\textit{DLinear (published)}"), "{text}");
}

#[test]
fn any_document_compiles_and_fits_its_pages() {
    let bench = Bench::new(&suite());
    bench.run(&[]).success();
    let text = latex(&bench);
    assert!(text.matches("\\begin{longtable}").count() > 1, "{text}");
    fs::write(bench.dir.path().join("tiny.tex"), text).unwrap();
    // longtable finds the widths of its columns in a second run.
    for _ in 0..2 {
        let compiled = Command::new("pdflatex")
            .args(["-interaction=nonstopmode", "-halt-on-error", "tiny.tex"])
            .current_dir(bench.dir.path())
            .output();
        let Ok(compiled) = compiled else {
            eprintln!("skipped: there is no pdflatex");
            return;
        };
        let log = String::from_utf8_lossy(&compiled.stdout);
        assert!(compiled.status.success() && !log.contains("Overfull"), "{log}");
    }
    assert!(bench.dir.path().join("tiny.pdf").is_file());
}
