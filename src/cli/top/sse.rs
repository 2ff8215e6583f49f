//! Server-sent events out of the pieces in which they arrive. Pure.

use anyhow::bail;

/// Far above any honest event: ten minutes of looks, thousands of subjects.
const MAX_BYTES: usize = 8 * 1024 * 1024;

/// What ends an event.
const END: &[u8] = b"\n\n";

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Event {
    pub(super) name: String,
    pub(super) data: String,
}

/// What has arrived of a stream, and was not asked for yet.
#[derive(Debug, Default)]
pub(super) struct Events {
    bytes: Vec<u8>,
    /// So far no event ends.
    searched: usize,
}

impl Events {
    /// # Errors
    /// When an event does not end: this is no bridge.
    pub(super) fn take_in(&mut self, piece: &[u8]) -> anyhow::Result<()> {
        self.bytes.extend_from_slice(piece);
        if self.bytes.len() > MAX_BYTES {
            bail!("an event without an end: this is not the stream of a data-bridge");
        }
        Ok(())
    }

    /// The next one, when it is whole.
    pub(super) fn next(&mut self) -> Option<Event> {
        loop {
            let rest = &self.bytes[self.searched..];
            let Some(at) = rest.windows(END.len()).position(|window| window == END) else {
                // an end may lie across two pieces
                self.searched = self.bytes.len().saturating_sub(END.len() - 1);
                return None;
            };
            let whole: Vec<u8> = self.bytes.drain(..self.searched + at + END.len()).collect();
            self.searched = 0;
            // comments keep a connection alive, and say nothing
            if let Some(event) = parsed(&String::from_utf8_lossy(&whole)) {
                return Some(event);
            }
        }
    }
}

fn parsed(text: &str) -> Option<Event> {
    let field = |name: &str| {
        let lines = text.lines().filter_map(move |line| line.strip_prefix(name)?.strip_prefix(':'));
        let values = lines.map(|value| value.strip_prefix(' ').unwrap_or(value));
        values.collect::<Vec<_>>().join("\n")
    };
    let data = field("data");
    (!data.is_empty()).then(|| Event { name: field("event"), data })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(name: &str, data: &str) -> Event {
        Event { name: name.to_owned(), data: data.to_owned() }
    }

    #[test]
    fn events_are_the_same_however_their_bytes_are_cut() {
        let text = ": alive\n\nevent: status\nretry: 1000\ndata: {\"a\": 1}\n\nevent:b\ndata:x\ndata:y\n\n";
        for size in 1..text.len() {
            let mut events = Events::default();
            let mut found = Vec::new();
            for piece in text.as_bytes().chunks(size) {
                events.take_in(piece).unwrap();
                found.extend(std::iter::from_fn(|| events.next()));
            }
            assert_eq!(found, [event("status", "{\"a\": 1}"), event("b", "x\ny")], "{size}");
        }
    }

    #[test]
    fn a_stream_without_an_end_is_given_up() {
        let mut events = Events::default();
        let piece = vec![b'x'; MAX_BYTES];
        events.take_in(&piece).unwrap();
        assert_eq!(events.next(), None);
        assert!(events.take_in(b"x").is_err());
    }
}
