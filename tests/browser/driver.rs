//! A Chromium without a window, driven through chromedriver.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    process::{Child, Command, Stdio},
    time::Duration,
};

use fantoccini::{Client, ClientBuilder, Locator, elements::Element, wd::WebDriverCompatibleCommand};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};
use url::Url;

pub struct Browser {
    pub client: Client,
    // Ended with the test, whatever becomes of it.
    _driver: Driver,
}

struct Driver {
    process: Child,
    port: u16,
}

impl Drop for Driver {
    fn drop(&mut self) {
        // It ends its browsers first; killed at once, it would leave them behind.
        let ended = TcpStream::connect(("127.0.0.1", self.port)).and_then(|mut stream| {
            stream.set_read_timeout(Some(Duration::from_secs(10)))?;
            stream.write_all(b"GET /shutdown HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")?;
            stream.read(&mut [0; 1])
        });
        // Without an answer it may hang.
        if ended.is_err() {
            let _ = self.process.kill();
        }
        let _ = self.process.wait();
    }
}

/// A command of chromedriver's own.
#[derive(Debug)]
struct Own {
    path: &'static str,
    body: Value,
}

impl WebDriverCompatibleCommand for Own {
    fn endpoint(&self, base: &Url, session: Option<&str>) -> Result<Url, url::ParseError> {
        base.join(&format!("session/{}/{}", session.unwrap(), self.path))
    }

    fn method_and_body(&self, _: &Url) -> (http::Method, Option<String>) {
        (http::Method::POST, Some(self.body.to_string()))
    }
}

/// Whether Chromium and its driver are installed; where they have to be, it is a failure if they are not.
pub fn is_here() -> bool {
    let answers = |program: &str| {
        let version = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        version.is_ok_and(|status| status.success())
    };
    let here = answers("chromium") && answers("chromedriver");
    if !here {
        let required = std::env::var_os("LONGCAST_BROWSER").is_some_and(|value| value == "required");
        assert!(!required, "chromium and chromedriver are not installed; `make browser` installs them");
        eprintln!("skipped: chromium and chromedriver are not installed; `make browser` installs them");
    }
    here
}

/// `None` if it ended before it named its port.
fn start_driver() -> Option<Driver> {
    let mut process = Command::new("chromedriver").arg("--port=0").stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
    let started = lines.find_map(|line| line.ok().filter(|line| line.contains("started successfully on port")));
    match started {
        Some(line) => {
            let port = line.rsplit(' ').next().unwrap().trim_end_matches('.').parse().unwrap();
            Some(Driver { process, port })
        }
        None => {
            process.wait().unwrap();
            None
        }
    }
}

impl Browser {
    pub async fn start() -> Self {
        // Drivers that start at once may choose the same port; all but one of them end then, and choose again.
        let driver = (0..5).find_map(|_| start_driver()).expect("chromedriver starts");
        let arguments = ["--headless", "--no-sandbox", "--disable-gpu", "--window-size=1280,900", "--hide-scrollbars"];
        let capabilities = json!({
            "goog:chromeOptions": {"args": arguments},
            "goog:loggingPrefs": {"browser": "ALL"},
        });
        let client = ClientBuilder::new(HttpConnector::new())
            .capabilities(capabilities.as_object().unwrap().clone())
            .connect(&format!("http://127.0.0.1:{}", driver.port))
            .await
            .unwrap();
        Self { client, _driver: driver }
    }

    /// What the page has written to the console, exceptions among it.
    pub async fn console(&self) -> Vec<Value> {
        let log = self.client.issue_cmd(Own { path: "se/log", body: json!({"type": "browser"}) }).await.unwrap();
        log.as_array().unwrap().clone()
    }

    async fn devtools(&self, command: &str, params: Value) {
        let body = json!({"cmd": command, "params": params});
        self.client.issue_cmd(Own { path: "goog/cdp/execute", body }).await.unwrap();
    }

    /// A window of this size, as of a phone where it is narrow.
    pub async fn resize(&self, width: u32, height: u32) {
        let params = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600});
        self.devtools("Emulation.setDeviceMetricsOverride", params).await;
    }

    /// A system that asks for light or dark pages, or for paper.
    pub async fn media(&self, scheme: &str, medium: &str) {
        let params = json!({"media": medium, "features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.devtools("Emulation.setEmulatedMedia", params).await;
    }

    pub async fn run(&self, script: &str) -> Value {
        self.client.execute(script, vec![]).await.unwrap()
    }

    pub async fn find(&self, css: &str) -> Element {
        self.client.find(Locator::Css(css)).await.unwrap_or_else(|error| panic!("{css}: {error}"))
    }

    pub async fn click(&self, css: &str) {
        // As a person: scrolled to, and not below something else.
        self.run(&format!("document.querySelector({}).scrollIntoView({{block: 'center'}})", json!(css))).await;
        self.find(css).await.click().await.unwrap_or_else(|error| panic!("{css}: {error}"));
    }

    /// Presses a key where the focus is.
    pub async fn press(&self, key: fantoccini::key::Key) {
        self.client.active_element().await.unwrap().send_keys(&String::from(char::from(key))).await.unwrap();
    }

    /// Keeps a picture where a folder for pictures is named.
    pub async fn picture(&self, name: &str) {
        if let Some(folder) = std::env::var_os("LONGCAST_SCREENSHOTS") {
            let png = self.client.screenshot().await.unwrap();
            std::fs::write(std::path::Path::new(&folder).join(name).with_extension("png"), png).unwrap();
        }
    }
}
