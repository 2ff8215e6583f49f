//! A WebSocket: texts in, to its session; out, what waits in its mailbox, many frames to a write.
//!
//! Owns the bounds on silence: a connection without a sign of life ends, and so does one that
//! takes nothing when it is to end. Reading and writing go on beside each other, so that neither
//! holds up the other.

use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket, WebSocketUpgrade, close_code};
use axum::response::Response;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::time::{Instant, interval_at, sleep, timeout};

use super::offers::Offers;
use super::refused;
use crate::config;
use crate::http::access::Pass;
use crate::http::server::Peer;
use crate::http::{HttpState, problem};
use crate::live::protocol::{Text, timestamp};
use crate::live::{End, Mailbox, Session};

/// What a client may name as its subprotocol, besides its token.
const PROTOCOL: &str = "data-bridge.v1";

/// Frames to a write.
const FRAMES: usize = 256;
/// Small: there are many connections, and most have little to say.
const READ_BUFFER_BYTES: usize = 16 * 1024;
const WRITE_BUFFER_BYTES: usize = 64 * 1024;

/// For what waits when the bridge stops, and for the word to who was too slow.
const FLUSH_WITHIN: Duration = Duration::from_secs(2);
const TELL_WITHIN: Duration = Duration::from_secs(1);
/// For the other side's farewell.
const PART_WITHIN: Duration = Duration::from_secs(1);

pub(super) async fn upgrade(
    State(state): State<HttpState>,
    Extension(Peer(address)): Extension<Peer>,
    Extension(pass): Extension<Pass>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    let upgrade = match upgrade {
        Ok(upgrade) => upgrade,
        Err(rejection) => return problem(rejection.status(), &rejection.body_text()),
    };
    let settings = state.live.settings().clone();
    let session = match state.live.connect(address) {
        Ok(session) => session,
        Err(refusal) => return refused(refusal),
    };
    upgrade
        .protocols([PROTOCOL])
        .max_message_size(settings.max_message)
        .max_frame_size(settings.max_message)
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(WRITE_BUFFER_BYTES)
        .on_upgrade(move |socket| converse(session, socket, Offers::new(&state), pass, settings))
}

/// Why a connection ends.
#[derive(Debug)]
enum Why {
    /// The other side has left.
    Left,
    Silent,
    TooLarge,
    Broken,
    /// The token that opened it is not in use any more.
    Revoked,
    Ended(End),
}

async fn converse(
    mut session: Session,
    socket: WebSocket,
    mut offers: Offers,
    mut pass: Pass,
    settings: config::Live,
) {
    let (mut sink, mut stream) = socket.split();
    let mailbox = session.mailbox();
    let why = tokio::select! {
        why = read(&mut session, &mut offers, &mut stream, settings.idle_timeout) => why,
        why = write(&mailbox, &mut sink, settings.ping_interval) => why,
        why = linger(&mailbox) => why,
        () = pass.revoked() => Why::Revoked,
    };
    tracing::debug!(client = &*mailbox.client_id(), ?why, "a live connection ended");
    part(why, sink, stream).await;
}

/// Until the other side leaves, or says nothing for too long.
async fn read(
    session: &mut Session,
    offers: &mut Offers,
    stream: &mut SplitStream<WebSocket>,
    idle: Duration,
) -> Why {
    let mailbox = session.mailbox();
    loop {
        let next = async {
            // Of who does not read our answers nothing is read either.
            mailbox.has_room().await;
            stream.next().await
        };
        match timeout(idle, next).await {
            Err(_) => return Why::Silent,
            Ok(None | Some(Ok(Message::Close(_)))) => return Why::Left,
            Ok(Some(Err(error))) => return broken(&error),
            Ok(Some(Ok(Message::Text(text)))) => {
                if let Some(offer) = session.hear(&text).await {
                    offers.hand_over(offer).await;
                }
            }
            Ok(Some(Ok(Message::Binary(_)))) => {
                session.refuse_frame("messages are JSON in text frames");
            }
            Ok(Some(Ok(Message::Ping(_) | Message::Pong(_)))) => {}
        }
    }
}

fn broken(error: &axum::Error) -> Why {
    // The library's error is behind two boxes; its text is what it promises.
    if error.to_string().contains("too long") { Why::TooLarge } else { Why::Broken }
}

/// Until nothing comes any more, or the connection breaks.
async fn write(
    mailbox: &Mailbox,
    sink: &mut SplitSink<WebSocket, Message>,
    ping_every: Duration,
) -> Why {
    let mut pings = interval_at(Instant::now() + ping_every, ping_every);
    let mut texts = Vec::with_capacity(FRAMES);
    loop {
        let ended = tokio::select! {
            next = mailbox.next(&mut texts, FRAMES, now) => next.err(),
            _ = pings.tick() => {
                if sink.send(Message::Ping(axum::body::Bytes::new())).await.is_err() {
                    return Why::Broken;
                }
                continue;
            }
        };
        for text in texts.drain(..) {
            if sink.feed(frame(&text)).await.is_err() {
                return Why::Broken;
            }
        }
        if sink.flush().await.is_err() {
            return Why::Broken;
        }
        if let Some(end) = ended {
            return Why::Ended(end);
        }
    }
}

fn frame(text: &Text) -> Message {
    let text = Utf8Bytes::try_from(text.bytes().clone());
    Message::Text(text.expect("it was a String"))
}

fn now() -> String {
    timestamp(jiff::Timestamp::now())
}

/// The bound on who takes nothing when it is to end.
async fn linger(mailbox: &Mailbox) -> Why {
    let end = mailbox.over().await;
    sleep(match end {
        End::SlowConsumer => TELL_WITHIN,
        End::Shutdown => FLUSH_WITHIN,
    })
    .await;
    Why::Ended(end)
}

/// Says farewell, and waits a moment for the other side's: else what is on its way could be lost.
async fn part(
    why: Why,
    mut sink: SplitSink<WebSocket, Message>,
    mut stream: SplitStream<WebSocket>,
) {
    let (code, reason) = match why {
        Why::Broken => return,
        Why::Left => return answer_farewell(sink).await,
        Why::Silent => (close_code::POLICY, "no sign of life"),
        Why::TooLarge => (close_code::SIZE, "a message is too large (live.max_message)"),
        Why::Revoked => (close_code::POLICY, "the token has changed"),
        Why::Ended(End::SlowConsumer) => (close_code::POLICY, "SLOW_CONSUMER"),
        Why::Ended(End::Shutdown) => (close_code::AWAY, "the bridge stops"),
    };
    let farewell = CloseFrame { code, reason: Utf8Bytes::from_static(reason) };
    let parting = async {
        if sink.send(Message::Close(Some(farewell))).await.is_ok() {
            while let Some(Ok(_)) = stream.next().await {}
        }
    };
    if timeout(PART_WITHIN, parting).await.is_err() {
        tracing::debug!("a live connection did not say farewell");
    }
}

/// The library has made the answer to the other side's farewell; it goes out with the next write.
async fn answer_farewell(mut sink: SplitSink<WebSocket, Message>) {
    if !matches!(timeout(PART_WITHIN, sink.flush()).await, Ok(Ok(()))) {
        tracing::debug!("a live connection did not wait for the answer to its farewell");
    }
}
