//! Dead letters in a file: JSON lines, appended, durable before they count.
//!
//! A letter counts when it is on the disk (`fsync`), and its line is whole or not there: what an
//! attempt wrote before it failed is cut off again, and so is a last line that a `kill -9` tore. A
//! file that would grow beyond its limit is set aside as `PATH.000001` and so on; none is ever
//! deleted here. Several processes may write the same file: they take turns by a lock on its
//! directory.

mod read;

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use crate::sink::{InsertError, Refusal};

/// How much is looked through at a time for the end of the last whole line.
const LOOK_BACK: usize = 64 * 1024;

/// The file, and those that were set aside.
#[derive(Debug, Clone)]
pub struct LetterFile {
    path: PathBuf,
    max_bytes: u64,
    /// Attempts of this process take turns here: the lock below is for other processes.
    turn: Arc<Mutex<()>>,
}

impl LetterFile {
    #[must_use]
    pub fn new(path: PathBuf, max_bytes: u64) -> Self {
        Self { path, max_bytes, turn: Arc::default() }
    }

    /// Whether letters could be written, as far as that shows without making the file.
    pub fn look(&self) -> Result<(), InsertError> {
        let folder = self.folder();
        let readable = std::fs::metadata(folder).map_err(|e| refusal("cannot open", folder, &e))?;
        if readable.permissions().readonly() {
            let error = ErrorKind::PermissionDenied.into();
            return Err(refusal("cannot write", folder, &error));
        }
        match OpenOptions::new().append(true).open(&self.path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(refusal("cannot open", &self.path, &error))
            }
            _ => Ok(()),
        }
    }

    fn folder(&self) -> &Path {
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        folder.unwrap_or_else(|| Path::new("."))
    }

    /// Whether letters can be written: makes the file if it is missing.
    pub async fn ready(&self) -> Result<(), InsertError> {
        self.append(Bytes::new()).await
    }

    /// Appends whole lines; all of them are durable, or none is there.
    pub async fn append(&self, lines: Bytes) -> Result<(), InsertError> {
        let file = self.clone();
        let writing = tokio::task::spawn_blocking(move || {
            let _turn = file.turn.lock().unwrap_or_else(PoisonError::into_inner);
            file.append_blocking(&lines)
        });
        match writing.await {
            Ok(written) => written,
            Err(error) => Err(retry(format!("writing dead letters: {error}"))),
        }
    }

    fn append_blocking(&self, lines: &[u8]) -> Result<(), InsertError> {
        let folder = Folder::lock(self.folder())?;
        let failed = |what: &str, error| refusal(what, &self.path, &error);
        let mut file = self.open(&folder).map_err(|error| failed("cannot open", error))?;
        let mut end = mended_end(&mut file, &self.path).map_err(|e| failed("cannot read", e))?;
        if end > 0 && end + lines.len() as u64 > self.max_bytes {
            self.set_aside(&folder).map_err(|error| failed("cannot set aside", error))?;
            file = self.open(&folder).map_err(|error| failed("cannot open", error))?;
            end = 0;
        }
        if lines.is_empty() {
            return Ok(());
        }
        let written = file.write_all(lines).and_then(|()| file.sync_data());
        written.map_err(|error| {
            // Also after a failed fsync: the kernel may have dropped what it could not write, and
            // a second fsync would not say so.
            if let Err(error) = file.set_len(end).and_then(|()| file.sync_data()) {
                let path = self.path.display();
                tracing::error!(
                    event = "dead_letters_file_torn",
                    "{path}: cannot cut off what an attempt left there: {error}"
                );
            }
            failed("cannot write", error)
        })
    }

    fn open(&self, folder: &Folder) -> std::io::Result<File> {
        let mut options = OpenOptions::new();
        options.read(true).append(true);
        match options.open(&self.path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let file = options.create(true).open(&self.path)?;
                // The name has to be durable too.
                folder.0.sync_all()?;
                Ok(file)
            }
            opened => opened,
        }
    }

    /// The file is full: it gets the next number, and a new one begins.
    fn set_aside(&self, folder: &Folder) -> std::io::Result<()> {
        let last = self.numbered()?.last().map_or(0, |(number, _)| *number);
        let aside = with_number(&self.path, last + 1);
        std::fs::rename(&self.path, &aside)?;
        folder.0.sync_all()?;
        tracing::info!(
            event = "dead_letters_file_full",
            "dead letters: {} is full, set aside",
            aside.display()
        );
        Ok(())
    }

    /// The files that were set aside, oldest first.
    fn numbered(&self) -> std::io::Result<Vec<(u32, PathBuf)>> {
        let name = self.path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let mut found = Vec::new();
        for entry in std::fs::read_dir(self.folder())? {
            let entry = entry?;
            let number = entry.file_name().to_str().and_then(|other| {
                let digits = other.strip_prefix(name)?.strip_prefix('.')?;
                let number = digits.bytes().all(|byte| byte.is_ascii_digit());
                number.then(|| digits.parse().ok())?
            });
            if let Some(number) = number {
                found.push((number, entry.path()));
            }
        }
        found.sort();
        Ok(found)
    }
}

/// The directory of the file, locked for as long as this lives.
struct Folder(File);

impl Folder {
    fn lock(folder: &Path) -> Result<Self, InsertError> {
        let file = File::open(folder).map_err(|e| refusal("cannot open", folder, &e))?;
        match file.try_lock() {
            Ok(()) => Ok(Self(file)),
            Err(TryLockError::WouldBlock) => {
                Err(retry(format!("another process writes in {}", folder.display())))
            }
            Err(TryLockError::Error(error)) => Err(refusal("cannot lock", folder, &error)),
        }
    }
}

/// Where the next line begins. A last line without its end was torn by a crash: it never counted,
/// so it is cut off.
fn mended_end(file: &mut File, path: &Path) -> std::io::Result<u64> {
    let length = file.metadata()?.len();
    let end = end_of_lines(file, length)?;
    if end < length {
        let bytes = length - end;
        tracing::warn!(
            event = "dead_letters_file_torn",
            bytes,
            "{}: cut off a line that a crash tore",
            path.display()
        );
        file.set_len(end)?;
        file.sync_data()?;
    }
    Ok(end)
}

/// The place behind the last line's end, looked for backwards from `length`.
fn end_of_lines(file: &mut File, length: u64) -> std::io::Result<u64> {
    let mut buffer = vec![0; LOOK_BACK];
    let mut end = length;
    while end > 0 {
        let start = end.saturating_sub(LOOK_BACK as u64);
        let part = &mut buffer[..usize::try_from(end - start).unwrap_or(LOOK_BACK)];
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(part)?;
        if let Some(newline) = part.iter().rposition(|&byte| byte == b'\n') {
            return Ok(start + newline as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

/// `PATH.000007`.
fn with_number(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number:06}"));
    name.into()
}

fn retry(message: String) -> InsertError {
    InsertError::Retry(Refusal::without_code(message))
}

/// A disk or a permission does not mend itself: a person is told what to do.
fn refusal(what: &str, path: &Path, error: &std::io::Error) -> InsertError {
    let remedy = match error.kind() {
        ErrorKind::StorageFull => "; make room on its disk",
        ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => "; raise the limit, or make room",
        ErrorKind::NotFound => "; create the directory",
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            "; let the bridge write there"
        }
        ErrorKind::Interrupted | ErrorKind::WouldBlock => {
            return retry(format!("{what} {}: {error}", path.display()));
        }
        _ => "",
    };
    let message = format!("{what} {}: {error}{remedy}", path.display());
    InsertError::AwaitFix(Refusal::without_code(message))
}

#[cfg(test)]
mod tests;
