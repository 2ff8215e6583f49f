//! What commands say, on stdout and beside it. The one place that writes there, but for pictures and
//! bars, so that a rule holds that is stated once: **what strangers wrote cannot write on the terminal.**
//! A subject of NATS may hold escape sequences, and so may a payload, an error that quotes it, and the
//! answer of whoever listens at an address.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{self, Write};

use super::Failure;

/// What a command says. A reader that went away (`| head`) is no failure.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    match write(&harmless(text)) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::other(format!("cannot write to stdout: {error}")))
        }
        _ => Ok(()),
    }
}

/// What it says beside that: a line on stderr.
pub(super) fn note(text: &str) {
    let line = harmless(text).into_owned() + "\n";
    // nobody is left to tell that stderr is closed
    drop(io::stderr().lock().write_all(line.as_bytes()));
}

/// On stdout, at once; exactly this.
pub(super) fn write(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Lines in which each control character stands as JSON escapes it: nothing moves a cursor, and JSON
/// means what it meant. There a CR can only be a blank, so it becomes one.
pub(super) fn harmless(text: &str) -> Cow<'_, str> {
    let is_harmful = |c: char| c.is_control() && !matches!(c, '\n' | '\t');
    if !text.contains(is_harmful) {
        return text.into();
    }
    let mut clean = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if c == '\r' {
            clean.push(' ');
        } else if is_harmful(c) {
            write!(clean, "\\u{:04x}", u32::from(c)).expect("a String takes everything");
        } else {
            clean.push(c);
        }
    }
    clean.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_strangers_wrote_cannot_write_on_the_terminal() {
        let evil = "a\u{1b}]52;c;aGk=\u{7}\u{9b}2J\rb\u{7f}\n\tc\n";
        let shown = "a\\u001b]52;c;aGk=\\u0007\\u009b2J b\\u007f\n\tc\n";
        assert_eq!(harmless(evil), shown);
        assert!(matches!(harmless("é…\n"), Cow::Borrowed("é…\n")));
    }

    #[test]
    fn json_means_what_it_meant() {
        let said = serde_json::json!({ "payload": "\u{9b}2J\u{1b}\u{7f}\n" });
        let text = format!("\t{{\"of\":\r{said}}}");
        let text = harmless(text.trim_start()).into_owned();
        assert!(!text.contains(char::is_control), "{text}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap()["of"], said);
    }
}
