//! Requests per second and how long they take: `cargo bench --bench serve -- --seconds 10`.
//!
//! Clients and server share the machine, so that the numbers are below what the server alone would do.

#![allow(clippy::print_stdout, clippy::unwrap_used)]

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use clap::Parser;
use longcast::{
    data::{Series, Synthetic},
    forecaster::{Pipeline, Plan},
    models,
    windows::SplitRule,
};
use serde_json::{Map, Value, json};
use tempfile::TempDir;

const LOOKBACK: usize = 96;
const HORIZON: usize = 96;
/// Enough for some windows in each part: what is learnt makes no difference to the time of a forecast.
const ROWS: usize = 800;

#[derive(Parser)]
struct Args {
    /// For each model and width, after a tenth of it to warm up
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Each sends its next request when it has its answer
    #[arg(long, default_value_t = 16)]
    clients: usize,
    #[arg(long, value_delimiter = ',', default_value = "ridge,itransformer")]
    models: Vec<String>,
    #[arg(long, value_delimiter = ',', default_value = "7,321")]
    variates: Vec<usize>,
    /// Cargo says so
    #[arg(long, hide = true)]
    bench: bool,
}

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn main() {
    longcast::cli::prepare();
    let args = Args::parse();
    println!("{:<14} {:>8} {:>12} {:>10} {:>10}", "model", "variates", "requests/s", "p50 ms", "p99 ms");
    for model in &args.models {
        for variates in &args.variates {
            let series = Synthetic { rows: ROWS, variates: *variates, ..Synthetic::default() }.series().unwrap();
            let dir = TempDir::new().unwrap();
            fit(model, &series, dir.path());
            let (_server, url) = start(dir.path());
            let body = body(&series);
            let run = |seconds: f64| ask(&url, &body, args.clients, Duration::from_secs_f64(seconds));
            run(args.seconds / 10.0);
            let start = Instant::now();
            let mut times = run(args.seconds);
            let rate = times.len() as f64 / start.elapsed().as_secs_f64();
            times.sort_unstable();
            let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
            println!("{model:<14} {variates:>8} {rate:>12.1} {:>10.2} {:>10.2}", at(0.5), at(0.99));
        }
    }
}

fn fit(model: &str, series: &Series, dir: &Path) {
    let models = models::builtin();
    let split = SplitRule::Ratio([0.5, 0.25, 0.25]).split(series.len()).unwrap();
    let mut plan = Plan::new(model, LOOKBACK, HORIZON);
    let mut once = plan.params.clone();
    once.set("training.epochs=1").unwrap();
    if models.resolve(model, &once).is_ok() {
        plan.params = once;
    }
    Pipeline::fit(&models, &plan, series, &split, &mut ()).unwrap().save(dir).unwrap();
}

fn start(dir: &Path) -> (Server, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_longcast"));
    command.arg("serve").arg(dir).args(["--listen", "127.0.0.1:0", "--quiet"]).env_remove("LONGCAST_TOKEN");
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    let line = lines.find(|line| line.contains("listening on ")).expect("it listens");
    let url = line.split("listening on ").nth(1).unwrap().split(' ').next().unwrap().to_string();
    (Server(child), format!("{url}/forecast"))
}

/// The last rows of `series`, as many as the lookback.
fn body(series: &Series) -> String {
    let first = series.len() - LOOKBACK;
    let times: Vec<String> = series.timestamps()[first..].iter().map(ToString::to_string).collect();
    let columns = series.variates().iter().enumerate();
    let values: Map<String, Value> =
        columns.map(|(index, name)| (name.clone(), json!(series.variate(index)[first..]))).collect();
    json!({"timestamps": times, "values": values}).to_string()
}

/// How long each request took that was sent within this time.
fn ask(url: &str, body: &str, clients: usize, time: Duration) -> Vec<Duration> {
    let start = Instant::now();
    let client = || {
        let agent: ureq::Agent = ureq::Agent::config_builder().proxy(None).build().into();
        let mut times = vec![];
        while start.elapsed() < time {
            let sent = Instant::now();
            let mut answer = agent.post(url).header("Content-Type", "application/json").send(body).unwrap();
            answer.body_mut().with_config().limit(1 << 30).read_to_vec().unwrap();
            times.push(sent.elapsed());
        }
        times
    };
    thread::scope(|scope| {
        let clients: Vec<_> = (0..clients).map(|_| scope.spawn(client)).collect();
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
    })
}
