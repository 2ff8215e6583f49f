//! A nats-server of the test's own: started, killed and restarted on one port.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinSet;

use crate::stack::free_port;

/// No honest wait in these tests is longer, on a machine that compiles meanwhile.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("not within {PATIENCE:?}: {what}"),
    }
}

pub(crate) struct Server {
    pub(crate) port: u16,
    pub(crate) dir: tempfile::TempDir,
    process: Option<(Child, JoinSet<()>)>,
}

impl Server {
    pub(crate) async fn start(config: &str) -> Self {
        let mut server = Self::down();
        server.restart(config).await;
        server
    }

    /// A port on which nobody listens yet.
    pub(crate) fn down() -> Self {
        Self { port: free_port(), dir: tempfile::tempdir().unwrap(), process: None }
    }

    pub(crate) async fn restart(&mut self, config: &str) {
        self.kill().await;
        let path = self.dir.path().join("nats.conf");
        std::fs::write(&path, config).unwrap();
        let mut child = Command::new(binary())
            .args(["-a", "127.0.0.1", "-p", &self.port.to_string(), "-c"])
            .arg(&path)
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut log = Vec::new();
        within("nats-server is ready", async {
            while let Some(line) = lines.next_line().await.unwrap() {
                log.push(line);
                if log.last().is_some_and(|line| line.contains("Server is ready")) {
                    return;
                }
            }
            panic!("nats-server ended: {log:#?}");
        })
        .await;
        // the pipe must not fill up
        let mut drain = JoinSet::new();
        drain.spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        self.process = Some((child, drain));
    }

    pub(crate) async fn kill(&mut self) {
        if let Some((mut child, _drain)) = self.process.take() {
            within("nats-server is killed", child.kill()).await.unwrap();
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("DATA_BRIDGE_TEST_NATS_SERVER") {
        let path = PathBuf::from(path);
        assert!(path.is_file(), "DATA_BRIDGE_TEST_NATS_SERVER: no file {}", path.display());
        return path;
    }
    let dist = Path::new(env!("CARGO_MANIFEST_DIR")).join(".stack/dist");
    find(&dist).unwrap_or_else(|| {
        panic!(
            "these tests need a nats-server: run scripts/stack, which puts one below {}, or set \
             DATA_BRIDGE_TEST_NATS_SERVER to its path",
            dist.display()
        )
    })
}

fn find(dir: &Path) -> Option<PathBuf> {
    let entries = std::fs::read_dir(dir).ok()?;
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.into_iter().find_map(|path| {
        if path.is_dir() {
            find(&path)
        } else {
            path.file_name().is_some_and(|name| name == "nats-server").then_some(path)
        }
    })
}
