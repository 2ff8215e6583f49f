//! Secrets: given as `X`, or in a file as `X_file`; held so that nothing prints them.

use std::path::{Path, PathBuf};

use secrecy::SecretString;

use super::problem::Problems;
use super::units::{HIDDEN, Secret};

/// The secret of `key`, from wherever it was given; None if it was not, or if that is wrong.
pub(super) fn of(
    key: &str,
    secret: Option<&Secret>,
    file: Option<&PathBuf>,
    problems: &mut Problems,
) -> Option<SecretString> {
    match (secret, file) {
        (None, None) => None,
        (Some(secret), None) => Some(secret.0.clone()),
        (None, Some(file)) => read(&format!("{key}_file"), file, problems).map(Into::into),
        (Some(_), Some(file)) => {
            let name = key.rsplit('.').next().unwrap_or(key);
            let text = format!("give {name} or {name}_file, not both");
            problems.push(&format!("{key}_file"), shown(file), text);
            None
        }
    }
}

/// The content of a secret's file, without the newline that editors put at its end.
pub(super) fn read(key: &str, file: &Path, problems: &mut Problems) -> Option<String> {
    let found = content(file);
    found.map_err(|why| problems.push(key, shown(file), why)).ok()
}

/// The secret in a file, or what is wrong with the file.
///
/// # Errors
///
/// When it cannot be read, or is empty.
pub fn read_secret(file: &Path) -> Result<SecretString, String> {
    content(file).map(Into::into).map_err(|why| format!("{}: {why}", file.display()))
}

fn content(file: &Path) -> Result<String, String> {
    let text = std::fs::read_to_string(file).map_err(|error| unreadable(&error))?;
    let secret = text.trim_end_matches(['\r', '\n']);
    if secret.is_empty() {
        return Err("the file is empty; put the secret in it".to_owned());
    }
    Ok(secret.to_owned())
}

/// Whether a file that a client will open is there.
pub(super) fn exists(key: &str, file: Option<&PathBuf>, problems: &mut Problems) {
    let Some(file) = file else { return };
    if let Err(error) = std::fs::File::open(file) {
        problems.push(key, shown(file), unreadable(&error));
    }
}

fn unreadable(error: &std::io::Error) -> String {
    format!("the file cannot be read: {error}; give the path of a file that holds it")
}

/// A path as a message shows it. Who takes a key for another writes the secret itself where its
/// file belongs: what does not look like a path is not shown.
pub(super) fn shown(file: &Path) -> String {
    let text = file.to_string_lossy();
    let is_path = text.contains(['/', '.']) && !text.contains(char::is_whitespace);
    if is_path { format!("{text:?}") } else { HIDDEN.to_owned() }
}
