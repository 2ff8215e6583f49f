//! What is drawn in each state, from what a bridge really says in it.

use crossterm::event::{Event as Pressed, KeyCode, KeyEvent, KeyModifiers};
use jiff::tz::TimeZone;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;
use ratatui::style::Color;
use serde_json::json;

use super::screen::Page;
use super::sse::Event;
use super::*;
use crate::alert::{self, AlertId};
use crate::history::Sample;
use crate::status::samples::{PAUSED_AT, busy};
use crate::status::{BreakerState, EndpointStatus, Forecast, Identity, RunStage, Snapshot};

mod receivers;

/// As the bridge's stream has it.
fn status(snapshot: &Snapshot, at: i64, firing: &[alert::Alert]) -> Event {
    let now = Instant::now();
    let mut health = snapshot.health(&Identity::new("bridge-1"), firing, now);
    health.uptime_seconds = 7_380;
    health.started_at = "2026-01-01T08:00:00.000Z".to_owned();
    let data = json!({
        "verdict": snapshot.verdict(now),
        "since": "2026-01-01T10:30:15.123Z",
        "sample": Sample::of(snapshot, at),
        "health": health,
        "letters": [{
            "time": "2026-01-01T10:30:15.123Z", "route": "candles", "reason": "bad_json",
            "why": "no valid JSON", "topic_or_subject": "aggregate_archive", "partition": 3,
            "offset": 4711,
        }],
    });
    Event { name: "status".to_owned(), data: data.to_string() }
}

/// Five minutes of a bridge that came to this, and what it says now.
fn known(change: impl Fn(&mut Snapshot), firing: &[alert::Alert]) -> Known {
    let start = Instant::now();
    let mut known = Known::new(start);
    let before = (0..300).map(|second| Sample {
        at: PAUSED_AT + second * 1_000,
        held: if second < 150 { 800 } else { 30_000 },
        ..Sample::default()
    });
    let data = json!({ "samples": before.collect::<Vec<_>>() }).to_string();
    known.hear(&Event { name: "history".to_owned(), data }, start).unwrap();
    for second in 300..330 {
        let mut snapshot = busy();
        change(&mut snapshot);
        let kafka = snapshot.sources.get_mut("kafka").unwrap();
        let so_far = u64::try_from(second).unwrap();
        kafka.received += so_far * 5_000;
        let writer = snapshot.writers.get_mut("aggregate").unwrap();
        writer.inserted += so_far * 4_000;
        writer.inserts += so_far;
        writer.insert_seconds += 0.081 * crate::status::float(so_far);
        known.hear(&status(&snapshot, PAUSED_AT + second * 1_000, firing), start).unwrap();
    }
    known
}

fn drawn_by(
    known: &Known,
    screen: &Screen,
    theme: &Theme,
    at: Instant,
    size: (u16, u16),
) -> Buffer {
    let mut terminal = Terminal::new(TestBackend::new(size.0, size.1)).unwrap();
    let scene = Scene { known, screen, theme, at };
    terminal
        .draw(|frame| {
            view::draw(frame, &scene);
        })
        .unwrap();
    terminal.backend().buffer().clone()
}

fn text(buffer: &Buffer) -> String {
    let lines = (0..buffer.area.height).map(|y| {
        let line = (0..buffer.area.width).map(|x| buffer[(x, y)].symbol()).collect::<String>();
        line.trim_end().to_owned() + "\n"
    });
    lines.collect()
}

fn drawn(known: &Known, page: Page, size: (u16, u16)) -> String {
    let screen = Screen { page, ..Screen::default() };
    text(&drawn_by(known, &screen, &Theme::plain(TimeZone::UTC), Instant::now(), size))
}

const SMALL: (u16, u16) = (80, 24);
const LARGE: (u16, u16) = (140, 50);

/// On the small screen and the large one there is all of this.
fn shows(known: &Known, page: Page, texts: &[&str]) {
    for size in [SMALL, LARGE] {
        let drawn = drawn(known, page, size);
        let one_line = drawn.split_whitespace().collect::<Vec<_>>().join(" ");
        for text in texts {
            assert!(one_line.contains(text), "{size:?}: {text:?} is not in\n{drawn}");
        }
    }
}

#[test]
fn a_healthy_bridge_is_seen_at_a_glance() {
    let known = known(|_| (), &[]);
    shows(
        &known,
        Page::Overview,
        &[
            concat!("bridge-1 · ", env!("CARGO_PKG_VERSION"), " · up 2 h 3 min"),
            "live 10:35:44",
            "HEALTHY for 5 min 29 s, since 10:30:15; now healthy",
            "What comes goes into ClickHouse; 812 records are on their way.",
            "held 812 (2 %)",
            "in 5,000/s",
            "out 4,000/s",
            "full in never",
            "lag 1,234",
            "an insert 81 ms",
            "! dead letters 13",
            "! dropped 15",
            "breaker closed",
            "cap 50,000",
            "pause 40,000",
            "resume 20,000",
            "5 min 29 s ago",
            "█ held",
        ],
    );
    let drawn = drawn(&known, Page::Overview, SMALL);
    assert!(!drawn.contains('░') && !drawn.contains("while paused"), "it never paused\n{drawn}");
}

