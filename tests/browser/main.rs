//! The HTML report, and the page of `longcast serve`, in a real browser. Needs chromium and chromedriver; says that it
//! was skipped where they are missing, and fails there with `LONGCAST_BROWSER=required`.
//! `LONGCAST_SCREENSHOTS=folder` keeps pictures.

#![allow(clippy::print_stderr, clippy::unwrap_used)]

mod driver;
mod serve;

use std::{
    fs,
    future::Future,
    path::{Path, PathBuf},
};

use assert_cmd::Command;
use driver::Browser;
use fantoccini::key::Key;
use serde_json::{Value, json};
use tempfile::TempDir;

const ROWS: &str =
    "return [...document.querySelectorAll('.suite:not([hidden]) .board tbody tr')].filter(row => row.offsetParent)";

/// The folder of committed records.
fn committed() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("reports/records")
}

/// The report of all committed records, open in a browser at one of its suites.
fn on_the_page<F: Future<Output = ()>>(test: impl FnOnce(Browser) -> F) {
    on_the_page_of(&committed(), "networks-96", test);
}

fn on_the_page_of<F: Future<Output = ()>>(records: &Path, suite: &str, test: impl FnOnce(Browser) -> F) {
    if !driver::is_here() {
        return;
    }
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("report.html");
    let arguments = ["report", records.to_str().unwrap(), "--format", "html", "--output", file.to_str().unwrap()];
    // Warnings of records make no difference here.
    let _ = Command::cargo_bin("longcast").unwrap().args(arguments).ok();
    let weight = fs::metadata(&file).unwrap().len();
    assert!(weight < 3_000_000, "the page weighs {weight} bytes");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let browser = Browser::start().await;
        browser.media("light", "screen").await;
        browser.resize(1280, 900).await;
        browser.client.goto(&format!("file://{}#{suite}", file.display())).await.unwrap();
        test(browser).await;
    });
}

async fn texts(browser: &Browser, rest: &str) -> Vec<String> {
    let values = browser.run(&format!("{ROWS}{rest}")).await;
    values.as_array().unwrap().iter().map(|value| value.as_str().unwrap().to_string()).collect()
}

async fn quiet(browser: &Browser) {
    let console = browser.console().await;
    assert!(console.is_empty(), "the console is not empty: {console:?}");
}

#[test]
fn a_column_sorts_up_down_and_back() {
    on_the_page(|browser| async move {
        let column = ".map(row => row.cells[4].querySelector('.one')?.textContent ?? '–')";
        let original = texts(&browser, column).await;
        let button = ".suite:not([hidden]) .board th:nth-child(5) button";
        let sorted = |texts: &[String]| texts.iter().filter_map(|text| text.parse::<f64>().ok()).collect::<Vec<_>>();
        browser.click(button).await;
        let up = texts(&browser, column).await;
        assert!(sorted(&up).is_sorted() && up != original, "{up:?}");
        browser.click(button).await;
        let down = texts(&browser, column).await;
        assert!(sorted(&down).iter().rev().is_sorted(), "{down:?}");
        let sort = "return document.querySelector('.suite:not([hidden]) .board th:nth-child(5)').ariaSort";
        assert_eq!(browser.run(sort).await, "descending");
        browser.click(button).await;
        assert_eq!(texts(&browser, column).await, original);
        // What is missing stays last.
        let gaps = ".suite:not([hidden]) .board th:nth-child(10) button";
        browser.click(gaps).await;
        browser.click(gaps).await;
        let last = texts(&browser, ".map(row => row.cells[9].textContent)").await;
        assert_eq!(last.last().unwrap(), "–");
        assert_ne!(last.first().unwrap(), "–");
        quiet(&browser).await;
    });
}

