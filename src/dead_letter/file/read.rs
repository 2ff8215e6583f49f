//! Reads the letters of a file and of those that were set aside, oldest first.

use std::fs::File;
use std::io::{BufRead as _, BufReader, ErrorKind, Read as _};

use anyhow::Context as _;
use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::LetterFile;
use crate::dead_letter::log::{LINES_AHEAD, Lines};

impl LetterFile {
    /// The lines up to what is the end now. A last line without its end is being written, or was
    /// torn: it does not count.
    ///
    /// # Errors
    /// When a file cannot be opened. None at all is no error: there are no letters yet.
    pub fn scan(&self) -> anyhow::Result<Lines> {
        let files = self.open_all()?;
        let (sender, lines) = mpsc::channel(LINES_AHEAD);
        let mut reader = JoinSet::new();
        reader.spawn_blocking(move || {
            let mut number = 0;
            for (file, length) in files {
                let mut input = BufReader::new(file.take(length));
                loop {
                    let mut line = Vec::new();
                    let read = input.read_until(b'\n', &mut line);
                    let item = match read {
                        Ok(_) if line.last() != Some(&b'\n') => break,
                        Ok(_) => Ok(((0, number), Bytes::from(line))),
                        Err(error) => Err(error).context("reading dead letters"),
                    };
                    number += 1;
                    let failed = item.is_err();
                    if sender.blocking_send(item).is_err() || failed {
                        return;
                    }
                }
            }
        });
        Ok(Lines { lines, reader })
    }

    /// Opened at once: a file that is set aside meanwhile is read under its old name.
    fn open_all(&self) -> anyhow::Result<Vec<(File, u64)>> {
        let aside = match self.numbered() {
            Ok(aside) => aside,
            Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error).context(self.folder().display().to_string()),
        };
        let paths = aside.into_iter().map(|(_, path)| path).chain([self.path.clone()]);
        let mut files = Vec::new();
        for path in paths {
            match File::open(&path) {
                Ok(file) => {
                    let length = file.metadata().context(path.display().to_string())?.len();
                    files.push((file, length));
                }
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error).context(path.display().to_string()),
            }
        }
        Ok(files)
    }
}