#[test]
fn a_pause_is_shaded_and_says_what_to_do_and_when_it_ends() {
    let paused = |snapshot: &mut Snapshot| {
        snapshot.backpressure.active = true;
        snapshot.backpressure.current_buffer = 41_234;
        snapshot.forecast = Forecast { full_in_seconds: Some(72.0), drained_in_seconds: None };
    };
    let fires = alert::Alert {
        id: AlertId::Paused,
        of: None,
        since: PAUSED_AT,
        summary: "Backpressure active for 5.0 minutes".to_owned(),
        runbook: "docs/runbook.md#paused".to_owned(),
    };
    let known = known(paused, &[fires]);
    shows(
        &known,
        Page::Overview,
        &[
            "PAUSED for 5 min 29 s, since 10:30:15; now degraded",
            "41,234 of at most 50,000 records are held.",
            "What to do: See what slows ClickHouse",
            "resumes by itself below 20,000",
            "(runbook: paused)",
            "! held 41,234 (82 %)",
            "! full in 1 min 12 s",
            "▓░ while paused",
            "! Backpressure active for 5.0 minutes. Do: If ClickHouse is down",
            "4 Alerts (1)",
        ],
    );
    let drawn = drawn(&known, Page::Overview, LARGE);
    assert!(drawn.contains("░░"), "above the level, too\n{drawn}");
    let chart: Vec<&str> = drawn.lines().filter(|line| line.contains("▓▓")).collect();
    assert!(chart.len() > 5 && chart.iter().all(|line| line.trim_end().ends_with('▓')), "{drawn}");
    shows(
        &known,
        Page::Alerts,
        &["! paused Backpressure active", "since 10:30:15", "docs/runbook.md#paused"],
    );
}

#[test]
fn a_clickhouse_that_is_down_is_named_with_its_reason() {
    let down = |snapshot: &mut Snapshot| {
        snapshot.breaker.state = BreakerState::Open;
        snapshot.breaker.failures = 10;
        snapshot.breaker.openings = 1;
        snapshot.breaker.reason = Some("cannot reach ClickHouse".to_owned());
        snapshot.breaker.probe_at = Some(PAUSED_AT);
        snapshot.endpoints = vec![EndpointStatus {
            url: "http://ch:8123".to_owned(),
            healthy: false,
            reason: Some("connection refused".to_owned()),
            unclear_inserts: 2,
        }];
    };
    let known = known(down, &[]);
    let wanted = [
        "CLICKHOUSE UNAVAILABLE",
        "10 inserts in a row failed: cannot reach ClickHouse.",
        "What to do: Bring ClickHouse back.",
        "!!breaker open",
    ];
    shows(&known, Page::Overview, &wanted);
    let flow = drawn(&known, Page::Flow, LARGE);
    for text in [
        "!!breaker",
        "open: cannot reach ClickHouse; the next try at 10:30:15",
        "!!http://ch:8123  away: connection refused",
        "2 inserts wait",
    ] {
        assert!(flow.contains(text), "{text}\n{flow}");
    }
}

#[test]
fn what_is_critical_stands_first_and_calls_for_a_person() {
    let broken = |snapshot: &mut Snapshot| {
        snapshot.needs_person = vec!["market.ticks does not exist: create it".to_owned()];
    };
    let known = known(broken, &[]);
    let wanted = ["NEEDS A PERSON for 5 min", "Market.ticks does not exist: create it."];
    shows(&known, Page::Overview, &wanted);
    shows(&known, Page::Alerts, &["!! Needs a person: Market.ticks does not exist"]);
}

#[test]
fn a_drain_says_what_is_left_and_that_it_ends() {
    let known = known(|snapshot| snapshot.stage = RunStage::Draining, &[]);
    shows(&known, Page::Overview, &["DRAINING for", "812 records are still", "it ends by"]);
}

#[test]
fn a_bridge_to_which_nothing_came_has_no_empty_tables() {
    let empty = |snapshot: &mut Snapshot| {
        *snapshot = Snapshot { sources: busy().sources, ..busy() };
        for source in snapshot.sources.values_mut() {
            *source = crate::status::SourceStatus { connected: true, ..Default::default() };
        }
        snapshot.dead_letters.by_reason.clear();
    };
    let mut known = Known::new(Instant::now());
    let mut snapshot = busy();
    empty(&mut snapshot);
    known.hear(&status(&snapshot, PAUSED_AT, &[]), Instant::now()).unwrap();
    shows(&known, Page::Overview, &["WAITING", "no record has come yet", "1 min ago"]);
    shows(&known, Page::Losses, &["None: every record fitted its table.", "Dropped", "None."]);
    shows(&known, Page::Alerts, &["None fires."]);
}

