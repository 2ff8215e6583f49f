//! The log lines of one test: of everything that runs on its thread.

use std::io::Write;
use std::sync::{Arc, LazyLock, Mutex};

use tracing::Dispatch;
use tracing::subscriber::{DefaultGuard, NoSubscriber};
use tracing_subscriber::fmt::MakeWriter;

/// Collects from here on, until it is dropped.
pub(crate) struct Logs {
    lines: Lines,
    _guard: DefaultGuard,
}

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

/// While there is only one subscriber in the process, tracing asks the thread that comes to a line
/// first whether anybody wants it. That may be one of another test, which wants nothing: then the
/// line is left out for all. With a second one it asks every subscriber.
static SECOND: LazyLock<Dispatch> = LazyLock::new(|| Dispatch::new(NoSubscriber::default()));

impl Logs {
    pub(crate) fn collect() -> Self {
        LazyLock::force(&SECOND);
        let lines = Lines::default();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .without_time()
            .with_max_level(tracing::Level::INFO)
            .with_writer(lines.clone())
            .finish();
        Self { lines, _guard: tracing::subscriber::set_default(subscriber) }
    }

    fn all(&self) -> String {
        String::from_utf8(self.lines.0.lock().unwrap().clone()).unwrap()
    }

    /// The lines that have this in them.
    pub(crate) fn with(&self, text: &str) -> Vec<String> {
        self.all().lines().filter(|line| line.contains(text)).map(str::to_owned).collect()
    }

    /// The number of the one line that has this in it.
    pub(crate) fn place(&self, text: &str) -> usize {
        let all = self.all();
        let mut places = all.lines().enumerate().filter(|(_, line)| line.contains(text));
        let place = places.next().unwrap_or_else(|| panic!("no {text:?} in the log:\n{all}")).0;
        assert!(places.next().is_none(), "{text:?} more than once in the log:\n{all}");
        place
    }
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}
