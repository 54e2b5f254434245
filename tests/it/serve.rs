//! The server, from outside: answers, refusals, limits, and the end.

use std::{
    fmt::Write as _,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc, Barrier, LazyLock, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use longcast::{
    data::{Builtin, Series, Synthetic},
    forecaster::{Forecast, Pipeline, Plan},
    models,
    windows::SplitRule,
};
use ndarray::s;
use serde_json::{Value, json};
use tempfile::TempDir;
use ureq::{
    Agent,
    http::{Request, Response},
};

/// A fitted pipeline, its folder, and the series it was fitted on.
struct Fitted {
    dir: TempDir,
    pipeline: Pipeline,
    series: Series,
}

fn fitted(model: &str, series: Series, lookback: usize, horizon: usize) -> Fitted {
    let split = SplitRule::Ratio([0.7, 0.1, 0.2]).split(series.len()).unwrap();
    let mut plan = Plan::new(model, lookback, horizon);
    plan.params = crate::small(model);
    let pipeline = Pipeline::fit(&models::builtin(), &plan, &series, &split, &mut ()).unwrap();
    let dir = TempDir::new().unwrap();
    pipeline.save(dir.path()).unwrap();
    Fitted { dir, pipeline, series }
}

fn synthetic() -> Series {
    Synthetic::default().series().unwrap()
}

/// One variate, months, and a model that costs nothing.
static PASSENGERS: LazyLock<Fitted> =
    LazyLock::new(|| fitted("ridge", Builtin::AirPassengers.series().unwrap(), 24, 6));

/// Several variates, hours.
static HOURS: LazyLock<Fitted> = LazyLock::new(|| fitted("ridge", synthetic(), 48, 12));

/// The program in another process, ended with the test.
struct Server {
    child: Child,
    address: SocketAddr,
    log: Arc<Mutex<Vec<String>>>,
    reader: Option<JoinHandle<()>>,
}

impl Server {
    fn start(dir: &Path, options: &[&str]) -> Self {
        Self::start_with(dir, options, None)
    }

    fn start_with(dir: &Path, options: &[&str], token: Option<&str>) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_longcast"));
        command.arg("serve").arg(dir).args(["--listen", "127.0.0.1:0"]).args(options);
        command.env_remove("LONGCAST_TOKEN").envs(token.map(|token| ("LONGCAST_TOKEN", token)));
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
        let listening = lines.find(|line| line.contains("listening on http://")).expect("it listens");
        let address = listening.split("http://").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
        let log = Arc::new(Mutex::new(vec![]));
        let kept = Arc::clone(&log);
        let reader = thread::spawn(move || lines.for_each(|line| kept.lock().unwrap().push(line)));
        Self { child, address, log, reader: Some(reader) }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).unwrap()
    }

    fn get(&self, path: &str) -> Answer {
        Answer::of(agent().get(self.url(path)).call())
    }

    fn forecast(&self, content_type: &str, accept: &str, body: &str) -> Answer {
        self.post("/forecast", content_type, accept, body)
    }

    fn post(&self, path: &str, content_type: &str, accept: &str, body: &str) -> Answer {
        let request = agent().post(self.url(path)).header("Content-Type", content_type).header("Accept", accept);
        Answer::of(request.send(body))
    }

    fn signal(&self, name: &str) {
        let kill = Command::new("kill").args([format!("-{name}"), self.child.id().to_string()]).status();
        assert!(kill.unwrap().success());
    }

    /// Waits for the end: the exit code and all that was logged.
    fn ended(mut self) -> (Option<i32>, Vec<String>) {
        let code = self.child.wait().unwrap().code();
        self.reader.take().unwrap().join().unwrap();
        (code, std::mem::take(&mut *self.log.lock().unwrap()))
    }

    /// The most memory it has had, in bytes.
    #[cfg(target_os = "linux")]
    fn peak(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn agent() -> Agent {
    Agent::config_builder().http_status_as_error(false).proxy(None).build().into()
}

struct Answer {
    status: u16,
    headers: ureq::http::HeaderMap,
    text: String,
}

impl Answer {
    fn of(answer: Result<Response<ureq::Body>, ureq::Error>) -> Self {
        let mut answer = answer.unwrap();
        let text = answer.body_mut().read_to_string().unwrap();
        Self { status: answer.status().as_u16(), headers: answer.headers().clone(), text }
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    /// What is wrong, from a body that says that and nothing else.
    fn error(&self) -> String {
        assert_eq!(self.header("content-type"), "application/json", "{}", self.text);
        let body = self.json();
        assert_eq!(body.as_object().unwrap().len(), 1, "{body}");
        body["error"].as_str().unwrap().to_string()
    }
}

/// The last `rows` of a series.
fn recent(series: &Series, rows: usize) -> Series {
    let first = series.len() - rows;
    let (times, values) = (series.timestamps()[first..].to_vec(), series.values().slice(s![first.., ..]).to_owned());
    Series::new("recent", times, series.variates().to_vec(), values).unwrap()
}

fn as_json(series: &Series) -> Value {
    let times: Vec<String> = series.timestamps().iter().map(ToString::to_string).collect();
    let columns = series.variates().iter().enumerate();
    let values: serde_json::Map<String, Value> =
        columns.map(|(index, name)| (name.clone(), json!(series.variate(index)))).collect();
    json!({"timestamps": times, "values": values})
}

/// With the columns from the last to the first.
fn as_csv(series: &Series) -> String {
    let order: Vec<usize> = (0..series.variates().len()).rev().collect();
    let mut text = String::from("date");
    order.iter().for_each(|index| write!(text, ",{}", series.variates()[*index]).unwrap());
    text.push('\n');
    for (row, time) in series.timestamps().iter().enumerate() {
        write!(text, "{time}").unwrap();
        order.iter().for_each(|index| write!(text, ",{}", series.variate(*index)[row]).unwrap());
        text.push('\n');
    }
    text
}

fn passengers_json() -> String {
    as_json(&recent(&PASSENGERS.series, 30)).to_string()
}

#[test]
fn json_and_csv_give_the_forecast_of_the_pipeline_to_the_last_bit() {
    for model in ["ridge", "seasonal-naive", "itransformer"] {
        let Fitted { dir, pipeline, series } = &fitted(model, synthetic(), 48, 12);
        let server = Server::start(dir.path(), &[]);
        let recent = recent(series, 60);
        let Forecast { timestamps, values: expected, .. } = pipeline.forecast(&recent).unwrap();
        let times: Vec<String> = timestamps.iter().map(ToString::to_string).collect();
        assert!(series.variates().len() > 1 && times.len() == 12);

        let json = as_json(&recent).to_string();
        for (content_type, body) in [("application/json", &json), ("text/csv; charset=utf-8", &as_csv(&recent))] {
            let answer = server.forecast(content_type, "*/*", body);
            assert_eq!((answer.status, answer.header("content-type")), (200, "application/json"), "{}", answer.text);
            let told = answer.json();
            assert_eq!(told["timestamps"], json!(times));
            assert_eq!(told["values"].as_object().unwrap().len(), series.variates().len());
            for (name, column) in series.variates().iter().zip(expected.columns()) {
                let values: Vec<f64> = serde_json::from_value(told["values"][name].clone()).unwrap();
                assert_eq!(values, column.to_vec(), "{model} {name}");
            }

            let answer = server.forecast(content_type, "text/csv", body);
            assert_eq!((answer.status, answer.header("content-type")), (200, "text/csv; charset=utf-8"));
            let mut lines = answer.text.lines().map(|line| line.split(',').collect::<Vec<_>>());
            let names = series.variates().iter().map(String::as_str);
            assert_eq!(lines.next().unwrap(), ["date"].into_iter().chain(names).collect::<Vec<_>>());
            for ((line, time), row) in lines.zip(&times).zip(expected.rows()) {
                assert_eq!(line[0], time);
                let values: Vec<f64> = line[1..].iter().map(|cell| cell.parse().unwrap()).collect();
                assert_eq!(values, row.to_vec(), "{model}");
            }
            assert_eq!(answer.text.lines().count(), 13);
        }
    }
}

#[test]
fn intervals_are_answered_where_they_were_calibrated() {
    let Fitted { dir, mut pipeline, series } = fitted("ridge", synthetic(), 48, 12);
    pipeline.calibrate(&series, series.len() - 300..series.len(), &[80.0, 95.0]).unwrap();
    pipeline.save(dir.path()).unwrap();
    let server = Server::start(dir.path(), &[]);
    let (recent, name) = (recent(&series, 60), &series.variates()[0]);
    let expected = pipeline.forecast(&recent).unwrap().intervals;
    let told = server.forecast("application/json", "*/*", &as_json(&recent).to_string()).json();
    assert_eq!(told["intervals"].as_array().unwrap().len(), 2);
    for (told, expected) in told["intervals"].as_array().unwrap().iter().zip(&expected) {
        assert_eq!(told["level"], expected.level);
        assert_eq!(told["lower"][name], json!(expected.lower.column(0).to_vec()));
        assert_eq!(told["upper"][name], json!(expected.upper.column(0).to_vec()));
    }
    let csv = server.forecast("application/json", "text/csv", &as_json(&recent).to_string()).text;
    assert!(csv.lines().next().unwrap().starts_with(&format!("date,{name},{name}_lower_80,{name}_upper_80,")), "{csv}");
    let plot = server.forecast("application/json", "image/svg+xml", &as_json(&recent).to_string()).text;
    assert_eq!(plot.matches("<polygon").count(), 2);
}

#[test]
fn what_is_answered_can_be_sent_again() {
    let server = Server::start(PASSENGERS.dir.path(), &[]);
    let mut rows = as_json(&recent(&PASSENGERS.series, 24));
    let next = server.forecast("application/json", "application/json", &rows.to_string()).json();
    for (name, part) in [("timestamps", "/timestamps"), ("values", "/values/passengers")] {
        let more = next.pointer(part).unwrap().as_array().unwrap().clone();
        assert_eq!(more.len(), 6, "{name}");
        rows.pointer_mut(part).unwrap().as_array_mut().unwrap().extend(more);
    }
    assert_eq!(next["timestamps"][0], "1961-01-01 00:00:00");
    let answer = server.forecast("application/json", "*/*", &rows.to_string());
    assert_eq!((answer.status, &answer.json()["timestamps"][0]), (200, &json!("1961-07-01 00:00:00")));
}

#[test]
fn rows_without_timestamps_do_where_the_model_needs_none() {
    let Fitted { dir, pipeline, series } = &*PASSENGERS;
    let bare = Series::new("bare", vec![], series.variates().to_vec(), series.values().to_owned()).unwrap();
    // Ridge does not look at the calendar, but the pipeline was fitted with it.
    let needs = pipeline.forecast(&bare).is_err();
    let server = Server::start(dir.path(), &[]);
    assert_eq!(server.get("/model").json()["needs_timestamps"], needs);
    let answer =
        server.forecast("application/json", "*/*", &json!({"values": {"passengers": bare.variate(0)}}).to_string());
    assert_eq!(answer.status, if needs { 422 } else { 200 }, "{}", answer.text);

    let Fitted { dir, pipeline, .. } = &fitted("ridge", bare.clone(), 24, 6);
    let server = Server::start(dir.path(), &[]);
    let model = server.get("/model").json();
    assert_eq!((&model["needs_timestamps"], &model["step"]), (&json!(false), &Value::Null));
    let answer =
        server.forecast("application/json", "*/*", &json!({"values": {"passengers": bare.variate(0)}}).to_string());
    let expected = pipeline.forecast(&bare).unwrap().values.column(0).to_vec();
    assert_eq!(answer.json(), json!({"values": {"passengers": expected}}));
}

#[test]
fn wrong_rows_are_refused_with_the_reason() {
    let server = Server::start(HOURS.dir.path(), &["--max-body", "100kB"]);
    let rows = recent(&HOURS.series, 50);
    let good = as_json(&rows);
    let csv = as_csv(&rows);
    let name = rows.variates()[0].as_str();
    let changed = |change: &dyn Fn(&mut Value)| {
        let mut rows = good.clone();
        change(&mut rows);
        rows.to_string()
    };
    let column =
        |rows: &mut Value, change: &dyn Fn(&mut Vec<Value>)| change(rows["values"][name].as_array_mut().unwrap());
    let line = |number: usize, change: &dyn Fn(&str) -> String| {
        let lines = csv.lines().enumerate().map(|(at, line)| if at + 1 == number { change(line) } else { line.into() });
        lines.collect::<Vec<String>>().join("\n")
    };
    let last_cell = |cell: &str| line(7, &|line| format!("{},{cell}", line.rsplit_once(',').unwrap().0));
    let (json, csv_type) = ("application/json", "text/csv");
    let (absent, missing_row) = (format!("missing: '{name}'"), format!("row 5: '{name}' is missing"));
    let on_line_7 = |what: &str| format!("line 7: '{name}' is {what}");
    let (not_a_number, missing, infinite) = (on_line_7("not a number"), on_line_7("missing"), on_line_7("infinite"));
    let few = as_json(&recent(&HOURS.series, 47)).to_string();
    let twice = format!("{{\"values\": {{\"{name}\": [1], \"{name}\": [2]}}}}");
    let cases: Vec<(&str, String, u16, &str)> = vec![
        (json, good.to_string(), 200, ""),
        (json, String::new(), 400, "EOF"),
        (json, good.to_string()[..200].to_string(), 400, "EOF"),
        (json, "{\"values\": {\"a\": [NaN]}}".into(), 400, "line 1 column 19"),
        (json, "[".repeat(100_000), 422, "it is a list"),
        (json, format!("{{\"values\": {}", "{\"a\":".repeat(10_000)), 422, "invalid type"),
        (json, "[[], {}]".into(), 422, "'values'"),
        (json, "{\"rows\": []}".into(), 422, "unknown key 'rows'"),
        (json, twice, 422, "is there twice"),
        (json, format!("{{\"values\": {{\"{}\": []}}}}", "a".repeat(90_000)), 422, "aaa…"),
        (json, changed(&|rows| rows["values"] = json!({})), 422, "missing: "),
        (json, changed(&|rows| drop(rows["values"].as_object_mut().unwrap().remove(name))), 422, &absent),
        (json, changed(&|rows| rows["values"]["boats"] = json!([1.0])), 422, "not of the model: 'boats'"),
        (json, changed(&|rows| column(rows, &|values| values[4] = Value::Null)), 422, &missing_row),
        (json, changed(&|rows| column(rows, &|values| values[4] = json!("x"))), 422, "invalid type: string"),
        (json, changed(&|rows| column(rows, &|values| values[4] = json!(1e300))), 422, "beyond 1e150"),
        (json, changed(&|rows| column(rows, &|values| drop(values.pop()))), 422, "has 49"),
        (json, changed(&|rows| rows["timestamps"] = json!(["2020-01-01"])), 422, "1 timestamps, but 50 rows"),
        (json, changed(&|rows| rows["timestamps"][3] = json!("yesterday")), 422, "timestamps: row 4 is not a date"),
        (json, changed(&|rows| rows["timestamps"][3] = rows["timestamps"][2].clone()), 422, "row 4: "),
        (json, changed(&|rows| drop(rows.as_object_mut().unwrap().remove("timestamps"))), 422, "needs timestamps"),
        (json, few, 422, "47 rows, but the lookback is 48"),
        (csv_type, csv.clone(), 200, ""),
        (csv_type, String::new(), 400, "there is nothing in it"),
        (csv_type, csv.lines().next().unwrap().to_string(), 400, "no row below it"),
        (csv_type, line(7, &|line| format!("{line},5")), 400, "line 7: "),
        (csv_type, last_cell("x"), 400, &not_a_number),
        (csv_type, last_cell(""), 422, &missing),
        (csv_type, last_cell("NaN"), 422, &missing),
        (csv_type, last_cell("inf"), 422, &infinite),
        (csv_type, line(1, &|line| line.replace(name, "boats")), 422, "not of the model: 'boats'"),
        (
            csv_type,
            line(1, &|line| line.rsplit_once(',').unwrap().0.to_string() + ",date"),
            400,
            "two columns are called 'date'",
        ),
        (csv_type, "\u{0}".into(), 400, "NUL"),
        (csv_type, "a".repeat(100_001), 413, "100.0 kB"),
        ("text/plain", csv.clone(), 415, "'text/plain'"),
        ("text/csv; charset=latin1", csv.clone(), 415, "UTF-8"),
        ("nonsense", csv.clone(), 415, "'nonsense'"),
    ];
    let mut wrong = vec![];
    for (content_type, body, status, says) in &cases {
        let answer = server.forecast(content_type, "*/*", body);
        let error = if answer.status == 200 { String::new() } else { answer.error() };
        if answer.status != *status || !error.contains(says) || error.contains("--") {
            let start: String = body.chars().take(80).collect();
            wrong.push(format!("{status} {says}, but {} {error}: {start}", answer.status));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // Rows of a whole day are none of a model of hours.
    let days: Vec<String> = (0..50).map(|day| format!("20{:02}-01-01", day + 10)).collect();
    let answer = server.forecast(json, "*/*", &changed(&|rows| rows["timestamps"] = json!(days)));
    assert_eq!((answer.status, answer.error().contains("1h apart")), (422, true), "{}", answer.text);
    let answer = server.post("/forecast?variate=boats", json, "image/svg+xml", &good.to_string());
    assert_eq!((answer.status, answer.error().contains("no variate named 'boats'")), (422, true), "{}", answer.text);
    let answer = server.post("/forecast?horizon=5", json, "*/*", &good.to_string());
    assert_eq!((answer.status, answer.error().contains("horizon")), (400, true), "{}", answer.text);
}

#[test]
fn a_body_without_a_type_or_packed_is_refused() {
    let server = Server::start(PASSENGERS.dir.path(), &[]);
    let say = |head: &str| {
        let mut stream = server.connect();
        write!(
            stream,
            "POST /forecast HTTP/1.1\r\nHost: x\r\n{head}Connection: close\r\nContent-Length: 2\r\n\r\n{{}}"
        )
        .unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    };
    let text = say("");
    assert!(text.starts_with("HTTP/1.1 415 ") && text.contains("no content type"), "{text}");
    let text = say("Content-Type: text/csv\r\nContent-Encoding: gzip\r\n");
    assert!(text.starts_with("HTTP/1.1 415 ") && text.contains("'gzip'"), "{text}");
}

#[test]
fn the_routes_are_those_that_are_described() {
    let server = Server::start(PASSENGERS.dir.path(), &[]);
    let answer = server.get("/openapi.json");
    assert_eq!((answer.status, answer.header("content-type")), (200, "application/json"));
    let described = answer.json();
    assert_eq!(described["info"]["version"], env!("CARGO_PKG_VERSION"));
    let methods = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"];
    let call = |method: &str, path: &str| {
        let request = Request::builder().method(method).uri(server.url(path));
        let config = agent().configure_request(request.body(()).unwrap()).allow_non_standard_methods(true).build();
        Answer::of(agent().run(config))
    };
    let paths = described["paths"].as_object().unwrap();
    assert_eq!(paths.len(), 5);
    for (path, item) in paths {
        let mut known: Vec<String> = item.as_object().unwrap().keys().map(|method| method.to_uppercase()).collect();
        if known == ["GET"] {
            known.push("HEAD".into());
            let answer = server.get(path);
            let content = &item["get"]["responses"]["200"]["content"];
            let (content_type, media) = content.as_object().unwrap().iter().next().unwrap();
            assert!(answer.header("content-type").starts_with(content_type), "{path}");
            if let Some(schema) = media.get("schema") {
                let name = schema["$ref"].as_str().map(|name| name.trim_start_matches('#').to_string());
                let schema =
                    name.map_or(schema, |name| described.pointer(&name).expect("what is referred to is there"));
                let required: Vec<&str> =
                    schema["required"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
                let told = answer.json();
                assert_eq!(told.as_object().unwrap().keys().collect::<Vec<_>>(), required, "{path}");
            }
        }
        for method in methods {
            let answer = call(method, path);
            if known.iter().any(|known| known == method) {
                assert!(![404, 405].contains(&answer.status), "{method} {path}: {}", answer.status);
            } else {
                assert_eq!(answer.status, 405, "{method} {path}");
                assert_eq!(answer.header("allow").split(',').collect::<Vec<_>>(), known, "{method} {path}");
                assert!(method == "HEAD" || answer.error().contains(method), "{}", answer.text);
            }
        }
    }
    for path in ["/forecast/", "/Health", "/model.toml", "/../model.toml", "/%2e%2e/model.toml", "/favicon.ico"] {
        let answer = server.get(path);
        assert_eq!((answer.status, answer.error().contains("openapi.json")), (404, true), "{path}");
    }
}

#[test]
fn the_model_is_told() {
    let server = Server::start(HOURS.dir.path(), &[]);
    let model = server.get("/model").json();
    assert_eq!(model["model"], "ridge");
    assert_eq!((&model["lookback"], &model["horizon"], &model["step"]), (&json!(48), &json!(12), &json!("1h")));
    assert_eq!(model["variates"], json!(HOURS.series.variates()));
    assert_eq!(model["params"], serde_json::to_value(HOURS.pipeline.params()).unwrap());
    assert_eq!(server.get("/health").json(), json!({"status": "ok"}));
}

#[test]
fn a_plot_is_of_the_variate_that_is_asked_for() {
    let server = Server::start(HOURS.dir.path(), &[]);
    let body = as_csv(&recent(&HOURS.series, 60));
    let plot = |query: &str| {
        let answer = server.post(&format!("/forecast{query}"), "text/csv", "image/svg+xml", &body);
        assert_eq!((answer.status, answer.header("content-type")), (200, "image/svg+xml"), "{}", answer.text);
        assert!(answer.header("content-security-policy").starts_with("default-src 'none'"));
        answer.text
    };
    let names = HOURS.series.variates();
    assert!(plot("").contains(&format!("<title>{}</title>", names[0])));
    let second =
        plot(&format!("?variate={}", url::form_urlencoded::byte_serialize(names[1].as_bytes()).collect::<String>()));
    assert!(second.contains(&format!("<title>{}</title>", names[1])) && second.contains("after 12 rows"), "{second}");
}

#[test]
fn the_page_runs_its_own_script_and_no_other() {
    let server = Server::start(PASSENGERS.dir.path(), &[]);
    let page = server.get("/");
    let policy = page.header("content-security-policy");
    assert!(policy.contains("default-src 'none'") && policy.contains("script-src 'sha256-"), "{policy}");
    assert!(!policy.contains("unsafe") && !page.text.contains("http"), "{policy}");
    for header in ["x-content-type-options", "referrer-policy", "cache-control"] {
        assert!(!page.header(header).is_empty(), "{header}");
    }
    assert!(!page.text.contains(" style=") && !page.text.contains(" onclick="));
}

#[test]
fn with_a_token_all_but_the_health_needs_it() {
    let token = "a-long-token";
    let server = Server::start_with(PASSENGERS.dir.path(), &[], Some(token));
    assert_eq!(server.get("/health").status, 200);
    let status = |path: &str, header: Option<&str>| {
        let mut request = agent().get(server.url(path));
        if let Some(header) = header {
            request = request.header("Authorization", header);
        }
        let answer = Answer::of(request.call());
        if answer.status == 401 {
            assert_eq!(answer.header("www-authenticate"), "Bearer");
            assert!(answer.error().contains("token"));
        }
        answer.status
    };
    let wrong = [
        None,
        Some("Bearer"),
        Some("Bearer "),
        Some("Bearer a-long-toke"),
        Some("Bearer a-long-token2"),
        Some("Basic a-long-token"),
        Some("a-long-token"),
    ];
    for path in ["/", "/model", "/openapi.json", "/nowhere", "/forecast"] {
        for header in wrong {
            assert_eq!(status(path, header), 401, "{path} {header:?}");
        }
    }
    for header in ["Bearer a-long-token", "bearer a-long-token"] {
        assert_eq!(status("/model", Some(header)), 200);
        assert_eq!(status("/nowhere", Some(header)), 404);
    }
    let request = agent().post(server.url("/forecast")).header("Content-Type", "application/json");
    let body = passengers_json();
    assert_eq!(Answer::of(request.header("Authorization", "Bearer a-long-token").send(&body)).status, 200);
    assert_eq!(server.forecast("application/json", "*/*", &body).status, 401);
    assert!(!server.log.lock().unwrap().join("\n").contains(token), "a token is not logged");
}

#[test]
#[cfg(target_os = "linux")]
fn a_gigabyte_is_refused_early_and_not_kept() {
    let server = Server::start(PASSENGERS.dir.path(), &["--max-body", "1MB"]);
    assert_eq!(server.forecast("application/json", "*/*", &passengers_json()).status, 200);
    let before = server.peak();
    let mut stream = server.connect();
    let mut reading = stream.try_clone().unwrap();
    let answer = thread::spawn(move || {
        let mut text = Vec::new();
        let _ = reading.read_to_end(&mut text);
        String::from_utf8(text).unwrap()
    });
    let head = "POST /forecast HTTP/1.1\r\nHost: x\r\nContent-Type: text/csv\r\nTransfer-Encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    let chunk = [b"10000\r\n", [b'1'; 0x10000].as_slice(), b"\r\n"].concat();
    let sent = (0..16 * 1024).take_while(|_| stream.write_all(&chunk).is_ok()).count();
    let text = answer.join().unwrap();
    assert!(text.starts_with("HTTP/1.1 413 ") && text.contains("longer than 1.0 MB"), "{text}");
    assert!(sent < 1024, "{sent} chunks of 64 KiB were taken");
    // What says how long it is is refused unread.
    let mut stream = server.connect();
    write!(
        stream,
        "POST /forecast HTTP/1.1\r\nHost: x\r\nContent-Type: text/csv\r\nContent-Length: 1000000000\r\n\r\n"
    )
    .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert!(text.starts_with("HTTP/1.1 413 "), "{text}");
    let grown = server.peak().saturating_sub(before);
    assert!(grown < 16 << 20, "{grown} bytes more");
    assert_eq!(server.get("/health").status, 200);
}

#[test]
fn slow_clients_are_ended_and_hold_up_nobody() {
    let server = Server::start(PASSENGERS.dir.path(), &["--timeout", "1", "--threads", "1", "--queue", "8"]);
    let body = passengers_json();
    let heads = [
        "GET /health HTTP/1.1\r\n".to_string(),
        format!("POST /forecast HTTP/1.1\r\nHost: x\r\nContent-Type: text/csv\r\nContent-Length: {}\r\n\r\n", 1000),
    ];
    let drip = |head: &str| {
        let mut stream = server.connect();
        stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let (head, start) = (head.to_string(), Instant::now());
        thread::spawn(move || {
            let _ = stream.write_all(head.as_bytes());
            let mut text = Vec::new();
            let mut part = [0; 1024];
            while start.elapsed() < Duration::from_secs(20) {
                let _ = stream.write_all(b"a");
                match stream.read(&mut part) {
                    Ok(0) => break,
                    Ok(read) => text.extend_from_slice(&part[..read]),
                    Err(error)
                        if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {}
                    Err(_) => break,
                }
            }
            (start.elapsed(), String::from_utf8_lossy(&text).into_owned())
        })
    };
    let slow: Vec<_> = heads.iter().flat_map(|head| (0..40).map(|_| (head.starts_with("POST"), drip(head)))).collect();
    let start = Instant::now();
    let mut slowest = Duration::ZERO;
    let mut served = 0;
    while start.elapsed() < Duration::from_millis(800) {
        let one = Instant::now();
        assert_eq!(server.forecast("application/json", "*/*", &body).status, 200);
        slowest = slowest.max(one.elapsed());
        served += 1;
    }
    assert!(served > 3 && slowest < Duration::from_millis(700), "{served} served, {slowest:?} the slowest");
    for (has_body, client) in slow {
        let (elapsed, text) = client.join().unwrap();
        assert!(elapsed < Duration::from_secs(6), "{elapsed:?}");
        assert_eq!(text.starts_with("HTTP/1.1 408 "), has_body, "{text}");
    }
}

#[test]
fn a_client_that_does_not_read_is_ended() {
    let server = Server::start(PASSENGERS.dir.path(), &["--timeout", "1", "--quiet"]);
    let mut stream = server.connect();
    stream.set_write_timeout(Some(Duration::from_secs(20))).unwrap();
    let start = Instant::now();
    let ended = (0..1_000_000).any(|_| stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").is_err());
    assert!(ended && start.elapsed() < Duration::from_secs(15), "{ended} after {:?}", start.elapsed());
    assert_eq!(server.get("/health").status, 200);
}

#[test]
fn a_full_queue_is_told_and_what_is_in_it_is_answered() {
    let server = Server::start(HOURS.dir.path(), &["--threads", "1", "--queue", "1"]);
    // Many rows take their time.
    let many = Series::new(
        "many",
        (0..20_000)
            .map(|hour| HOURS.pipeline.step().unwrap().after(HOURS.series.timestamps()[0], hour).unwrap())
            .collect(),
        HOURS.series.variates().to_vec(),
        ndarray::Array2::from_elem((20_000, HOURS.series.variates().len()), 1.25),
    );
    let body = as_json(&many.unwrap()).to_string();
    let start = Barrier::new(12);
    let answers: Vec<Answer> = thread::scope(|scope| {
        let ask = || {
            start.wait();
            server.forecast("application/json", "*/*", &body)
        };
        let asked: Vec<_> = (0..12).map(|_| scope.spawn(ask)).collect();
        asked.into_iter().map(|answer| answer.join().unwrap()).collect()
    });
    let (done, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(|answer| answer.status == 200);
    assert!(done.len() >= 2 && !refused.is_empty(), "{} done, {} refused", done.len(), refused.len());
    for answer in refused {
        assert_eq!((answer.status, answer.header("retry-after")), (503, "1"));
        assert!(answer.error().contains("queue is full"));
    }
    assert_eq!(server.forecast("application/json", "*/*", &body).status, 200);
}

/// The whole answer to one request on a connection of its own; `None` if there is not a byte of one.
fn ask_once(address: SocketAddr, body: &str) -> Option<Vec<u8>> {
    let mut stream = TcpStream::connect(address).ok()?;
    let head = format!(
        "POST /forecast HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nConnection: close\r\n\
         Content-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes())).ok()?;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    (!answer.is_empty()).then_some(answer)
}

#[test]
fn sigterm_under_load_loses_no_answer() {
    let server = Server::start(PASSENGERS.dir.path(), &["--queue", "1000"]);
    let body = passengers_json();
    let (answered, ending, stop) = (AtomicUsize::new(0), AtomicBool::new(false), AtomicBool::new(false));
    let address = server.address;
    let (code, log) = thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let Some(answer) = ask_once(address, &body) else {
                        assert!(ending.load(Ordering::Relaxed), "a request is lost before the end");
                        thread::sleep(Duration::from_millis(1));
                        continue;
                    };
                    let text = String::from_utf8(answer).unwrap();
                    let (head, rest) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("half an answer: {text}"));
                    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
                    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
                    assert_eq!(rest.len(), length.parse::<usize>().unwrap(), "half an answer");
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        while answered.load(Ordering::Relaxed) < 200 {
            thread::sleep(Duration::from_millis(1));
        }
        ending.store(true, Ordering::Relaxed);
        server.signal("TERM");
        let ended = server.ended();
        stop.store(true, Ordering::Relaxed);
        ended
    });
    assert_eq!(code, Some(0), "{}", log.join("\n"));
    let done = log.iter().filter(|line| line.contains("POST /forecast 200 ")).count();
    assert_eq!(done, answered.load(Ordering::Relaxed), "every request that was taken on has its whole answer");
    assert!(TcpStream::connect(address).is_err());
}

#[test]
fn an_idle_connection_does_not_hold_up_the_end() {
    let server = Server::start(PASSENGERS.dir.path(), &[]);
    let (idle, start) = (server.connect(), Instant::now());
    assert_eq!(server.get("/health").status, 200);
    server.signal("INT");
    let (code, log) = server.ended();
    assert_eq!(code, Some(0), "{}", log.join("\n"));
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    drop(idle);
}

#[test]
fn nobody_who_reads_the_log_is_no_failure() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_longcast"));
    command.arg("serve").arg(PASSENGERS.dir.path()).args(["--listen", "127.0.0.1:0"]).env_remove("LONGCAST_TOKEN");
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    let mut log = BufReader::new(child.stderr.take().unwrap());
    log.read_line(&mut line).unwrap();
    drop(log);
    let address = line.split("http://").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    let server = Server { child, address, log: Arc::default(), reader: Some(thread::spawn(|| ())) };
    assert_eq!(server.forecast("application/json", "*/*", &passengers_json()).status, 200);
    server.signal("TERM");
    assert_eq!(server.ended().0, Some(0));
}

#[test]
fn a_second_signal_ends_at_once() {
    let server = Server::start(PASSENGERS.dir.path(), &[]);
    // A body that does not come would be waited for.
    let mut stream = server.connect();
    write!(stream, "POST /forecast HTTP/1.1\r\nHost: x\r\nContent-Type: text/csv\r\nContent-Length: 9\r\n\r\n")
        .unwrap();
    thread::sleep(Duration::from_millis(300));
    server.signal("TERM");
    while !server.log.lock().unwrap().iter().any(|line| line.contains("ending")) {
        thread::sleep(Duration::from_millis(10));
    }
    let start = Instant::now();
    server.signal("TERM");
    let (code, _) = server.ended();
    assert_eq!(code, Some(130));
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}

#[test]
#[cfg(target_os = "linux")]
fn ten_thousand_requests_leave_no_memory_behind() {
    let server = Server::start(PASSENGERS.dir.path(), &["--quiet"]);
    let Fitted { pipeline, series, .. } = &*PASSENGERS;
    let expected = json!(pipeline.forecast(series).unwrap().values.column(0).to_vec());
    let (body, url) = (passengers_json(), server.url("/forecast"));
    let round = |each: usize| {
        thread::scope(|scope| {
            for _ in 0..64 {
                scope.spawn(|| {
                    let agent = agent();
                    for _ in 0..each {
                        let request = agent.post(&url).header("Content-Type", "application/json");
                        let answer = Answer::of(request.send(&body));
                        assert_eq!(answer.status, 200, "{}", answer.text);
                        assert_eq!(answer.json()["values"]["passengers"], expected);
                    }
                });
            }
        });
    };
    round(20);
    let (warm, start) = (server.peak(), Instant::now());
    round(157);
    let (grown, elapsed) = (server.peak().saturating_sub(warm), start.elapsed());
    eprintln!("{} requests in {elapsed:.1?}, {} MiB, {} KiB more", 64 * 157, warm >> 20, grown >> 10);
    assert!(grown < 6 << 20, "{grown} bytes more than {warm}");
}

#[test]
fn what_cannot_be_served_is_refused() {
    let run = |arguments: &[&str], token: Option<&str>| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_longcast"));
        command.arg("serve").args(arguments).env_remove("LONGCAST_TOKEN");
        let done = command.envs(token.map(|token| ("LONGCAST_TOKEN", token))).output().unwrap();
        assert!(done.stdout.is_empty());
        (done.status.code().unwrap(), String::from_utf8(done.stderr).unwrap())
    };
    let (code, text) = run(&["nowhere"], None);
    assert!(code == 1 && text.contains("nowhere/model.toml"), "{text}");
    let dir = PASSENGERS.dir.path().to_str().unwrap();
    let server = Server::start(PASSENGERS.dir.path(), &[]);
    let (code, text) = run(&[dir, "--listen", &server.address.to_string()], None);
    assert!(code == 1 && text.contains(&server.address.to_string()) && text.contains("--listen"), "{text}");
    let (code, text) = run(&[dir, "--listen", &format!("0.0.0.0:{}", server.address.port())], None);
    assert!(code == 1 && text.contains("LONGCAST_TOKEN is not set"), "{text}");
    let (code, text) = run(&[dir], Some(""));
    assert!(code == 2 && text.contains("LONGCAST_TOKEN"), "{text}");
    for wrong in
        [["--listen", "here"], ["--max-body", "much"], ["--timeout", "0"], ["--threads", "0"], ["--queue", "many"]]
    {
        let (code, text) = run(&[&[dir], &wrong[..]].concat(), None);
        assert!(code == 2 && text.contains(wrong[0]), "{text}");
    }
}

#[test]
fn a_line_is_logged_for_each_request_unless_quiet() {
    for (options, lines) in [(&[][..], 2), (&["--quiet"][..], 0)] {
        let server = Server::start(PASSENGERS.dir.path(), options);
        server.get("/health");
        server.get("/nowhere?token=secret");
        server.signal("TERM");
        let (_, log) = server.ended();
        assert_eq!(log.iter().filter(|line| line.contains(" GET /")).count(), lines, "{log:?}");
        assert!(!log.join("").contains("secret"), "a query is not logged");
    }
}