#[test]
fn who_sends_who_writes_and_which_way_is_on_a_page() {
    let known = known(|_| (), &[]);
    let flow = drawn(&known, Page::Flow, LARGE);
    let flow = flow.split_whitespace().collect::<Vec<_>>().join(" ");
    for text in [
        "kafka 5,000/s 1,770,835 811 1,234 900 0 6 reading, 6 partitions",
        "nats 0/s 19 1 - 0 15 0 reading",
        "! aggregate 4,000/s 1,441,000 700 112 81 ms 369 2",
        "breaker closed: inserts go never opened",
        "candles → aggregates 0/s 125,000 810 13 16",
        "kafka at least once, nats at most once",
    ] {
        assert!(flow.contains(text), "{text}\n{flow}");
    }
    let losses = [
        "! candles 13 bad json no valid JSON: 10:30:15 aggregate_archive [3] @4711",
        "! nats, class market 8 cap",
        "! nats, in all 15 market.a.b 15",
    ];
    shows(&known, Page::Losses, &losses);
}

#[tokio::test(start_paused = true)]
async fn a_bridge_that_goes_away_and_comes_back_is_told_with_the_gap() {
    let mut known = known(|_| (), &[]);
    known.lose("cannot reach http://b:1/health/stream".to_owned());
    let at = |known: &Known| {
        let theme = Theme::plain(TimeZone::UTC);
        text(&drawn_by(known, &Screen::default(), &theme, Instant::now(), SMALL))
    };
    assert!(at(&known).contains(" HEALTHY "), "one lost stream is none: it is opened again");
    tokio::time::advance(Duration::from_secs(62)).await;
    let away = at(&known);
    for text in [
        " NO ANSWER   for 1 min 2 s; below is what it said last",
        "Cannot reach http://b:1/health/stream.",
        "Does its process run",
        "! connecting",
        "╱ not heard",
    ] {
        assert!(away.contains(text), "{text}\n{away}");
    }
    // Another process, which counts anew.
    let mut snapshot = busy();
    snapshot.sources.get_mut("kafka").unwrap().received = 10;
    let mut event = status(&snapshot, PAUSED_AT + 400_000, &[]);
    event.data = event.data.replace("08:00:00", "10:36:50");
    known.hear(&event, Instant::now()).unwrap();
    let back = at(&known);
    assert!(back.contains(" HEALTHY ") && back.contains("╱ not heard"), "{back}");
    // And one that is back within the seconds of a rate.
    let mut event = status(&busy(), PAUSED_AT + 402_000, &[]);
    event.data = event.data.replace("08:00:00", "10:36:52");
    known.hear(&event, Instant::now()).unwrap();
    let back = at(&known);
    assert!(back.contains("in           -"), "nothing is compared with another process\n{back}");
}

#[test]
fn a_clock_that_is_set_back_begins_anew_and_what_is_kept_is_bounded() {
    let mut known = known(|_| (), &[]);
    let hour_ago = PAUSED_AT - 3_600_000;
    let mut tell = |at, records| {
        let mut snapshot = busy();
        snapshot.sources.get_mut("kafka").unwrap().received += records;
        known.hear(&status(&snapshot, at, &[]), Instant::now()).unwrap();
        known.clone()
    };
    tell(hour_ago, 0);
    let then = tell(hour_ago + 1_000, 500);
    assert_eq!(then.samples.len(), 2, "what is to come is no past");
    let counter = |health: &told::Health| {
        Some(crate::status::float(health.metrics.sources["kafka"].received))
    };
    assert_eq!(then.rate(counter), Some(500.0));
    for _ in 0..100 {
        tell(hour_ago + 1_000, 500);
    }
    assert!(known.looks() <= 16, "{}", known.looks());
}

#[tokio::test(start_paused = true)]
async fn a_bridge_that_was_never_heard_says_why() {
    let mut known = Known::new(Instant::now());
    let theme = Theme::plain(TimeZone::UTC);
    let asked = text(&drawn_by(&known, &Screen::default(), &theme, Instant::now(), SMALL));
    assert!(asked.contains("Asking the bridge"), "{asked}");
    known.lose("it wants its token: give --token-file".to_owned());
    let refused = text(&drawn_by(&known, &Screen::default(), &theme, Instant::now(), SMALL));
    assert!(refused.contains("It wants its token: give --token-file."), "{refused}");
}