#[test]
fn filters_narrow_rows_columns_and_charts() {
    on_the_page(|browser| async move {
        let tools = ".suite:not([hidden]) .tools";
        browser.find(&format!("{tools} [name=dataset]")).await.select_by_label("ILI").await.unwrap();
        let rows = texts(&browser, ".map(row => row.cells[0].textContent)").await;
        assert!(rows.len() == 5 && rows.iter().all(|name| name == "ILI"), "{rows:?}");
        let charts =
            "return [...document.querySelectorAll('figure')].filter(f => f.offsetParent).map(f => f.dataset.dataset)";
        let shown = browser.run(charts).await;
        // The diagram of ranks is of all data sets, and stays.
        let (of_all, of_one): (Vec<_>, Vec<_>) = shown.as_array().unwrap().iter().partition(|of| *of == "");
        assert!(of_all.len() == 1 && !of_one.is_empty() && of_one.iter().all(|of| *of == "ILI"), "{shown}");
        browser.find(&format!("{tools} [name=horizon]")).await.select_by_label("24").await.unwrap();
        assert_eq!(texts(&browser, ".map(row => row.cells[2].textContent)").await, ["24"]);

        let visible = "return [...document.querySelectorAll('.suite:not([hidden]) .board thead th, \
                       .suite:not([hidden]) .board tbody tr:not([hidden]) td, .suite:not([hidden]) figure:not([hidden]) .l1')]\
                       .filter(e => e.getClientRects().length).length";
        let before = browser.run(visible).await.as_u64().unwrap();
        browser.click(&format!("{tools} .models label:nth-of-type(2)")).await;
        let after = browser.run(visible).await.as_u64().unwrap();
        assert!(after + 3 <= before, "a head, a cell and lines are gone: {before}, {after}");
        browser.click(&format!("{tools} .models label:nth-of-type(2)")).await;
        assert_eq!(browser.run(visible).await.as_u64().unwrap(), before);
        quiet(&browser).await;
    });
}

#[test]
fn published_numbers_are_shown_on_demand() {
    on_the_page(|browser| async move {
        let shown = "return [...document.querySelectorAll('.suite:not([hidden]) .paper')].filter(e => e.getClientRects().length).length";
        assert_eq!(browser.run(shown).await, 0);
        browser.click(".suite:not([hidden]) .switch input").await;
        assert!(browser.run(shown).await.as_u64().unwrap() > 50);
        browser.picture("published").await;
        quiet(&browser).await;
    });
}

#[test]
fn a_receipt_opens_and_closes_by_keyboard_alone() {
    on_the_page(|browser| async move {
        // From the top: the first stop is the link that skips to the results.
        browser.press(Key::Tab).await;
        assert_eq!(browser.run("return document.activeElement.className").await, "skip");
        browser.press(Key::Enter).await;
        let on_a_cell = "return document.activeElement.matches('td a')";
        for stop in 0.. {
            assert!(stop < 60, "no cell is reached by Tab");
            browser.press(Key::Tab).await;
            if browser.run(on_a_cell).await == true {
                break;
            }
        }
        let outline = "return getComputedStyle(document.activeElement).outlineStyle";
        assert_eq!(browser.run(outline).await, "solid");
        let score = browser.run("return document.activeElement.querySelector('.one').textContent").await;
        let link = browser.run("return document.activeElement.getAttribute('href')").await;
        browser.press(Key::Enter).await;
        let open = "return document.querySelector('dialog').open";
        assert_eq!(browser.run(open).await, true);
        let text = browser.find("dialog").await.text().await.unwrap();
        let stem = link.as_str().unwrap().rsplit('/').next().unwrap();
        for part in ["longcast verify ", stem, "sha256", "revision", "seed", "means", score.as_str().unwrap()] {
            assert!(text.contains(part), "{part} is not in the receipt:\n{text}");
        }
        assert_eq!(browser.run("return location.hash").await, link);
        browser.picture("receipt").await;
        browser.press(Key::Escape).await;
        assert_eq!(browser.run(open).await, false);
        assert_eq!(browser.run("return document.activeElement.getAttribute('href')").await, link);
        assert_eq!(browser.run("return location.hash").await, "#networks-96");
        // A choice by keyboard.
        browser.run("document.querySelector('.suite:not([hidden]) [name=metric]').focus()").await;
        browser.press(Key::Right).await;
        assert_eq!(
            browser.run("return document.querySelector('.suite:not([hidden])').classList.contains('only-one')").await,
            true
        );
        quiet(&browser).await;
    });
}

