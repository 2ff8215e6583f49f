//! The real binary as a child process: started on configuration files, watched over HTTP and
//! through its log, signalled, killed. Every wait is under a time-out; whatever happens to a test,
//! its processes end with it, and a test that fails shows the end of the log.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value as Json;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

/// How often something is asked that has not happened yet.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// No honest wait in these tests is longer, on a machine that compiles meanwhile.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);
const LOG_TAIL_LINES: usize = 60;

pub(crate) struct Bridge {
    child: Child,
    log: PathBuf,
    address: Option<SocketAddr>,
}

impl Bridge {
    /// Starts `data-bridge run` on these files, a later one over those before it.
    pub(crate) fn spawn(log: PathBuf, files: &[PathBuf]) -> Self {
        Self::spawn_with(log, files, &[])
    }

    /// The same, with variables in its environment.
    pub(crate) fn spawn_with(log: PathBuf, files: &[PathBuf], variables: &[(&str, &str)]) -> Self {
        let mut command = program();
        command.envs(variables.iter().copied());
        for file in files {
            command.arg("--config").arg(file);
        }
        let stderr = std::fs::File::create(&log).unwrap();
        let child = command
            .args(["--log-format", "json", "run"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        Self { child, log, address: None }
    }

    /// Waits until it takes work.
    pub(crate) async fn ready(mut self) -> Self {
        self.listening().await;
        let started = Instant::now();
        while self.status("/readyz").await != Some(StatusCode::OK) {
            self.must_run();
            assert!(started.elapsed() < PATIENCE, "not ready:\n{}", self.log_tail());
            sleep(LOOK_EVERY).await;
        }
        self
    }

    /// Waits until it listens for HTTP, on a port that only its log tells.
    pub(crate) async fn listening(&mut self) -> SocketAddr {
        let started = Instant::now();
        loop {
            let line = self.log_lines().into_iter().find(|l| l["message"] == "listening for HTTP");
            if let Some(line) = line {
                let address = line["address"].as_str().unwrap().parse().unwrap();
                self.address = Some(address);
                return address;
            }
            self.must_run();
            assert!(started.elapsed() < PATIENCE, "it does not listen:\n{}", self.log_tail());
            sleep(LOOK_EVERY).await;
        }
    }

    fn must_run(&mut self) {
        if let Some(code) = self.has_ended() {
            panic!("it ended with {code}:\n{}", self.log_tail());
        }
    }

    /// The exit code, if it has ended; -1 for a signal.
    pub(crate) fn has_ended(&mut self) -> Option<i32> {
        let status = self.child.try_wait().unwrap()?;
        Some(status.code().unwrap_or(-1))
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address.expect("it listens")
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id().expect("it runs")
    }

    /// The largest memory that it ever had.
    pub(crate) fn peak_memory_mib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
    }

    /// The status of a page; None when nobody answers.
    pub(crate) async fn status(&self, path: &str) -> Option<StatusCode> {
        let answer = get(&format!("http://{}{path}", self.address())).await;
        answer.ok().map(|(status, _)| status)
    }

    pub(crate) async fn health(&self) -> Json {
        let (_, body) = get(&format!("http://{}/health", self.address()))
            .await
            .unwrap_or_else(|error| panic!("/health: {error}\n{}", self.log_tail()));
        serde_json::from_str(&body).unwrap()
    }

    pub(crate) async fn metrics(&self) -> String {
        get(&format!("http://{}/metrics", self.address())).await.unwrap().1
    }

    /// Waits until `/health` shows what is waited for, and returns it.
    pub(crate) async fn wait_until(&self, what: &str, shows: impl Fn(&Json) -> bool) -> Json {
        self.wait_until_within(PATIENCE, what, shows).await
    }

    pub(crate) async fn wait_until_within(
        &self,
        within: Duration,
        what: &str,
        shows: impl Fn(&Json) -> bool,
    ) -> Json {
        let started = Instant::now();
        loop {
            let health = self.health().await;
            if shows(&health) {
                return health;
            }
            assert!(
                started.elapsed() < within,
                "not within {within:?}: {what}\n{health:#}\n{}",
                self.log_tail()
            );
            sleep(LOOK_EVERY).await;
        }
    }

    /// Waits until it calls for a person, with this among the words.
    pub(crate) async fn needs_person(&self, word: &str) {
        self.wait_until(&format!("it needs a person: {word}"), |health| {
            health["status"] == "critical" && health["needs_person"].to_string().contains(word)
        })
        .await;
    }

    pub(crate) async fn needs_nobody(&self) {
        self.wait_until("nobody is needed any more", |health| {
            health["needs_person"].as_array().is_some_and(Vec::is_empty)
        })
        .await;
    }

    pub(crate) async fn wait_for_log(&self, text: &str) {
        self.wait_for_logs(text, 1).await;
    }

    /// Waits until it has said this so many times.
    pub(crate) async fn wait_for_logs(&self, text: &str, times: usize) {
        let started = Instant::now();
        while self.log().matches(text).count() < times {
            assert!(
                started.elapsed() < PATIENCE,
                "not logged {times} times: {text}\n{}",
                self.log_tail()
            );
            sleep(LOOK_EVERY).await;
        }
    }

    pub(crate) fn signal(&self, name: &str) {
        let pid = self.pid().to_string();
        let sent = std::process::Command::new("/bin/kill").args(["-s", name, &pid]).status();
        assert!(sent.unwrap().success());
    }

    /// Waits for the end; gives the exit code.
    pub(crate) async fn ended(&mut self, within: Duration) -> i32 {
        let status = timeout(within, self.child.wait()).await;
        let status = status
            .unwrap_or_else(|_| panic!("it has not ended in {within:?}:\n{}", self.log_tail()));
        status.unwrap().code().unwrap_or(-1)
    }

    /// SIGTERM; gives the exit code.
    pub(crate) async fn terminate(&mut self) -> i32 {
        self.signal("TERM");
        self.ended(PATIENCE).await
    }

    /// SIGTERM, and it must end well.
    pub(crate) async fn stop(mut self) {
        let code = self.terminate().await;
        assert_eq!(code, 0, "the exit code\n{}", self.log_tail());
    }

    /// SIGKILL.
    pub(crate) async fn kill(&mut self) {
        timeout(PATIENCE, self.child.kill()).await.unwrap().unwrap();
    }

    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap()).into_owned()
    }

    /// The log's lines; what another program wrote there is left out.
    pub(crate) fn log_lines(&self) -> Vec<Json> {
        self.log().lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// The messages of the log that contain this, in their order.
    pub(crate) fn logged(&self, part: &str) -> Vec<String> {
        let lines = self.log_lines();
        let messages = lines.iter().filter_map(|line| line["message"].as_str());
        messages.filter(|message| message.contains(part)).map(str::to_owned).collect()
    }

    pub(crate) fn log_tail(&self) -> String {
        tail(&self.log)
    }
}

