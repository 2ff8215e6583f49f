//! Secrets: given as `X`, or in a file as `X_file`; held so that nothing prints them.

use std::path::{Path, PathBuf};

use secrecy::SecretString;

use super::problem::Problems;
use super::units::Secret;

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
            problems.text(&format!("{key}_file"), &file.to_string_lossy(), text);
            None
        }
    }
}

/// The content of a secret's file, without the newline that editors put at its end.
pub(super) fn read(key: &str, file: &Path, problems: &mut Problems) -> Option<String> {
    let shown = file.to_string_lossy();
    match std::fs::read_to_string(file) {
        Err(error) => {
            problems.text(key, &shown, format!("the file cannot be read: {error}"));
            None
        }
        Ok(text) => {
            let secret = text.trim_end_matches(['\r', '\n']);
            if secret.is_empty() {
                problems.text(key, &shown, "the file is empty; put the secret in it");
                return None;
            }
            Some(secret.to_owned())
        }
    }
}

/// Whether a file that a client will open is there.
pub(super) fn exists(key: &str, file: Option<&PathBuf>, problems: &mut Problems) {
    let Some(file) = file else { return };
    if let Err(error) = std::fs::File::open(file) {
        let text = format!("the file cannot be read: {error}");
        problems.text(key, &file.to_string_lossy(), text);
    }
}
