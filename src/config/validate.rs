//! From what was written to what is valid: the only way to a [`Config`].
//!
//! Each function checks one section and reports all it finds; what cannot be represented is None.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use super::alerts;
use super::connection;
use super::fleet;
use super::kafka_client;
use super::letters;
use super::limits;
use super::live;
use super::otlp;
use super::overload;
use super::problem::Problems;
use super::publish;
use super::rate;
use super::raw::{self, OffsetReset, Raw};
use super::raw_route;
use super::route;
use super::secret;
use super::units::{Size, Span};
use super::webhook;
use super::{
    Alerts, BATCH_ROWS, Backpressure, Breaker, Config, DeadLetters, Endpoints, Heartbeat, Http,
    Kafka, Overload, Retry, Shutdown, Writer,
};

/// librdkafka's default of max.poll.interval.ms.
const MAX_POLL_INTERVAL: Duration = Duration::from_secs(300);
/// With its rows the low end of what ClickHouse likes, one insert a second and table.
const BATCH_BYTES: Size = Size::mib(16);
const LINGER: Span = Span::seconds(1);
/// Letters of a name that goes into client ids.
const INSTANCE_CHARS: usize = 128;

/// The configuration, if nothing is wrong with it; else `problems` says what is.
pub(super) fn build(raw: &Raw, problems: &mut Problems) -> Option<Config> {
    let ahead = limits::Ahead::of(raw);
    let kafka = raw.kafka.as_ref().map(|kafka| self::kafka(kafka, ahead, problems));
    let backpressure = backpressure(raw, problems);
    let buffer = backpressure.max_buffer_size;
    let nats = raw.nats.as_ref().map(|nats| connection::nats(nats, ahead, buffer, problems));
    let published = raw.routes.iter().any(|route| route.publish);
    if kafka.is_none() && nats.is_none() && !published {
        let text = "no source is configured; add a [kafka] or a [nats] table, or set \
                    DATA_BRIDGE__KAFKA__BROKERS or DATA_BRIDGE__NATS__SERVERS";
        problems.bare("kafka, nats", text);
    }
    let http = http(&raw.http, problems)?;
    let config = Config {
        instance: instance(raw.instance.as_deref(), problems),
        heartbeat: heartbeat(&raw.heartbeat, kafka.as_ref(), problems),
        writers: writers(raw, &backpressure, problems),
        backpressure,
        overload: Overload::default(),
        alerts: Alerts::default(),
        webhooks: webhook::webhooks(&raw.webhooks, problems),
        kafka,
        fleet: raw.fleet.as_ref().map(|raw| fleet::fleet(raw, nats.is_some(), problems)),
        nats: nats.flatten(),
        clickhouse: connection::clickhouse(&raw.clickhouse, problems),
        retry: retry(&raw.retry, problems),
        breaker: Breaker {
            max_failures: raw.breaker.max_failures,
            reset_timeout: positive("breaker.reset_timeout", raw.breaker.reset_timeout, problems),
        },
        dead_letters: letters::destination(&raw.dead_letters, problems)?,
        routes: Vec::new(),
        shutdown: Shutdown { grace: raw.shutdown.grace.0 },
        live: live::live(&raw.live, &http, problems),
        http,
        log: raw.log.level,
        otlp: otlp::otlp(raw.otlp.as_ref(), problems),
    };
    let group = config.nats.as_ref().map_or("", |nats| &nats.queue_group);
    let routes = route::routes(&raw.routes, group, &config.writers, problems);
    if raw.live.enabled {
        live::topics(&raw.routes, problems);
    }
    let overload = overload::policy(&raw.overload, &routes, &config.backpressure, problems);
    let alerts = alerts::alerts(&raw.alerts, &config.backpressure, &routes, problems);
    let config = Config { overload, alerts, routes, ..config };
    sources_have_work(&config, problems);
    tokens_find_their_server(&config, problems);
    letters::no_loop(&config, problems);
    publish::is_guarded(&config, problems);
    Some(config)
}

