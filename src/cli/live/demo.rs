//! `data-bridge live demo`: a slow consumer beside one that keeps up, on a topic of their own. Shows
//! second by second what waits and what is lost, and that in the end everything is accounted for.

use std::cell::Cell;
use std::time::Duration;

use axum::http::Method;
use serde_json::{Value as Json, json};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::show::Told;
use super::socket::Socket;
use super::watch::NARROW_BYTES;
use super::{Bridge, Trouble, print, publish, topics};
use crate::thousands::thousands;

/// What each message weighs beside its number: what is on the way holds few of them, so that a slow
/// reader shows soon.
const FILL_BYTES: usize = 4_000;

/// After so long a silence nothing more is under way.
const SETTLED: Duration = Duration::from_secs(2);

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Messages published a second
    #[arg(long, value_name = "N", default_value_t = 400,
        value_parser = clap::value_parser!(u32).range(1..=2_000))]
    rate: u32,

    /// Messages a second that the slow consumer reads
    #[arg(long, value_name = "N", default_value_t = 20,
        value_parser = clap::value_parser!(u32).range(1..))]
    reads: u32,

    /// For so many seconds
    #[arg(long, value_name = "N", default_value_t = 5,
        value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: u32,

    /// What gives: drop_oldest, drop_newest or disconnect
    #[arg(long, value_name = "POLICY", default_value = "drop_oldest")]
    policy: String,

    /// Messages that may wait for the slow consumer
    #[arg(long, value_name = "N", default_value_t = 50)]
    queue_size: usize,
}

/// How far everybody is.
#[derive(Default)]
struct Course {
    published: Cell<u64>,
    /// Nothing more comes.
    ended: Cell<bool>,
    fast: Cell<u64>,
    slow: Cell<u64>,
    /// What the slow one was told that it lost.
    told: Cell<u64>,
    /// The slow one was cut off.
    cut: Cell<bool>,
    /// And told so; the word comes behind all that it had not read, and may never be read either.
    heard_why: Cell<bool>,
}

pub(super) async fn run(
    bridge: &Bridge,
    args: &Args,
    stop: &CancellationToken,
) -> Result<(), Trouble> {
    let topic = format!("demo-{:08x}", rand::random::<u32>());
    topics::make(bridge, &topic).await?;
    let shown = tokio::select! {
        shown = show(bridge, args, &topic) => shown,
        () = stop.cancelled() => Ok(()),
    };
    // It may be gone already; then there is nothing to be done.
    drop(bridge.done(Method::DELETE, &topics::path(&topic, ""), "").await);
    shown
}

async fn show(bridge: &Bridge, args: &Args, topic: &str) -> Result<(), Trouble> {
    let wish = json!({ "type": "subscribe", "topic": topic, "client_id": slow_id(topic),
        "queue_size": args.queue_size, "policy": args.policy });
    let slow = subscribed(Socket::connect(bridge, Some(NARROW_BYTES)).await?, &wish).await?;
    let wish = json!({ "type": "subscribe", "topic": topic, "client_id": format!("{topic}-fast") });
    let fast = subscribed(Socket::connect(bridge, None).await?, &wish).await?;
    let publisher = Socket::connect(bridge, None).await?;
    print(&format!(
        "{} messages a second to {topic}; one consumer keeps up, one reads {} a second and has a queue \
         of {}, {}\n\n{:>6}{:>11}{:>9}{:>9}{:>9}{:>9}\n",
        args.rate,
        args.reads,
        args.queue_size,
        args.policy,
        "SECOND",
        "PUBLISHED",
        "FAST",
        "SLOW",
        "WAIT",
        "LOST",
    ))?;
    let course = Course::default();
    let all = async {
        tokio::try_join!(
            publish(publisher, topic, args, &course),
            keep_up(fast, args, &course),
            lag_behind(slow, bridge, topic, args, &course),
        )
    };
    tokio::select! {
        done = all => done.map(drop)?,
        failed = report(bridge, topic, &course) => failed?,
    }
    conclude(&course)
}

/// Nobody else is called so.
fn slow_id(topic: &str) -> String {
    format!("{topic}-slow")
}

async fn subscribed(mut socket: Socket, wish: &Json) -> Result<Socket, Trouble> {
    socket.say(wish).await?;
    let answer = socket.hear().await?;
    match Told::read(&answer).and_then(|told| told.refusal()) {
        Some(refusal) => Err(Trouble::Refused(refusal)),
        None => Ok(socket),
    }
}

