//! `data-bridge dead-letters list`: reasons with counts, and the newest letters. Of a payload
//! nothing is shown unless it is asked for: terminals and logs are read by many.

use serde_json::{Value as Json, json};

use super::{Kept, LIST_WITHIN, Which, shown};
use crate::cli::table::one_line;
use crate::cli::{Failure, block_on, print, table};
use crate::config::Config;
use crate::dead_letter::letter::DeadLetter;
use crate::dead_letter::store::{LetterStore as _, Listing};
use crate::thousands::{counted, thousands};

/// Characters of an error and of a payload that a line bears.
const ERROR_CHARS: usize = 200;
const PAYLOAD_CHARS: usize = 400;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  data-bridge dead-letters list                          what waits to be replayed, and why
  data-bridge dead-letters list --route ticks --since 2h --payload
  data-bridge dead-letters list --all --json | jq .reasons")]
pub(super) struct Args {
    #[command(flatten)]
    which: Which,

    /// Those that were replayed, instead of those that were not
    #[arg(long, conflicts_with = "all")]
    replayed: bool,

    /// Whether they were replayed or not
    #[arg(long)]
    all: bool,

    /// How many of the newest to show one by one
    #[arg(long, value_name = "N", default_value_t = 10)]
    limit: u16,

    /// Show the beginning of each payload
    #[arg(long)]
    payload: bool,

    /// For machines
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args, config: &Config) -> Result<(), Failure> {
    let filter = args.which.filter((!args.all).then_some(args.replayed));
    let newest = usize::from(args.limit);
    let listing = block_on(async {
        let listing = async {
            match Kept::open(config).await? {
                Kept::Table(letters) => letters.list(&filter, newest).await,
                Kept::Log(letters) => letters.list(&filter, newest).await,
            }
        };
        tokio::time::timeout(LIST_WITHIN, listing)
            .await
            .unwrap_or_else(|_| anyhow::bail!("no answer within {LIST_WITHIN:?}"))
    })?;
    let place = config.dead_letters.place();
    if args.json {
        return print(&format!("{}\n", machine(&place, &listing, args.payload)));
    }
    let what = match (args.all, args.replayed) {
        (true, _) => "",
        (_, true) => ", replayed",
        _ => ", not replayed",
    };
    print(&human(&place, what, &listing, args.payload))
}

fn machine(place: &str, listing: &Listing, payload: bool) -> Json {
    let time = |time| json!(shown(time));
    let reasons = listing.groups.iter().map(|((route, reason), group)| {
        json!({
            "route": route, "reason": reason, "count": group.count,
            "oldest": time(group.oldest), "newest": time(group.newest), "example": group.example,
        })
    });
    let letters = listing.letters.iter().map(|letter| {
        let mut json = serde_json::to_value(letter).expect("texts and numbers");
        if !payload {
            let object = json.as_object_mut().expect("a letter is an object");
            for key in ["payload", "payload_encoding", "key", "key_encoding", "headers"] {
                object.remove(key);
            }
            object.insert("payload_bytes".to_owned(), json!(letter.payload.len()));
        }
        json
    });
    json!({
        "place": place,
        "count": listing.groups.values().map(|group| group.count).sum::<u64>(),
        "reasons": reasons.collect::<Vec<_>>(),
        "letters": letters.collect::<Vec<_>>(),
        "unreadable_lines": listing.unreadable,
    })
}

fn human(place: &str, what: &str, listing: &Listing, payload: bool) -> String {
    let count: u64 = listing.groups.values().map(|group| group.count).sum();
    let mut text = format!("{place}: {}{what}\n", counted(count, "dead letter"));
    if listing.unreadable > 0 {
        let lines = counted(listing.unreadable, "other line");
        text.push_str(&format!("{lines} there, left alone\n"));
    }
    if count == 0 {
        return text;
    }
    let mut reasons = table::table();
    reasons.set_header(["COUNT", "ROUTE", "REASON", "NEWEST", "FOR EXAMPLE"]);
    let mut groups: Vec<_> = listing.groups.iter().collect();
    groups.sort_by_key(|(_, group)| std::cmp::Reverse(group.count));
    for ((route, reason), group) in groups {
        let example = one_line(&group.example, ERROR_CHARS);
        let newest = shown(group.newest);
        reasons.add_row([thousands(group.count).as_str(), route, reason, &newest, &example]);
    }
    text.push_str(&format!("\n{}\n", table::shown(reasons)));
    if !listing.letters.is_empty() {
        text.push_str("\nThe newest:\n");
    }
    for letter in &listing.letters {
        text.push_str(&one(letter, payload));
    }
    text
}

fn one(letter: &DeadLetter, payload: bool) -> String {
    let place = match letter.partition.zip(letter.offset) {
        Some((partition, offset)) => {
            format!("{} {partition}:{offset}", letter.topic_or_subject)
        }
        None => letter.topic_or_subject.clone(),
    };
    let replayed = letter.replayed_at.map(|at| format!(" (replayed {})", shown(at)));
    let mut text = format!(
        "  {} {} {} {}{}\n    {}\n",
        shown(letter.time),
        letter.reason,
        place,
        letter.id,
        replayed.unwrap_or_default(),
        one_line(&letter.error, ERROR_CHARS),
    );
    if payload {
        let preview = String::from_utf8_lossy(&letter.payload);
        let preview = one_line(&preview, PAYLOAD_CHARS);
        text.push_str(&format!("    {} bytes: {preview}\n", letter.payload.len()));
    }
    text
}