/// After a restart a noted batch is sent again under its token, and only the server that may have
/// it would know it.
fn tokens_find_their_server(config: &Config, problems: &mut Problems) {
    let independent = config.clickhouse.endpoints == Endpoints::Independent;
    if config.clickhouse.urls.len() < 2 || !independent {
        return;
    }
    for (index, _) in config.routes.iter().enumerate().filter(|(_, r)| r.is_exactly_once()) {
        let text = "\"exactly_once\" is not possible with several independent servers: after a \
                    restart nobody knows which of them may have a batch; give one clickhouse.url, \
                    or set clickhouse.endpoints = \"replicas\" if they share their tables";
        problems.bare(&format!("routes[{index}].delivery"), text);
    }
}

/// A source that no route takes anything from would only fail when it subscribes.
fn sources_have_work(config: &Config, problems: &mut Problems) {
    if config.routes.is_empty() {
        return; // said already
    }
    let idle = |source: &str, key: &str| {
        format!("no route has {key}; add some to a route, or leave out [{source}]")
    };
    // Letters that go there, or a fleet, are work enough.
    let letters = &config.dead_letters;
    let kafka = config.kafka.is_some() && !matches!(letters, DeadLetters::Kafka { .. });
    let letters_there = matches!(letters, DeadLetters::Nats { .. });
    let nats = config.nats.is_some() && !letters_there && config.fleet.is_none();
    if kafka && config.routes.iter().all(|route| route.kafka_topics.is_empty()) {
        problems.bare("kafka", idle("kafka", "kafka_topics"));
    }
    let jetstream = config.routes.iter().find(|route| route.jetstream.is_some());
    let idles = jetstream.is_none() && config.routes.iter().all(|r| r.nats_subjects.is_empty());
    if nats && idles {
        problems.bare("nats", idle("nats", "nats_subjects"));
    }
    let Some(nats) = &config.nats else { return };
    match (&nats.jetstream, jetstream) {
        (Some(_), None) => {
            problems.bare("nats.jetstream", idle("nats.jetstream", "jetstream_subjects"));
        }
        (None, Some(route)) => {
            let text = format!(
                "is missing, but the route \"{}\" has jetstream_subjects; an empty table \
                 [nats.jetstream] is enough",
                route.name
            );
            problems.bare("nats.jetstream", text);
        }
        _ => {}
    }
}

fn instance(given: Option<&str>, problems: &mut Problems) -> String {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let Some(name) = given else {
        let host = gethostname::gethostname().to_string_lossy().into_owned();
        let host: String = host.chars().map(|c| if allowed(c) { c } else { '-' }).collect();
        return if host.is_empty() { "data-bridge".to_owned() } else { host };
    };
    if name.is_empty() || name.len() > INSTANCE_CHARS || !name.chars().all(allowed) {
        let text = "goes into client ids: letters, digits, `-`, `_` and `.`, at most 128";
        problems.text("instance", name, text);
    }
    name.to_owned()
}

/// A length of time that must not be zero: a timer would spin.
pub(super) fn positive(key: &str, span: Span, problems: &mut Problems) -> Duration {
    if span.0 < Duration::from_millis(1) {
        problems.text(key, &span.to_string(), "must be at least \"1ms\"");
    }
    span.0
}

fn heartbeat(raw: &raw::Heartbeat, kafka: Option<&Kafka>, problems: &mut Problems) -> Heartbeat {
    const KEY: &str = "heartbeat.interval";
    const PROPERTY: &str = "max.poll.interval.ms";
    let interval = positive(KEY, raw.interval, problems);
    let Some(kafka) = kafka else { return Heartbeat { interval } };
    let given = kafka.client.get(PROPERTY);
    let poll = match given.map(|text| text.parse().map(Duration::from_millis)) {
        None => MAX_POLL_INTERVAL,
        Some(Ok(poll)) => poll,
        Some(Err(_)) => {
            let text = "must be a whole number of milliseconds, such as 300000";
            problems.text(&format!("kafka.client.{PROPERTY}"), given.map_or("", |v| v), text);
            return Heartbeat { interval };
        }
    };
    if interval >= poll / 3 {
        let text = format!(
            "must be below a third of Kafka's {PROPERTY} ({}), or a pause costs the group \
             membership; write for example \"5s\"",
            Span(poll)
        );
        problems.text(KEY, &raw.interval.to_string(), text);
    }
    Heartbeat { interval }
}

