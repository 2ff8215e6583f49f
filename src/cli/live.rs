//! `data-bridge live`: the live feed of a running bridge in the terminal.
//!
//! Owns the arguments, and whom they mean; each thing that can be asked for has a file.

mod demo;
mod link;
mod prompt;
mod publish;
mod resume;
mod show;
mod socket;
mod topics;
mod watch;

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Method, Request, StatusCode, header};
use rustls::ClientConfig;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::terminal::note;
use super::{Failure, bridge, terminal};
use crate::config;

/// For the bridge to answer a question, or to take a message.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// The same of what is published durably to a bridge whose configuration we have not
/// (`live.publish.durable_timeout`).
const DURABLE_WITHIN: Duration = Duration::from_secs(300);

/// The live feed of a running bridge; without a command, a prompt that knows them all
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  data-bridge live                                   a prompt: subscribe, publish, replay, ping
  data-bridge live watch candles --last 10           a topic, after the ten messages before
  data-bridge live watch 'candles/*' --json | jq .message.payload
  data-bridge live topics                            what there is, how much comes, who listens
  data-bridge live publish desk '{\"a\": 1}'
  data-bridge live publish orders --durable < orders.ndjson
  data-bridge live demo                              what a slow consumer loses, and is told
  data-bridge live --url https://bridge:8443 --token-file token watch candles

Which bridge, and its token, are those of the configuration, unless --url and --token-file say
otherwise.

Exit codes: 0 done, or left by Ctrl-C; 64 wrong usage or configuration; 69 the bridge cannot be reached;
1 it refuses: the token, a topic that is not there, a message; or `publish` was left before its end.")]
pub(super) struct Args {
    #[command(flatten)]
    bridge: bridge::Which,

    /// The bridge's token, in a file [default: http.token of the configuration; none with --url]
    #[arg(long, value_name = "PATH")]
    token_file: Option<PathBuf>,

    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Show what comes on topics, until Ctrl-C
    Watch(watch::Args),
    /// Publish messages: those that are named, or one on each line of stdin
    Publish(publish::Args),
    /// Show the topics: messages, rates, subscribers, losses
    Topics(topics::Args),
    /// Make a topic
    Create(topics::Name),
    /// Delete a topic; its subscribers are told
    Delete(topics::Name),
    /// Read slowly on purpose, and show what is lost and told
    Demo(demo::Args),
}

pub(super) fn run(args: Args, files: &[PathBuf]) -> Result<ExitCode, Failure> {
    let bridge = Bridge::new(args.bridge, args.token_file, files)?;
    let done = super::block_on(async {
        let stop = CancellationToken::new();
        let command = Box::pin(async {
            match args.command {
                None => prompt::run(bridge, &stop).await,
                Some(Command::Watch(args)) => watch::run(bridge, args, &stop).await,
                Some(Command::Publish(args)) => publish::run(&bridge, args, &stop).await,
                Some(Command::Topics(args)) => topics::list(&bridge, &args).await,
                Some(Command::Create(name)) => topics::create(&bridge, &name).await,
                Some(Command::Delete(name)) => topics::delete(&bridge, &name).await,
                Some(Command::Demo(args)) => demo::run(&bridge, &args, &stop).await,
            }
        });
        Ok(until_left(command, &stop).await)
    })?;
    match done {
        Ok(()) | Err(Trouble::NobodyReads) => Ok(ExitCode::SUCCESS),
        Err(Trouble::Away(why) | Trouble::Silent(why)) => Err(Failure::unavailable(why)),
        Err(Trouble::Refused(why)) => Err(Failure::other(why)),
        Err(Trouble::Usage(why)) => Err(Failure::usage(why)),
    }
}

