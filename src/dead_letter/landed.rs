//! Which letters of a batch their destination has acknowledged already.
//!
//! A batch of letters is published one by one. If some are refused, the next attempt sends only
//! those: one letter that is too large must not make its neighbours come again and again. And it
//! sends them alone, one after the other, because a client may put several into one request, which
//! is refused as a whole.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio::time::Instant;

use crate::sink::{Insert, InsertError, Refusal};

/// After this an attempt begins with no further letter: the pipeline counts an attempt that takes
/// a minute as wedged, and what has landed is not lost.
const BEGIN_WITHIN: Duration = Duration::from_secs(20);

/// By the token of the batch; only of batches that are not whole yet.
#[derive(Debug, Default)]
pub(super) struct Landed(Mutex<HashMap<String, BTreeSet<usize>>>);

impl Landed {
    /// Publishes the letters that are not there yet, `at_a_time` of them; Ok when all are.
    pub(super) async fn publish<F>(
        &self,
        insert: &Insert,
        at_a_time: usize,
        publish: impl Fn(Bytes) -> F,
    ) -> Result<(), InsertError>
    where
        F: Future<Output = Result<(), InsertError>>,
    {
        let before = self.batches().get(&insert.token).cloned();
        let at_a_time = if before.is_some() { 1 } else { at_a_time };
        let mut landed = before.unwrap_or_default();
        let missing: Vec<(usize, Bytes)> =
            lines(&insert.body).enumerate().filter(|(index, _)| !landed.contains(index)).collect();
        let until = Instant::now() + BEGIN_WITHIN;
        let stop = AtomicBool::new(false);
        let publishing = missing.into_iter().map(|(index, line)| {
            let published =
                (!stop.load(Ordering::Relaxed) && Instant::now() < until).then(|| publish(line));
            async move {
                let result = match published {
                    Some(published) => published.await,
                    None => Err(not_begun()),
                };
                (index, result)
            }
        });
        let mut results = futures_util::stream::iter(publishing).buffer_unordered(at_a_time);
        let mut refusal: Option<InsertError> = None;
        while let Some((index, result)) = results.next().await {
            match (result, &refusal) {
                (Ok(()), _) => {
                    landed.insert(index);
                }
                // What needs a person is said rather than what passes by itself.
                (Err(InsertError::AwaitFix(why)), None | Some(InsertError::Retry(_))) => {
                    refusal = Some(InsertError::AwaitFix(why));
                }
                (Err(error), known) => {
                    // A server that is away would keep every one of a thousand waiting.
                    stop.fetch_or(matches!(error, InsertError::Retry(_)), Ordering::Relaxed);
                    if known.is_none() {
                        refusal = Some(error);
                    }
                }
            }
        }
        match refusal {
            None => {
                self.batches().remove(&insert.token);
                Ok(())
            }
            Some(refusal) => {
                self.batches().insert(insert.token.clone(), landed);
                Err(refusal)
            }
        }
    }

    fn batches(&self) -> MutexGuard<'_, HashMap<String, BTreeSet<usize>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn not_begun() -> InsertError {
    let message = "some dead letters of the batch are to be published yet".to_owned();
    InsertError::Retry(Refusal::without_code(message))
}

/// The lines of a body, which share its memory.
fn lines(body: &Bytes) -> impl Iterator<Item = Bytes> {
    let lines = body.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
    lines.map(|line| body.slice_ref(line))
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::sink::AfterRestart;

    #[tokio::test]
    async fn only_what_was_refused_is_sent_again() {
        let (landed, sent) = (Landed::default(), Mutex::new(Vec::new()));
        let insert = Insert {
            table: "topic x".into(),
            format: "JSONEachRow",
            columns: Vec::new(),
            body: Bytes::from_static(b"a\nlarge\nb\n"),
            token: "t".into(),
            after_restart: AfterRestart::OtherToken,
            rows: 3,
        };
        let refused = |text: &str| Refusal::without_code(text.to_owned());
        let attempt = async |mended: bool| {
            let publish = |line: Bytes| {
                sent.lock().unwrap().push(line.clone());
                let result = match &line[..] {
                    b"large" if !mended => Err(InsertError::AwaitFix(refused("too large"))),
                    b"b" if !mended => Err(InsertError::Retry(refused("timed out"))),
                    _ => Ok(()),
                };
                async move { result }
            };
            landed.publish(&insert, 2, publish).await
        };
        let first = attempt(false).await;
        assert_eq!(first, Err(InsertError::AwaitFix(refused("too large"))));
        assert_eq!(std::mem::take(&mut *sent.lock().unwrap()), ["a", "large", "b"]);
        attempt(true).await.unwrap();
        assert_eq!(std::mem::take(&mut *sent.lock().unwrap()), ["large", "b"]);
        assert!(landed.batches().is_empty(), "nothing is remembered of what is whole");
    }
}