#[test]
fn without_colours_nothing_is_coloured_and_with_them_nothing_else_is_said() {
    let known = known(|snapshot| snapshot.backpressure.active = true, &[]);
    let draw = |theme: &Theme| drawn_by(&known, &Screen::default(), theme, Instant::now(), SMALL);
    let (plain, colored) =
        (draw(&Theme::plain(TimeZone::UTC)), draw(&Theme::colored(TimeZone::UTC)));
    assert!(plain.content().iter().all(|cell| cell.fg == Color::Reset && cell.bg == Color::Reset));
    assert!(colored.content().iter().any(|cell| cell.fg == Color::Yellow));
    assert_eq!(text(&plain), text(&colored));
}

#[test]
fn every_size_of_a_terminal_is_drawn() {
    let known = known(|snapshot| snapshot.backpressure.active = true, &[]);
    for page in Page::ALL {
        for size in [(1, 1), (20, 5), (40, 12), (79, 23), (300, 100)] {
            drawn(&known, page, size);
        }
    }
}

fn pressed(code: KeyCode) -> Pressed {
    Pressed::Key(KeyEvent::new(code, KeyModifiers::NONE))
}

#[test]
fn keys_open_pages_scroll_no_further_than_there_is_and_quit() {
    let known = known(|_| (), &[]);
    let mut screen = Screen::default();
    let press = |screen: &mut Screen, code| screen.press(&pressed(code), &known);
    press(&mut screen, KeyCode::Tab);
    assert_eq!(screen.page, Page::Flow);
    screen.reaches(3);
    for _ in 0..9 {
        press(&mut screen, KeyCode::Down);
    }
    assert_eq!(screen.scrolled, 3);
    press(&mut screen, KeyCode::Up);
    assert_eq!(screen.scrolled, 2, "one up is seen at once");
    screen.reaches(0);
    assert_eq!(screen.scrolled, 0, "a larger window shows all");
    press(&mut screen, KeyCode::BackTab);
    press(&mut screen, KeyCode::BackTab);
    assert_eq!(screen.page, Page::Configuration);
    press(&mut screen, KeyCode::Char('3'));
    assert_eq!(screen.page, Page::Losses);
    press(&mut screen, KeyCode::Char('?'));
    let theme = Theme::plain(TimeZone::UTC);
    let helped = text(&drawn_by(&known, &screen, &theme, Instant::now(), SMALL));
    assert!(
        helped.contains("Keys, and what is what") && helped.contains("lost for good"),
        "{helped}"
    );
    press(&mut screen, KeyCode::Char('x'));
    assert!(!screen.helps);
    let interrupt = Pressed::Key(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL));
    assert_eq!(screen.press(&interrupt, &known), Then::Quit);
    assert_eq!(press(&mut screen, KeyCode::Char('q')), Then::Quit);
    assert_eq!(screen.press(&Pressed::Resize(1, 1), &known), Then::GoOn);
}

#[test]
fn a_picture_that_is_held_stays_and_says_so() {
    let healthy = known(|_| (), &[]);
    let paused = known(|snapshot| snapshot.backpressure.active = true, &[]);
    let mut screen = Screen::default();
    screen.press(&pressed(KeyCode::Char('p')), &healthy);
    let theme = Theme::plain(TimeZone::UTC);
    let draw = |screen: &Screen| text(&drawn_by(&paused, screen, &theme, Instant::now(), SMALL));
    let held = draw(&screen);
    assert!(held.contains("HEALTHY") && held.contains("held at 10:35:44: p goes on"), "{held}");
    screen.press(&pressed(KeyCode::Char('p')), &paused);
    assert!(draw(&screen).contains("PAUSED"));
}

#[test]
fn a_page_is_scrolled() {
    let known = known(|_| (), &[]);
    let mut terminal = Terminal::new(TestBackend::new(80, 12)).unwrap();
    let screen = Screen { page: Page::Flow, scrolled: 4, ..Screen::default() };
    let theme = Theme::plain(TimeZone::UTC);
    let scene = Scene { known: &known, screen: &screen, theme: &theme, at: Instant::now() };
    let mut reach = 0;
    terminal.draw(|frame| reach = view::draw(frame, &scene)).unwrap();
    assert!(reach > 4, "{reach}");
    assert!(!text(terminal.backend().buffer()).contains("Sources"));
}

#[test]
fn all_of_it_as_plain_text() {
    let text = view::plain(&known(|_| (), &[]));
    for wanted in ["HEALTHY", "Records held", "None fires.", "Sources", "Routes", "Dead letters"] {
        assert!(text.contains(wanted), "{wanted}\n{text}");
    }
    assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
    assert!(!text.contains('\u{1b}'));
}