#[test]
fn an_address_leads_to_a_suite_and_a_receipt() {
    on_the_page(|browser| async move {
        let link =
            browser.run("return document.querySelector('[data-suite=\"gpht-336\"] td a').getAttribute('href')").await;
        browser.run(&format!("location.hash = {link}")).await;
        let shown = "return [...document.querySelectorAll('.suite')].filter(s => !s.hidden).map(s => s.dataset.suite)";
        assert_eq!(browser.run(shown).await, json!(["gpht-336"]));
        assert_eq!(browser.run("return document.querySelector('dialog').open").await, true);
        let variates = "return [...document.querySelectorAll('dialog details dt')].map(name => name.textContent)";
        assert_eq!(browser.run(variates).await, json!(["HUFL", "HULL", "MUFL", "MULL", "LUFL", "LULL", "OT"]));
        browser.run("history.back()").await;
        let closed = "return new Promise(done => setTimeout(() => done(document.querySelector('dialog').open), 300))";
        assert_eq!(browser.run(closed).await, false);
        quiet(&browser).await;
    });
}

#[test]
fn a_phone_has_no_horizontal_scroll() {
    on_the_page(|browser| async move {
        browser.resize(360, 780).await;
        browser.click(".suite:not([hidden]) .switch input").await;
        browser.run("scrollTo(0, 0)").await;
        let names = browser.run("return [...document.querySelectorAll('.suite')].map(s => s.dataset.suite)").await;
        for name in names.as_array().unwrap() {
            browser.run(&format!("location.hash = {name}")).await;
            let widths = browser
                .run("return new Promise(done => setTimeout(() => done([document.documentElement.scrollWidth, innerWidth]), 50))")
                .await;
            let [page, window] = [&widths[0], &widths[1]].map(|width| width.as_u64().unwrap());
            assert!(page <= window && window == 360, "{name}: the page is {page} wide, the window {window}");
        }
        // A wide table scrolls in a box of its own.
        let boxes = "return [...document.querySelectorAll('.suite:not([hidden]) .scroll')].some(box => box.scrollWidth > box.clientWidth)";
        browser.run("location.hash = 'networks-96'").await;
        assert_eq!(browser.run(boxes).await, true);
        browser.picture("phone").await;
        browser.run("document.querySelector('.suite:not([hidden]) .board').scrollIntoView()").await;
        browser.picture("phone-table").await;
        browser.run("document.querySelector('.suite:not([hidden]) .charts').scrollIntoView()").await;
        browser.picture("phone-charts").await;
        browser.click(".suite:not([hidden]) td a").await;
        let inside = "const box = document.querySelector('dialog').getBoundingClientRect(); return box.left >= 0 && box.right <= innerWidth";
        assert_eq!(browser.run(inside).await, true);
        browser.picture("phone-receipt").await;
        quiet(&browser).await;
    });
}

#[test]
fn the_page_is_dark_where_the_system_or_a_person_asks_for_it() {
    on_the_page(|browser| async move {
        let background =
            "return getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number).reduce((a, b) => a + b)";
        let light = browser.run(background).await.as_u64().unwrap();
        browser.media("dark", "screen").await;
        let dark = browser.run(background).await.as_u64().unwrap();
        assert!(light > 600 && dark < 150, "{light}, {dark}");
        browser.picture("dark").await;
        let line = "return getComputedStyle(document.querySelector('.suite:not([hidden]) .chart .l0')).stroke";
        let dark_line = browser.run(line).await;
        browser.click("#theme").await;
        assert_eq!(browser.run(background).await.as_u64().unwrap(), light);
        assert_ne!(browser.run(line).await, dark_line);
        browser.client.refresh().await.unwrap();
        assert_eq!(browser.run(background).await.as_u64().unwrap(), light, "the choice is kept");
        browser.click("#theme").await;
        browser.media("light", "print").await;
        assert!(browser.run(background).await.as_u64().unwrap() > 700, "paper is white");
        quiet(&browser).await;
    });
}

