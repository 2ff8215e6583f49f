//! Replays that are interrupted at each of their steps, in memory.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::bail;
use uuid::Uuid;

use super::*;
use crate::dead_letter::store::{Listing, PLAN};
use crate::schema::{ColumnDefault, ColumnSchema, TableSchema};
use crate::sink::{Landed, LandedQuestion, Refusal};

/// Counts the steps that change something; the one at which the process dies is either done and
/// not told, or not done.
#[derive(Debug, Default)]
struct Fate {
    steps: AtomicUsize,
    /// The step, and whether it is done.
    dies: Mutex<Option<(usize, bool)>>,
}

impl Fate {
    fn step(&self, act: impl FnOnce()) -> bool {
        let step = self.steps.fetch_add(1, Ordering::Relaxed);
        match *self.dies.lock().unwrap() {
            Some((dies, _)) if step > dies => return false,
            Some((dies, done)) if step == dies => {
                if done {
                    act();
                }
                return false;
            }
            _ => act(),
        }
        true
    }
}

fn window(block: u64, lasts: Option<Duration>, problems: &[&str]) -> Window {
    let problems = problems.iter().map(|problem| (*problem).to_owned()).collect();
    Window { entries: 100, lasts, block, problems }
}

#[derive(Debug)]
struct Server {
    fate: Arc<Fate>,
    tokens: Mutex<HashSet<String>>,
    /// How often each letter's row is there.
    rows: Mutex<BTreeMap<String, u32>>,
    window: Window,
    /// The type of `v`: what does not fit it is refused.
    type_of_v: Mutex<&'static str>,
    /// What every insert is answered, if not OK.
    answer: Mutex<Option<InsertError>>,
}

impl Server {
    fn new(fate: &Arc<Fate>) -> Self {
        Self {
            fate: Arc::clone(fate),
            tokens: Mutex::default(),
            rows: Mutex::default(),
            window: window(7, None, &[]),
            type_of_v: Mutex::new("UInt8"),
            answer: Mutex::default(),
        }
    }

    fn rows(&self) -> BTreeMap<String, u32> {
        self.rows.lock().unwrap().clone()
    }
}

impl Sink for Server {
    async fn insert(&self, insert: Insert) -> Result<(), InsertError> {
        if let Some(error) = self.answer.lock().unwrap().clone() {
            return Err(error);
        }
        if String::from_utf8_lossy(&insert.body).contains("poison") {
            let message = "cannot parse".to_owned();
            return Err(InsertError::Reject(Refusal::of_code(27, message)));
        }
        let alive = self.fate.step(|| {
            if self.tokens.lock().unwrap().insert(insert.token.clone()) {
                let text = String::from_utf8_lossy(&insert.body).into_owned();
                let mut rows = self.rows.lock().unwrap();
                for name in text.split('<').skip(1) {
                    let name = name.split('>').next().unwrap();
                    *rows.entry(name.to_owned()).or_default() += 1;
                }
            }
        });
        let message = "the process died".to_owned();
        if alive { Ok(()) } else { Err(InsertError::Retry(Refusal::without_code(message))) }
    }

    async fn window(&self, _: &str) -> Result<Window, InsertError> {
        Ok(self.window.clone())
    }

    async fn landed(&self, _: LandedQuestion) -> Result<Landed, InsertError> {
        panic!("a replay has no range to ask for")
    }

    async fn schema(&self, table: &str) -> Result<TableSchema, InsertError> {
        let type_of_v = *self.type_of_v.lock().unwrap();
        let columns =
            [("name", "String"), ("v", type_of_v)].map(|(name, type_name)| ColumnSchema {
                name: name.to_owned(),
                type_name: type_name.to_owned(),
                default: ColumnDefault::None,
            });
        Ok(TableSchema { table: table.to_owned(), columns: columns.into() })
    }
}

#[derive(Debug)]
struct Memo {
    fate: Arc<Fate>,
    letters: Mutex<HashMap<Uuid, DeadLetter>>,
    after: Option<Uuid>,
}

impl Memo {
    fn open(&self) -> Vec<DeadLetter> {
        let letters = self.letters.lock().unwrap();
        letters.values().filter(|letter| letter.replayed_at.is_none()).cloned().collect()
    }
}

impl LetterStore for Memo {
    async fn list(&self, filter: &Filter, _: usize) -> anyhow::Result<Listing> {
        let letters = self.letters.lock().unwrap();
        let letters = letters.values().filter(|letter| filter.matches(letter)).cloned().collect();
        Ok(Listing { letters, ..Listing::default() })
    }

    async fn page(&mut self, filter: &Filter, _: PageLimits) -> anyhow::Result<Vec<DeadLetter>> {
        let letters = self.letters.lock().unwrap();
        let mut letters: Vec<_> = letters.values().filter(|l| filter.matches(l)).cloned().collect();
        letters.retain(|letter| self.after.is_none_or(|after| letter.id > after));
        letters.sort_by_key(|letter| letter.id);
        letters.truncate(3);
        self.after = letters.last().map(|letter| letter.id).or(self.after);
        Ok(letters)
    }