fn backpressure(raw: &Raw, problems: &mut Problems) -> Backpressure {
    let b = &raw.backpressure;
    let (max, pause, resume) = (b.max_buffer_size, b.pause_threshold, b.resume_threshold);
    if pause >= max {
        let text = format!("must be below max_buffer_size ({max}); 80 % of it is {}", max / 5 * 4);
        problems.push("backpressure.pause_threshold", pause, text);
    }
    if resume >= pause {
        let text = format!(
            "must be below pause_threshold ({pause}), or sources flap; half of it is {}",
            pause / 2
        );
        problems.push("backpressure.resume_threshold", resume, text);
    }
    let midway = usize::midpoint(pause, resume);
    let nats = raw.nats.as_ref();
    let published = raw.routes.iter().any(|route| route.publish);
    let pulls = raw.kafka.is_some() || nats.is_some_and(|nats| nats.jetstream.is_some());
    let pulls = pulls || published;
    let is_pushed = |route: &raw_route::Route| !route.nats_subjects.is_empty();
    let pushed = nats.is_some() && raw.routes.iter().any(is_pushed);
    let shares = pulls && pushed;
    let pull_limit = b.pull_limit.unwrap_or(if shares { midway } else { pause });
    if b.pull_limit.is_some_and(|limit| limit <= resume || limit > max) {
        let text = format!(
            "must be above resume_threshold ({resume}) and at most max_buffer_size ({max}); leave \
             it out for the default"
        );
        problems.push("backpressure.pull_limit", pull_limit, text);
    }
    if let Some(bytes) = b.max_buffer_bytes.filter(|bytes| *bytes < Size::mib(1)) {
        let text = "must be at least \"1MiB\"; the default is \"256MiB\"";
        problems.text("backpressure.max_buffer_bytes", &bytes.to_string(), text);
    }
    if b.critical_after < b.warn_after {
        let text = format!("must not be less than warn_after (\"{}\")", b.warn_after);
        problems.text("backpressure.critical_after", &b.critical_after.to_string(), text);
    }
    let mut chosen = Backpressure {
        max_buffer_size: max,
        pause_threshold: pause,
        resume_threshold: resume,
        pull_limit,
        max_buffer_bytes: b.max_buffer_bytes.unwrap_or(limits::MAX_BUFFER_BYTES).0,
        memory_budget: None,
        warn_after: positive("backpressure.warn_after", b.warn_after, problems),
        critical_after: positive("backpressure.critical_after", b.critical_after, problems),
        repeat_every: positive("backpressure.repeat_every", b.repeat_every, problems),
        auto: None,
    };
    limits::lay(raw, if shares { 60 } else { 80 }, &mut chosen, problems);
    chosen
}

fn kafka(raw: &raw::Kafka, ahead: limits::Ahead, problems: &mut Problems) -> Kafka {
    connection::brokers(&raw.brokers, problems);
    if raw.group_id.trim().is_empty() {
        problems.text("kafka.group_id", &raw.group_id, "must be a name, such as \"data-bridge\"");
    }
    // librdkafka takes 1 KiB to 2 GiB
    let range = Size(64 * 1024)..=Size(2 * 1024 * 1024 * 1024 - 1024);
    if let Some(bytes) = raw.prefetch_bytes.filter(|bytes| !range.contains(bytes)) {
        let text = "must be from \"64KiB\" to just under \"2GiB\"; the default is \"32MiB\"";
        problems.text("kafka.prefetch_bytes", &bytes.to_string(), text);
    }
    let auto_offset_reset = match raw.auto_offset_reset {
        OffsetReset::Earliest => "earliest",
        OffsetReset::Latest => "latest",
        OffsetReset::Error => "error",
    };
    Kafka {
        brokers: raw.brokers.clone(),
        group_id: raw.group_id.clone(),
        auto_offset_reset: auto_offset_reset.to_owned(),
        commit_interval: positive("kafka.commit_interval", raw.commit_interval, problems),
        prefetch_bytes: ahead.kafka,
        rate_limit: rate::limit("kafka.rate_limit", raw.rate_limit.as_ref(), problems),
        client: kafka_client::properties(&raw.client, problems),
    }
}