#[expect(clippy::print_stderr, reason = "the test runner shows it beside the failure")]
impl Drop for Bridge {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the end of the bridge's log:\n{}", self.log_tail());
        }
    }
}

/// `data-bridge`, without any configuration of whoever runs the tests.
pub(crate) fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_data-bridge"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("DATA_BRIDGE__") {
            command.env_remove(name);
        }
    }
    command.env_remove("RUST_LOG");
    command
}

fn tail(path: &Path) -> String {
    let text = String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n")
}

/// GET; the status and the body.
pub(crate) async fn get(url: &str) -> Result<(StatusCode, String), String> {
    let request = Request::get(url).body(Body::empty()).unwrap();
    ask(request, Duration::from_secs(15)).await
}

/// POST; the status and the body.
pub(crate) async fn post(url: &str, body: String) -> Result<(StatusCode, String), String> {
    ask(Request::post(url).body(Body::from(body)).unwrap(), PATIENCE).await
}

pub(crate) async fn ask(
    request: Request<Body>,
    within: Duration,
) -> Result<(StatusCode, String), String> {
    let client: Client<HttpConnector, Body> = Client::builder(TokioExecutor::new()).build_http();
    let whole = async {
        let response = client.request(request).await.map_err(|error| format!("{error:?}"))?;
        let status = response.status();
        let body = axum::body::to_bytes(Body::new(response.into_body()), usize::MAX).await;
        let body = body.map_err(|error| format!("{error:?}"))?;
        Ok((status, String::from_utf8_lossy(&body).into_owned()))
    };
    timeout(within, whole).await.map_err(|_| "no answer".to_owned()).flatten()
}
