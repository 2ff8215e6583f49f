//! Servers: those that all tests share, and stacks of a test's own that it may kill. The unit tests
//! of the Kafka source include this file too.

use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

/// Where servers are.
#[derive(Debug, Clone)]
pub(crate) struct Addresses {
    pub(crate) kafka: String,
    pub(crate) nats: String,
    pub(crate) clickhouse: String,
}

impl Addresses {
    /// The servers of the environment.
    pub(crate) fn shared() -> Self {
        Self { kafka: shared("KAFKA"), nats: shared("NATS"), clickhouse: shared("CLICKHOUSE") }
    }
}

/// Where a server of the environment is. A missing one is a failure, never a test that is skipped
/// in silence.
pub(crate) fn shared(server: &str) -> String {
    let variable = format!("DATA_BRIDGE_TEST_{server}");
    std::env::var(&variable).unwrap_or_else(|_| {
        panic!(
            "this test needs real servers, and {variable} is not set: run scripts/test, or \
             `scripts/stack up` and then `set -a; eval \"$(scripts/stack env)\"`"
        )
    })
}

/// A stack of the test's own: `down` when it goes out of scope.
pub(crate) struct Stack {
    name: String,
}

impl Stack {
    /// Starts these servers and waits until they answer.
    pub(crate) fn up(servers: &[&str]) -> Self {
        let stack = Self::reserve();
        stack.run(&[&["up"], servers].concat());
        stack
    }

    /// A name; nothing runs yet.
    pub(crate) fn reserve() -> Self {
        Self { name: unique("it") }
    }

    pub(crate) fn kill(&self, server: &str) {
        self.run(&["kill", server]);
    }

    pub(crate) fn start(&self, server: &str) {
        self.run(&["start", server]);
    }

    /// One value of `scripts/stack env`, for example `CLICKHOUSE`.
    pub(crate) fn address(&self, of: &str) -> String {
        let wanted = format!("DATA_BRIDGE_TEST_{of}=");
        let env = self.run(&["env"]);
        let line = env.lines().find_map(|line| line.strip_prefix(&wanted));
        line.unwrap_or_else(|| panic!("no {wanted} in\n{env}")).trim_matches('\'').to_owned()
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> String {
        let done = Command::new(script()).args(["--name", &self.name]).args(arguments).output();
        let done = done.unwrap();
        assert!(
            done.status.success(),
            "scripts/stack {arguments:?}: {}",
            String::from_utf8_lossy(&done.stderr)
        );
        String::from_utf8(done.stdout).unwrap()
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        let done = Command::new(script()).args(["--name", &self.name, "down"]).output();
        if !done.is_ok_and(|done| done.status.success()) && !std::thread::panicking() {
            panic!("scripts/stack --name {} down failed", self.name);
        }
    }
}

fn script() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("scripts/stack")
}

/// A name that nobody else uses, not even another run on the same servers.
pub(crate) fn unique(prefix: &str) -> String {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let random = rand::random::<u32>();
    format!("{prefix}{random:08x}{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A port on which nobody listens, for a server that comes later, comes back, or never comes. Below
/// the ports that the system gives out (32768 and up) and those of the stacks (20000 and up): no
/// connection and no other test has it meanwhile.
pub(crate) fn free_port() -> u16 {
    const COUNT: u32 = 10_000;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // Processes that run side by side begin far from each other.
    let start = std::process::id().wrapping_mul(97);
    let mut ports = (0..COUNT).map(|_| {
        let n = start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % COUNT;
        10_000 + u16::try_from(n).unwrap()
    });
    let is_free = |port: &u16| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok();
    ports.find(is_free).expect("one of ten thousand ports is free")
}

/// Whether the broker is Apache Kafka. Where it is not, says that the test is skipped, so that
/// nobody takes it for one that passed; `scripts/test` lists those at its end.
pub(crate) fn is_apache_kafka(reason: &str) -> bool {
    let flavor = std::env::var("DATA_BRIDGE_TEST_KAFKA_FLAVOR").unwrap_or_default();
    if flavor.is_empty() || flavor == "apache" {
        return true;
    }
    skip(&format!("needs Apache Kafka, not {flavor}: {reason}"));
    false
}

/// Says that this test does not run here, and why.
pub(crate) fn skip(reason: &str) {
    let name = std::thread::current().name().unwrap_or("a test").to_owned();
    let line = format!("SKIPPED {name}: {reason}\n");
    // past the test runner, which hides what a test prints
    std::io::Write::write_all(&mut std::io::stderr().lock(), line.as_bytes()).unwrap();
    if let Some(list) = std::env::var_os("DATA_BRIDGE_TEST_SKIPPED") {
        let file = std::fs::OpenOptions::new().append(true).create(true).open(list);
        std::io::Write::write_all(&mut file.unwrap(), line.as_bytes()).unwrap();
    }
}