fn retry(raw: &raw::Retry, problems: &mut Problems) -> Retry {
    if raw.base_delay > raw.max_delay {
        let text = format!("must not be more than max_delay (\"{}\")", raw.max_delay);
        problems.text("retry.base_delay", &raw.base_delay.to_string(), text);
    }
    Retry {
        base_delay: positive("retry.base_delay", raw.base_delay, problems),
        max_delay: raw.max_delay.0,
    }
}

/// Every writer that was given, and `default`. What a writer does not say fits the limits.
fn writers(raw: &Raw, limits: &Backpressure, problems: &mut Problems) -> BTreeMap<String, Writer> {
    let most_rows = (limits.max_buffer_size / 2).max(1);
    let most_bytes = Size(limits.max_buffer_bytes / 2);
    let mut given = raw.writers.clone();
    given.entry("default".to_owned()).or_default();
    let mut writers = BTreeMap::new();
    for (name, writer) in given {
        let key = |key: &str| format!("writers.{name}.{key}");
        let rows = writer.batch_rows.unwrap_or(BATCH_ROWS.min(most_rows));
        if rows > most_rows {
            let text = format!("must be at most half of backpressure.max_buffer_size: {most_rows}");
            problems.push(&key("batch_rows"), rows, text);
        }
        let bytes = writer.batch_bytes.unwrap_or(BATCH_BYTES.min(most_bytes));
        if bytes > most_bytes || bytes.0 == 0 {
            let half = "must be at most half of backpressure.max_buffer_bytes";
            problems.text(
                &key("batch_bytes"),
                &bytes.to_string(),
                format!("{half}: \"{most_bytes}\""),
            );
        }
        let linger = positive(&key("linger"), writer.linger.unwrap_or(LINGER), problems);
        let (batch_rows_min, batch_rows_max) =
            range(&name, &writer, rows, most_rows, raw.clickhouse.adaptive, problems);
        let batch_bytes = bytes.0;
        let writer =
            Writer { batch_rows: rows, batch_bytes, linger, batch_rows_min, batch_rows_max };
        writers.insert(name, writer);
    }
    writers
}

/// Between what the rows of a batch may move.
fn range(
    name: &str,
    raw: &raw::Writer,
    rows: usize,
    most_rows: usize,
    adaptive: bool,
    problems: &mut Problems,
) -> (usize, usize) {
    let key = |key: &str| format!("writers.{name}.{key}");
    let given = [("batch_rows_min", raw.batch_rows_min), ("batch_rows_max", raw.batch_rows_max)];
    if !adaptive {
        for (of, rows) in given.iter().filter_map(|(of, rows)| Some((of, (*rows)?))) {
            let text = "only says something with clickhouse.adaptive = true; leave it out";
            problems.push(&key(of), rows, text);
        }
    }
    let min = raw.batch_rows_min.unwrap_or((rows / 10).max(1));
    let max = raw.batch_rows_max.unwrap_or(rows.saturating_mul(4).min(most_rows)).max(1);
    if min > rows {
        let text = format!("must be at most batch_rows ({rows}), where it begins");
        problems.push(&key("batch_rows_min"), min, text);
    }
    if raw.batch_rows_max.is_some_and(|max| max < rows || max > most_rows) {
        let text = format!(
            "must be from batch_rows ({rows}) to half of backpressure.max_buffer_size ({most_rows})"
        );
        problems.push(&key("batch_rows_max"), max, text);
    }
    (min, max)
}

fn http(raw: &raw::Http, problems: &mut Problems) -> Option<Http> {
    let token = secret::of("http.token", raw.token.as_ref(), raw.token_file.as_ref(), problems);
    let tls = connection::http_tls(raw.tls.as_ref(), problems);
    let listen: Result<SocketAddr, _> = raw.listen.parse();
    let Ok(listen) = listen else {
        let text = "must be an address and a port, such as \"127.0.0.1:8080\", or \
                    \"0.0.0.0:8080\" for every interface";
        problems.text("http.listen", &raw.listen, text);
        return None;
    };
    Some(Http { listen, token, token_file: raw.token_file.clone(), tls })
}