    async fn fetch(&self, ids: &[Uuid]) -> anyhow::Result<Vec<DeadLetter>> {
        let letters = self.letters.lock().unwrap();
        Ok(ids.iter().filter_map(|id| letters.get(id).cloned()).collect())
    }

    async fn append(&self, new: &[DeadLetter]) -> anyhow::Result<()> {
        let alive = self.fate.step(|| {
            let mut letters = self.letters.lock().unwrap();
            letters.extend(new.iter().map(|letter| (letter.id, letter.clone())));
        });
        if !alive {
            bail!("the process died");
        }
        Ok(())
    }
}

fn letter(n: u128, payload: String) -> DeadLetter {
    DeadLetter {
        id: Uuid::from_u128(n),
        time: 1,
        record_time: 1,
        instance: "i".into(),
        source: "kafka".into(),
        topic_or_subject: if n == 99 { "elsewhere".into() } else { "topic".into() },
        partition: Some(0),
        offset: Some(i64::try_from(n).unwrap()),
        key: None,
        headers: Vec::new(),
        route: "r".into(),
        reason: "old".into(),
        error: "old".into(),
        payload: payload.into_bytes(),
        replayed_at: None,
    }
}

/// Ten good letters, two that are still bad, one that no route takes, and `more`.
fn memo(fate: &Arc<Fate>, more: &[(u128, &str)]) -> Memo {
    let good = (1..=10).map(|n| (n, format!("{{\"name\":\"<{n}>\",\"v\":{n}}}")));
    let bad = [(20, r#"{"name":"<20>","v":300}"#), (21, r#"{"name":"<21>"}"#), (99, "{}")];
    let others = bad.iter().chain(more).map(|(n, payload)| (*n, (*payload).to_owned()));
    let letters = good.chain(others).map(|(n, payload)| (Uuid::from_u128(n), letter(n, payload)));
    let fate = Arc::clone(fate);
    Memo { fate, letters: Mutex::new(letters.collect()), after: None }
}

fn config() -> Config {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("c.toml");
    let text = "retry = { base_delay = \"1ms\", max_delay = \"1ms\" }\n[kafka]\n\
                [[routes]]\nname = \"r\"\nkafka_topics = [\"topic\"]\ntable = \"t\"\n";
    std::fs::write(&path, text).unwrap();
    crate::config::load(&[path]).unwrap()
}

const CAREFUL: Options = Options { dry_run: false, on_uncertain: OnUncertain::Halt };

async fn replay(
    config: &Config,
    server: &Server,
    memo: &mut Memo,
    options: Options,
) -> anyhow::Result<Outcome> {
    memo.after = None;
    Replay::new(config, server, memo, options)?.run(&Filter::default()).await
}

fn ten_rows_once() -> BTreeMap<String, u32> {
    (1..=10).map(|n| (n.to_string(), 1)).collect()
}

#[tokio::test(start_paused = true)]
async fn what_fits_goes_in_and_what_does_not_stays_with_its_new_reason() {
    let (config, fate) = (config(), Arc::<Fate>::default());
    let (server, mut memo) = (Server::new(&fate), memo(&fate, &[]));
    let outcome = replay(&config, &server, &mut memo, CAREFUL).await.unwrap();
    assert_eq!(server.rows(), ten_rows_once());
    assert_eq!(outcome.replayed, [("t".to_owned(), 10)].into());
    assert_eq!(outcome.skipped, [("no route takes elsewhere".to_owned(), 1)].into());
    let mut open = memo.open();
    open.sort_by_key(|letter| letter.id);
    let reasons: Vec<&str> = open.iter().map(|letter| letter.reason.as_str()).collect();
    assert_eq!(reasons, ["out_of_range", "missing_value", "old"]);
    assert!(open[0].error.contains("column v"), "{open:?}");
    assert_eq!(outcome.stays(), 3);
    // and a second one finds nothing to do
    let again = replay(&config, &server, &mut memo, CAREFUL).await.unwrap();
    assert_eq!((again.replayed.len(), again.stays()), (0, 3));
    assert_eq!(server.rows(), ten_rows_once());
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_says_the_same_and_changes_nothing() {
    let (config, fate) = (config(), Arc::<Fate>::default());
    let (server, mut memo) = (Server::new(&fate), memo(&fate, &[]));
    let before = memo.letters.lock().unwrap().clone();
    let options = Options { dry_run: true, ..CAREFUL };
    let dry = replay(&config, &server, &mut memo, options).await.unwrap();
    assert_eq!(*memo.letters.lock().unwrap(), before);
    assert!(server.rows().is_empty());
    assert_eq!(dry, replay(&config, &server, &mut memo, CAREFUL).await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn killed_at_any_step_and_run_again_every_row_is_there_once() {
    let config = config();
    let mut resumed = 0;
    for dies in 0.. {
        for done in [false, true] {
            let fate = Arc::<Fate>::default();
            let (server, mut memo) = (Server::new(&fate), memo(&fate, &[]));
            *fate.dies.lock().unwrap() = Some((dies, done));
            let first = replay(&config, &server, &mut memo, CAREFUL).await;
            *fate.dies.lock().unwrap() = None;
            if first.is_ok() {
                assert!(dies > 10, "so many steps it has at least");
                assert!(resumed > 0, "some were interrupted within a batch");
                return;
            }
            let second = replay(&config, &server, &mut memo, CAREFUL).await.unwrap();
            resumed += second.resumed;
            assert_eq!(server.rows(), ten_rows_once(), "died at {dies}, done: {done}");
            let open = memo.open();
            assert_eq!(open.len(), 3, "died at {dies}, done: {done}: {open:?}");
            assert!(open.iter().all(|letter| letter.reason != PLAN));
        }
    }
}

/// The mapping was changed between the crash and the next replay: what landed is not known, and a
/// batch of other rows would store some of them twice.
#[tokio::test(start_paused = true)]
async fn with_another_mapping_after_a_crash_it_halts_unless_told_what_to_accept() {
    let config = config();
    for (choice, rows) in [
        (OnUncertain::Halt, None),
        (OnUncertain::AcceptDuplicates, Some(2)),
        (OnUncertain::AcceptLoss, Some(1)),
    ] {
        let fate = Arc::<Fate>::default();
        let (server, mut memo) = (Server::new(&fate), memo(&fate, &[]));
        // plan and insert of the first batch are done, its marks are not
        *fate.dies.lock().unwrap() = Some((2, false));
        replay(&config, &server, &mut memo, CAREFUL).await.unwrap_err();
        *fate.dies.lock().unwrap() = None;
        *server.type_of_v.lock().unwrap() = "UInt16";
        let options = Options { on_uncertain: choice, ..CAREFUL };
        let second = replay(&config, &server, &mut memo, options).await;
        match rows {
            None => {
                let error = second.unwrap_err().to_string();
                assert!(error.contains("--on-uncertain") && error.contains("changed"), "{error}");
                assert_eq!(server.rows().get("4"), None, "nothing else was begun");
            }
            Some(rows) => {
                second.unwrap();
                assert_eq!(server.rows()["1"], rows);
                assert_eq!(server.rows()["20"], 1, "it fits now");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_table_that_may_have_forgotten_an_interrupted_insert_is_not_trusted() {
    let config = config();
    let forgetful = [
        (window(7, None, &["no window"]), "no window"),
        (window(107, None, &[]), "100 inserts"),
        (window(3, None, &[]), "100 inserts"),
        (window(7, Some(Duration::ZERO), &[]), "0s"),
    ];
    for (window, why) in forgetful {
        let fate = Arc::<Fate>::default();
        let (mut server, mut memo) = (Server::new(&fate), memo(&fate, &[]));
        *fate.dies.lock().unwrap() = Some((2, false));
        replay(&config, &server, &mut memo, CAREFUL).await.unwrap_err();
        *fate.dies.lock().unwrap() = None;
        server.window = window;
        let error = replay(&config, &server, &mut memo, CAREFUL).await.unwrap_err().to_string();
        assert!(error.contains(why) && error.contains("not known"), "{error}");
        assert_eq!(server.rows().values().max(), Some(&1));
    }
}

#[tokio::test(start_paused = true)]
async fn a_row_that_clickhouse_refuses_is_found_and_its_neighbours_go_in() {
    let (config, fate) = (config(), Arc::<Fate>::default());
    let poison = r#"{"name":"<2 poison>","v":1}"#;
    let (server, mut memo) = (Server::new(&fate), memo(&fate, &[(2, poison)]));
    let outcome = replay(&config, &server, &mut memo, CAREFUL).await.unwrap();
    assert_eq!(outcome.replayed["t"], 9);
    assert_eq!(outcome.refused[&("r".into(), "refused_by_clickhouse".into())], 1);
    let mut expected = ten_rows_once();
    expected.remove("2");
    assert_eq!(server.rows(), expected);
}

#[tokio::test(start_paused = true)]
async fn while_clickhouse_is_down_nothing_is_marked_and_the_next_replay_goes_on() {
    let (config, fate) = (config(), Arc::<Fate>::default());
    let (server, mut memo) = (Server::new(&fate), memo(&fate, &[]));
    let down = InsertError::Retry(Refusal::without_code("down".into()));
    *server.answer.lock().unwrap() = Some(down);
    let error = replay(&config, &server, &mut memo, CAREFUL).await.unwrap_err().to_string();
    assert!(error.contains("the next replay finishes"), "{error}");
    assert_eq!(memo.open().len(), 14, "all of them, and the plan");
    *server.answer.lock().unwrap() = None;
    replay(&config, &server, &mut memo, CAREFUL).await.unwrap();
    assert_eq!(server.rows(), ten_rows_once());
}
