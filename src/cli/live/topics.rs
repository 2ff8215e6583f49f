//! `data-bridge live topics`, `create` and `delete`: the topics of a bridge, over plain HTTP.

use std::collections::BTreeMap;

use axum::http::Method;
use serde::Deserialize;
use serde_json::json;

use super::{Bridge, Trouble, note, print};
use crate::cli::bridge::strange;
use crate::cli::table;
use crate::thousands::thousands;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// What `/stats` says, for machines
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct Name {
    /// The topic's name
    #[arg(value_name = "TOPIC")]
    topic: String,
}

/// What `/stats` says, as far as it is shown.
#[derive(Debug, Deserialize)]
struct Stats {
    topics: BTreeMap<String, Topic>,
    totals: Totals,
}

#[derive(Debug, Deserialize)]
struct Topic {
    kind: String,
    messages: u64,
    rate: f64,
    subscribers: u64,
    replay_depth: u64,
    dropped: u64,
    overrun: u64,
}

#[derive(Debug, Deserialize)]
struct Totals {
    connections: u64,
    subscribers: u64,
    rate: f64,
}

pub(super) async fn list(bridge: &Bridge, args: &Args) -> Result<(), Trouble> {
    let body = bridge.done(Method::GET, "/stats", "").await?;
    if args.json {
        return print(&format!("{}\n", String::from_utf8_lossy(&body)));
    }
    print(&shown(&body)?)
}

/// `/stats` as a table.
pub(super) fn shown(body: &[u8]) -> Result<String, Trouble> {
    let stats: Stats = serde_json::from_slice(body)
        .map_err(|_| Trouble::Refused(strange(axum::http::StatusCode::OK, body)))?;
    let mut rows = table::table();
    let titles = ["TOPIC", "KIND", "MESSAGES", "RATE/S", "SUBSCRIBERS", "REPLAY", "LOST"];
    rows.set_header(titles);
    for (name, topic) in &stats.topics {
        rows.add_row([
            name.clone(),
            topic.kind.clone(),
            thousands(topic.messages),
            format!("{:.1}", topic.rate),
            thousands(topic.subscribers),
            thousands(topic.replay_depth),
            thousands(topic.dropped + topic.overrun),
        ]);
    }
    let Totals { connections, subscribers, rate } = stats.totals;
    let all = format!(
        "{} connections, {} subscriptions, {rate:.1} messages a second",
        thousands(connections),
        thousands(subscribers)
    );
    Ok(format!("{}\n\n{all}\n", table::shown(rows)))
}

pub(super) async fn create(bridge: &Bridge, name: &Name) -> Result<(), Trouble> {
    make(bridge, &name.topic).await?;
    note(&format!("there is a topic {}", name.topic));
    Ok(())
}

/// Makes a topic, if it is not there.
pub(super) async fn make(bridge: &Bridge, topic: &str) -> Result<(), Trouble> {
    let body = json!({ "name": topic }).to_string();
    bridge.done(Method::POST, "/topics", body).await.map(drop)
}

pub(super) async fn delete(bridge: &Bridge, name: &Name) -> Result<(), Trouble> {
    bridge.done(Method::DELETE, &path(&name.topic, ""), "").await?;
    note(&format!("{} is deleted", name.topic));
    Ok(())
}

/// A topic's path, and what is below it: a name is one segment there.
pub(super) fn path(topic: &str, below: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.:@+=".contains(&byte);
    let mut name = String::with_capacity(topic.len());
    for byte in topic.bytes() {
        if plain(byte) {
            name.push(char::from(byte));
        } else {
            name.push_str(&format!("%{byte:02X}"));
        }
    }
    format!("/topics/{name}{below}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_segment_of_the_path() {
        assert_eq!(path("a/b c:1", "/messages"), "/topics/a%2Fb%20c:1/messages");
        assert_eq!(path("é?", ""), "/topics/%C3%A9%3F");
    }

    #[test]
    fn topics_are_a_table() {
        let body = br#"{"topics":{"desk":{"kind":"user","messages":1200,"rate":3.25,
            "subscribers":2,"replay_depth":100,"dropped":7,"overrun":1}},
            "totals":{"connections":3,"subscribers":2,"rate":3.25,"topics":1}}"#;
        let text = shown(body).unwrap();
        let row = text.lines().nth(1).unwrap();
        let cells: Vec<&str> = row.split_whitespace().collect();
        assert_eq!(cells, ["desk", "user", "1,200", "3.2", "2", "100", "8"]);
        assert!(text.ends_with("\n\n3 connections, 2 subscriptions, 3.2 messages a second\n"));
        assert!(shown(b"<html>").is_err());
    }
}