#[test]
fn the_page_is_named_for_those_who_do_not_see_it() {
    on_the_page(|browser| async move {
        let unnamed = r#"
            const shown = element => element.getClientRects().length;
            const named = element => (element.textContent + (element.ariaLabel ?? '') + [...(element.labels ?? [])].map(l => l.textContent)).trim();
            return [
                ...[...document.querySelectorAll('button, a, select, input')].filter(shown).filter(e => !named(e)),
                ...[...document.querySelectorAll('svg.chart')].filter(e => !e.querySelector('title') || !e.querySelector('desc') || e.getAttribute('role') !== 'img'),
                ...[...document.querySelectorAll('[aria-labelledby]')].filter(e => e.tagName !== 'DIALOG' && !document.getElementById(e.getAttribute('aria-labelledby'))),
            ].map(element => element.outerHTML.slice(0, 200));
        "#;
        assert_eq!(browser.run(unnamed).await, json!([]));
        // WCAG 2.2, 1.4.3: 4.5 for text.
        let faint = r#"
            const parse = color => color.match(/[\d.]+/g).map(Number);
            const light = ([r, g, b]) => [r, g, b].map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
                .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
            const behind = element => {
                for (let at = element; at; at = at.parentElement) {
                    const color = parse(getComputedStyle(at).backgroundColor);
                    if (color.length < 4 || color[3] > 0) return color;
                }
                return [255, 255, 255];
            };
            return [...document.querySelectorAll('.suite:not([hidden]) *, .top *')]
                .filter(e => [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim()) && e.getClientRects().length)
                .map(e => {
                    const style = getComputedStyle(e);
                    const [one, two] = [light(parse(e.closest('svg') ? style.fill : style.color)), light(behind(e))];
                    return [(Math.max(one, two) + 0.05) / (Math.min(one, two) + 0.05), e.outerHTML.slice(0, 120)];
                })
                .filter(([contrast]) => contrast < 4.5);
        "#;
        for scheme in ["light", "dark"] {
            browser.media(scheme, "screen").await;
            assert_eq!(browser.run(faint).await, Value::Array(vec![]), "{scheme}");
        }
        quiet(&browser).await;
    });
}

#[test]
fn names_that_are_markup_are_read_as_names() {
    let name = "</script><img src=x onerror=\"window.ran=1\">'&";
    let dir = TempDir::new().unwrap();
    for entry in fs::read_dir(committed().join("networks-96")).unwrap() {
        let path = entry.unwrap().path();
        let file = path.file_name().unwrap().to_str().unwrap();
        if file.starts_with("ILI-olinear-36-") {
            let mut record: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
            record["task"]["name"] = json!(name);
            record["task"]["dataset"] = json!("<b>ILI</b>");
            fs::write(dir.path().join(file), record.to_string()).unwrap();
        }
    }
    on_the_page_of(dir.path(), "", |browser| async move {
        let head = "return document.querySelector('.board th:nth-child(4)').textContent";
        assert_eq!(browser.run(head).await, name);
        browser.click("td a").await;
        let title = browser.find("#receipt-title").await.text().await.unwrap();
        assert!(title.starts_with(&format!("{name} on <b>ILI</b>, 36 →")), "{title}");
        browser.click("dialog header button").await;
        browser.find(".tools [name=dataset]").await.select_by_label("<b>ILI</b>").await.unwrap();
        assert!(!texts(&browser, ".map(row => row.cells[0].textContent)").await.is_empty());
        assert_eq!(browser.run("return [window.ran ?? null, document.images.length]").await, json!([null, 0]));
        quiet(&browser).await;
    });
}

#[test]
fn every_suite_is_shown_without_complaint() {
    on_the_page(|browser| async move {
        let links = browser.client.find_all(fantoccini::Locator::Css("nav a")).await.unwrap();
        assert!(links.len() > 5);
        for link in links {
            let name = link.text().await.unwrap();
            link.click().await.unwrap();
            assert_eq!(browser.run("return document.querySelector('.suite:not([hidden]) h1').textContent").await, name);
            assert!(!texts(&browser, ".map(row => row.cells[0].textContent)").await.is_empty(), "{name}");
        }
        browser.picture("last-suite").await;
        quiet(&browser).await;
    });
}
