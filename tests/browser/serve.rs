//! The page of `longcast serve`: rows go in, a plot or an error comes out.

use std::{
    fmt::Write,
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
};

use longcast::{
    data::{Builtin, Synthetic},
    forecaster::{Pipeline, Plan},
    models,
    windows::SplitRule,
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::driver::{self, Browser};

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The page of a small model of `builtin`, and the last rows of its data as CSV.
fn on_the_page<F: Future<Output = ()>>(builtin: Builtin, test: impl FnOnce(Browser, String) -> F) {
    if !driver::is_here() {
        return;
    }
    let series = builtin.series().unwrap();
    let split = SplitRule::Ratio([0.7, 0.1, 0.2]).split(series.len()).unwrap();
    let dir = TempDir::new().unwrap();
    let pipeline = Pipeline::fit(&models::builtin(), &Plan::new("ridge", 24, 6), &series, &split, &mut ()).unwrap();
    pipeline.save(dir.path()).unwrap();
    let mut csv = format!("date,{}\n", series.variates().join(","));
    for row in series.len() - 30..series.len() {
        write!(csv, "{}", series.timestamps()[row]).unwrap();
        series.values().row(row).iter().for_each(|value| write!(csv, ",{value}").unwrap());
        csv.push('\n');
    }

    let mut command = Command::new(env!("CARGO_BIN_EXE_longcast"));
    command.arg("serve").arg(dir.path()).args(["--listen", "127.0.0.1:0", "--quiet"]).env_remove("LONGCAST_TOKEN");
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    let _server = Server(child);
    let listening = lines.find(|line| line.contains("listening on ")).expect("it listens");
    let url = listening.split("listening on ").nth(1).unwrap().split(' ').next().unwrap();

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let browser = Browser::start().await;
        browser.media("light", "screen").await;
        browser.resize(1280, 900).await;
        browser.client.goto(url).await.unwrap();
        until(&browser, "document.getElementById('variate').options.length > 0").await;
        test(browser, csv).await;
    });
}

/// Waits until `condition` holds in the page; the driver gives up after half a minute.
async fn until(browser: &Browser, condition: &str) {
    let wait = "const look = () => { if (CONDITION) done(true); else setTimeout(look, 20); }; look();";
    let script = format!("return new Promise(done => {{ {} }})", wait.replace("CONDITION", condition));
    assert_eq!(browser.run(&script).await, true);
}

/// Pastes `text` over what is there, and asks for the forecast.
async fn ask(browser: &Browser, text: &str) {
    browser.run(&format!("document.getElementById('csv').value = {}", json!(text))).await;
    browser.click("#forecast").await;
    until(browser, "!document.getElementById('forecast').disabled").await;
}

const PLOT: &str = "!document.getElementById('result').hidden && document.getElementById('plot').naturalWidth > 0";
const ERROR: &str =
    "return document.getElementById('error').hidden ? null : document.getElementById('error').textContent";

/// What is in the console beside the browser's own note that a request was refused.
async fn complaints(browser: &Browser) -> Vec<Value> {
    let console = browser.console().await;
    console.into_iter().filter(|line| line["source"] != "network").collect()
}

#[test]
fn pasted_rows_become_a_plot() {
    on_the_page(Builtin::AirPassengers, |browser, csv| async move {
        assert_eq!(browser.find("h1").await.text().await.unwrap(), "ridge");
        // As a person types it, once.
        browser.find("#csv").await.send_keys(&csv).await.unwrap();
        browser.click("#forecast").await;
        until(&browser, PLOT).await;
        assert_eq!(browser.run(ERROR).await, Value::Null);
        let rows = "return document.getElementById('download').getAttribute('href').startsWith('blob:')";
        assert_eq!(browser.run(rows).await, true);
        browser.picture("serve").await;
        browser.resize(360, 780).await;
        let width = "return document.documentElement.scrollWidth";
        assert!(browser.run(width).await.as_u64().unwrap() <= 360, "the page is wider than a phone");
        browser.picture("serve-phone").await;
        assert_eq!(complaints(&browser).await, Vec::<Value>::new());
    });
}

#[test]
fn wrong_rows_are_told_and_right_ones_clear_it() {
    on_the_page(Builtin::AirPassengers, |browser, csv| async move {
        let markup = "<img src=x onerror=window.ran=1>";
        ask(&browser, &csv.replace("passengers", markup)).await;
        let error = browser.run(ERROR).await.as_str().unwrap().to_string();
        assert!(error.contains("missing: 'passengers'") && error.contains(markup), "{error}");
        assert_eq!(
            browser.run("return [window.ran ?? null, document.getElementById('result').hidden]").await,
            json!([null, true])
        );
        browser.picture("serve-error").await;
        let few: Vec<&str> = csv.lines().take(11).collect();
        ask(&browser, &few.join("\n")).await;
        assert!(browser.run(ERROR).await.as_str().unwrap().contains("10 rows, but the lookback is 24"));
        ask(&browser, &csv).await;
        until(&browser, PLOT).await;
        assert_eq!(browser.run(ERROR).await, Value::Null);
        assert_eq!(complaints(&browser).await, Vec::<Value>::new());
    });
}

#[test]
fn another_variate_has_another_plot() {
    on_the_page(Builtin::Synthetic, |browser, csv| async move {
        ask(&browser, &csv).await;
        until(&browser, PLOT).await;
        let names = Synthetic::default().series().unwrap().variates().to_vec();
        let plotted = "return document.getElementById('plot').src + ' ' + document.getElementById('plot').alt";
        let first = browser.run(plotted).await;
        assert!(first.as_str().unwrap().contains(&names[0]), "{first}");
        browser.find("#variate").await.select_by_label(&names[1]).await.unwrap();
        until(&browser, "!document.getElementById('forecast').disabled").await;
        until(&browser, PLOT).await;
        let second = browser.run(plotted).await;
        assert!(second.as_str().unwrap().contains(&names[1]) && first != second, "{second}");
        assert_eq!(complaints(&browser).await, Vec::<Value>::new());
    });
}