async fn publish(
    mut socket: Socket,
    topic: &str,
    args: &Args,
    course: &Course,
) -> Result<(), Trouble> {
    let mut ticks = interval(Duration::from_secs(1) / args.rate);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let payload = json!({ "fill": "x".repeat(FILL_BYTES) }).to_string();
    for _ in 0..u64::from(args.rate) * u64::from(args.seconds) {
        ticks.tick().await;
        socket.say(&publish::ask(topic, &payload)).await?;
        let answer = socket.hear().await?;
        if let Some(refusal) = Told::read(&answer).and_then(|told| told.refusal()) {
            return Err(Trouble::Refused(refusal));
        }
        course.published.set(course.published.get() + 1);
    }
    course.ended.set(true);
    socket.part().await;
    Ok(())
}

async fn keep_up(mut socket: Socket, args: &Args, course: &Course) -> Result<(), Trouble> {
    while course.fast.get() < u64::from(args.rate) * u64::from(args.seconds) {
        let text = socket.hear().await?;
        if Told::read(&text).is_some_and(|told| told.is_event()) {
            course.fast.set(course.fast.get() + 1);
        }
    }
    socket.part().await;
    Ok(())
}

/// Reads slowly while there is something to fall behind of, then whatever is left; then the topic is
/// deleted, and with the word of it comes what was lost last.
async fn lag_behind(
    mut socket: Socket,
    bridge: &Bridge,
    topic: &str,
    args: &Args,
    course: &Course,
) -> Result<(), Trouble> {
    loop {
        let text = match timeout(SETTLED, socket.hear()).await {
            Ok(Ok(text)) => text,
            Ok(Err(Trouble::Away(_))) if course.cut.get() || args.policy == "disconnect" => {
                course.cut.set(true);
                return Ok(());
            }
            Ok(Err(trouble)) => return Err(trouble),
            Err(_) if course.ended.get() => {
                bridge.done(Method::DELETE, &topics::path(topic, ""), "").await?;
                continue;
            }
            Err(_) => continue,
        };
        let Some(told) = Told::read(&text) else { continue };
        if told.is_event() {
            course.slow.set(course.slow.get() + 1);
            if !course.ended.get() {
                sleep(Duration::from_secs(1) / args.reads).await;
            }
        }
        course.told.set(course.told.get() + told.dropped);
        if told.refusal().is_some() {
            course.cut.set(true);
            course.heard_why.set(true);
        }
        if told.event.as_deref() == Some("topic_deleted") {
            break;
        }
    }
    socket.part().await;
    Ok(())
}

/// A line a second; ends only when it fails.
async fn report(bridge: &Bridge, topic: &str, course: &Course) -> Result<(), Trouble> {
    let mut second: u64 = 0;
    loop {
        sleep(Duration::from_secs(1)).await;
        second += 1;
        let stats = bridge.done(Method::GET, "/subscriber-stats", "").await?;
        let stats: Json = serde_json::from_slice(&stats).unwrap_or_default();
        let queue = &stats[format!("{topic}/{}", slow_id(topic))];
        let counted = |key: &str| queue[key].as_u64().map_or("-".to_owned(), thousands);
        print(&format!(
            "{second:>6}{:>11}{:>9}{:>9}{:>9}{:>9}\n",
            thousands(course.published.get()),
            thousands(course.fast.get()),
            thousands(course.slow.get()),
            counted("queue_size"),
            counted("dropped"),
        ))?;
    }
}

/// Everything that was published was seen, or its loss was told.
fn conclude(course: &Course) -> Result<(), Trouble> {
    let [published, fast, slow, told] =
        [&course.published, &course.fast, &course.slow, &course.told].map(Cell::get);
    let end = match (course.cut.get(), course.heard_why.get()) {
        (true, true) => "then it was told SLOW_CONSUMER, and cut off".to_owned(),
        (true, false) => "then it was cut off, before it had read why".to_owned(),
        (false, _) => format!("and was told of {} that it lost", thousands(told)),
    };
    print(&format!(
        "\n{} published; the fast one saw {}, the slow one {}, {end}\n",
        thousands(published),
        thousands(fast),
        thousands(slow),
    ))?;
    if fast != published || !course.cut.get() && slow + told != published {
        return Err(Trouble::Refused("this does not add up: messages were lost unsaid".to_owned()));
    }
    Ok(())
}