/// Asks the command to end at Ctrl-C, and waits for it: it has farewells to say.
async fn until_left(
    command: impl Future<Output = Result<(), Trouble>>,
    stop: &CancellationToken,
) -> Result<(), Trouble> {
    let listening = "the runtime has signals";
    let mut interrupt = signal(SignalKind::interrupt()).expect(listening);
    let mut terminate = signal(SignalKind::terminate()).expect(listening);
    tokio::pin!(command);
    tokio::select! {
        done = &mut command => return done,
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    stop.cancel();
    tokio::select! {
        done = &mut command => done,
        // what takes no notice of it owes nobody anything
        () = tokio::time::sleep(socket::PART_WITHIN * 2) => Ok(()),
    }
}

/// Why something was not done: what can be done about it.
#[derive(Debug)]
enum Trouble {
    /// The bridge does not answer, or not now: it may later.
    Away(String),
    /// It was asked and did not answer in time: whether it did what was asked for is not known.
    Silent(String),
    /// It answered, and will not.
    Refused(String),
    /// What was asked for makes no sense.
    Usage(String),
    /// Whoever read our output has gone.
    NobodyReads,
}

/// Whom to ask, and as whom.
struct Bridge {
    /// As `http://localhost:8080`.
    url: String,
    trust: ClientConfig,
    token: Option<SecretString>,
    /// What is published durably is answered within this time.
    durable_within: Duration,
}

impl Bridge {
    fn new(
        which: bridge::Which,
        token_file: Option<PathBuf>,
        files: &[PathBuf],
    ) -> Result<Self, Failure> {
        let token = token_file.map(|file| secret(&file)).transpose()?;
        if token.is_some() || which.is_named() {
            let (url, trust) = which.place(files)?;
            return Ok(Self { url, trust, token, durable_within: DURABLE_WITHIN });
        }
        let config = config::load(files)?;
        let (url, trust) = which.place_of(&config.http)?;
        let durable_within = config.live.publish.durable_timeout.saturating_add(ANSWER_WITHIN);
        Ok(Self { url, trust, token: config.http.token, durable_within })
    }

    /// The header that opens the bridge.
    fn authorization(&self) -> Option<String> {
        let token = self.token.as_ref()?;
        Some(format!("Bearer {}", token.expose_secret()))
    }

    /// One question over plain HTTP, and its answer, which comes within this time or not at all.
    async fn ask(
        &self,
        method: Method,
        path: &str,
        media_type: &str,
        body: impl Into<Body>,
        within: Duration,
    ) -> Result<bridge::Answer, Trouble> {
        let uri =
            bridge::uri(&self.url, path).map_err(|error| Trouble::Usage(error.to_string()))?;
        let mut request = Request::builder().method(method).uri(uri);
        if !media_type.is_empty() {
            request = request.header(header::CONTENT_TYPE, media_type);
        }
        if let Some(authorization) = self.authorization() {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        let request = request.body(body.into());
        let request = request
            .map_err(|error| Trouble::Usage(format!("the token cannot be sent: {error}")))?;
        match timeout(within, bridge::ask(request, self.trust.clone())).await {
            Ok(answer) => answer.map_err(|error| Trouble::Away(format!("{error:#}"))),
            Err(_) => {
                let seconds = within.as_secs();
                Err(Trouble::Silent(format!("no answer from {} within {seconds} s", self.url)))
            }
        }
    }

    /// The same, for those who need it to be done.
    async fn done(
        &self,
        method: Method,
        path: &str,
        body: impl Into<Body>,
    ) -> Result<Vec<u8>, Trouble> {
        let asking = self.ask(method, path, "application/json", body, ANSWER_WITHIN);
        let bridge::Answer { status, body, .. } = asking.await?;
        if status.is_success() { Ok(body) } else { Err(refusal(status, &body)) }
    }
}

fn secret(file: &Path) -> Result<SecretString, Failure> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| format!("--token-file: cannot read {}: {error}", file.display()));
    text.map(|text| text.trim().into()).map_err(Failure::usage)
}

/// What a refusal says of itself.
fn refusal(status: StatusCode, body: &[u8]) -> Trouble {
    #[derive(Deserialize)]
    struct Problem {
        detail: String,
    }
    let why = serde_json::from_slice(body)
        .map_or_else(|_| bridge::strange(status, body), |Problem { detail }| detail);
    match status {
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => Trouble::Away(why),
        _ => Trouble::Refused(why),
    }
}

/// On stdout; who reads it may have gone.
fn print(text: &str) -> Result<(), Trouble> {
    terminal::write(&terminal::harmless(text)).map_err(|_| Trouble::NobodyReads)
}

/// Colour is for people.
fn has_colour() -> bool {
    std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none()
}
