//! An error in one line: what it says, and what its causes say that is not said yet. Clients put
//! the words of a cause into its effect as often as not.

use std::error::Error;

/// The whole chain, each thing once.
#[must_use]
pub fn causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let words = cause.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_cause_repeats_is_said_once() {
        let error = anyhow::anyhow!("refused").context("connecting: refused").context("no answer");
        assert_eq!(causes(&*error), "no answer: connecting: refused");
    }
}
