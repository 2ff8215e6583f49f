//! What the writer of an unknown key may have meant.

use serde_json::Value as Json;

use super::problem::join;
use super::schema;

/// In words: the nearest key of the same table, else the same key elsewhere, else all there are.
pub(super) fn key(root: &Json, table: &Json, key: &str) -> String {
    if let Some(near) = nearest(schema::keys(table), key) {
        return format!("did you mean `{near}`?");
    }
    let mut elsewhere = Vec::new();
    find(root, "", &key.to_lowercase().replace('-', "_"), &mut elsewhere);
    if let [only] = elsewhere.as_slice() {
        return format!("did you mean `{only}`?");
    }
    let known: Vec<_> = schema::keys(table).collect();
    if known.is_empty() { "a name is missing".to_owned() } else { known_here(&known) }
}

fn known_here(known: &[&str]) -> String {
    format!("known here: {}", known.join(", "))
}

/// The candidate that differs by a slip of the pen, if there is one.
pub(super) fn nearest<'a>(candidates: impl Iterator<Item = &'a str>, key: &str) -> Option<&'a str> {
    let key = key.to_lowercase().replace('-', "_");
    let distance = |candidate: &str| {
        // `topics` for `kafka_topics`: a word left out counts as one slip
        let part = key.len() >= 4 && (candidate.contains(&key) || key.contains(candidate));
        if part { 1 } else { strsim::damerau_levenshtein(candidate, &key) }
    };
    candidates
        .map(|candidate| (distance(candidate), candidate))
        .filter(|&(distance, candidate)| distance <= (candidate.len() / 3).max(1))
        .min()
        .map(|(_, candidate)| candidate)
}

/// The paths of all keys of this name.
fn find(table: &Json, path: &str, key: &str, found: &mut Vec<String>) {
    for name in schema::keys(table) {
        let path = join(path, name);
        if name == key {
            found.push(path.clone());
        }
        if let Some(inner) = schema::property(table, name) {
            find(inner, &path, key, found);
        }
    }
}

/// Whether the value of an unknown key may be a secret, by its name.
pub(super) fn looks_secret(key: &str) -> bool {
    let key = key.to_lowercase();
    let words = ["pass", "pwd", "secret", "token", "cred", "key", "pem", "seed"];
    words.iter().any(|word| key.contains(word))
}
