//! The course of one drill: who looks at the page and at the alerts notes what is new, and when.

use std::collections::BTreeSet;
use std::time::Duration;

use data_bridge::alert::AlertId;
use serde_json::Value as Json;
use tokio::time::{Instant, sleep};

use super::LOOK_EVERY;
use crate::bridge::{Bridge, PATIENCE, get};

const RUNBOOK: &str = include_str!("../../../docs/runbook.md");

pub(super) struct Course<'a> {
    bridge: &'a Bridge,
    title: &'static str,
    fault_at: Instant,
    mended_at: Option<Instant>,
    normal_at: Option<Instant>,
    /// After how many seconds, and what.
    noted: Vec<(f64, String)>,
    firing: BTreeSet<String>,
    /// Every alert that came.
    came: BTreeSet<String>,
    /// Word and reason, the newest last.
    page: Vec<(String, String)>,
}

impl<'a> Course<'a> {
    pub(super) fn new(bridge: &'a Bridge, title: &'static str) -> Self {
        Self {
            bridge,
            title,
            fault_at: Instant::now(),
            mended_at: None,
            normal_at: None,
            noted: Vec::new(),
            firing: BTreeSet::new(),
            came: BTreeSet::new(),
            page: Vec::new(),
        }
    }

    fn note(&mut self, text: String) {
        self.noted.push((self.fault_at.elapsed().as_secs_f64(), text));
    }

    pub(super) fn fault(&mut self) {
        self.fault_at = Instant::now();
    }

    pub(super) fn mend(&mut self, how: &str) {
        self.mended_at = Some(Instant::now());
        self.note(format!("**mended**: {how}"));
    }

    /// One look at the page, as a browser gets it, and at the alerts on it.
    async fn look(&mut self) -> Json {
        let url = format!("http://{}/", self.bridge.address());
        let (_, page) = get(&url).await.expect("the page is always served");
        let from = page.find("{\"verdict\"").expect("the page comes with its first status");
        let mut values = serde_json::Deserializer::from_str(&page[from..]).into_iter::<Json>();
        let now = values.next().unwrap().unwrap();
        let of = |key: &str| now["verdict"][key].as_str().unwrap_or_default().to_owned();
        let (word, why) = (of("word"), of("why"));
        if self.page.last().is_none_or(|(last, _)| *last != word) {
            let remedy = if of("remedy").is_empty() {
                String::new()
            } else {
                format!(" *{}*", of("remedy"))
            };
            self.note(format!("page: **{word}**. {why}{remedy}"));
        }
        self.page.push((word, why));
        let alerts = now["health"]["alerts"].as_array().unwrap();
        let id = |alert: &Json| alert["id"].as_str().unwrap().to_owned();
        let firing: BTreeSet<String> = alerts.iter().map(id).collect();
        for alert in alerts
            .iter()
            .filter(|alert| !self.firing.contains(&id(alert)))
            .cloned()
            .collect::<Vec<_>>()
        {
            let summary = alert["summary"].as_str().unwrap();
            self.note(format!(
                "alert `{}` ({}): {summary}",
                id(&alert),
                alert["severity"].as_str().unwrap()
            ));
        }
        for over in self.firing.difference(&firing).cloned().collect::<Vec<_>>() {
            self.note(format!("alert `{over}` is resolved"));
        }
        self.came.extend(firing.iter().cloned());
        self.firing = firing;
        now["health"].clone()
    }

    /// Looks on until this is so.
    pub(super) async fn until(&mut self, what: &str, wanted: impl Fn(&Json) -> bool) {
        self.until_within(PATIENCE, what, wanted).await;
    }

    async fn until_within(&mut self, most: Duration, what: &str, wanted: impl Fn(&Json) -> bool) {
        let started = Instant::now();
        loop {
            let health = self.look().await;
            if wanted(&health) {
                return;
            }
            assert!(started.elapsed() < most, "never: {what}\n{:#?}\n{health:#}", self.noted);
            sleep(LOOK_EVERY).await;
        }
    }

    /// Each of these has come, and each has its entry in the runbook.
    pub(super) async fn until_alerts(&mut self, ids: &[AlertId]) {
        let started = Instant::now();
        while !ids.iter().all(|id| self.came.contains(id.name())) {
            self.look().await;
            assert!(started.elapsed() < PATIENCE, "not all of {ids:?}: {:#?}", self.noted);
            sleep(LOOK_EVERY).await;
        }
    }

    /// The page is calm again, and nothing fires.
    pub(super) async fn until_normal(&mut self) {
        self.until_normal_within(PATIENCE).await;
    }

    /// The same where an alert speaks of a longer time.
    pub(super) async fn until_normal_within(&mut self, most: Duration) {
        self.until_within(most, "all is normal", |health| {
            health["status"] == "healthy" && health["alerts"].as_array().is_some_and(Vec::is_empty)
        })
        .await;
        self.normal_at = Some(Instant::now());
    }

    /// With some word the page has said this.
    pub(super) fn page_said(&self, word: &str, why: &str) -> bool {
        let said = self.page.iter().any(|(said, because)| said == word && because.contains(why));
        assert!(said, "{word:?} with {why:?}: {:#?}", self.noted);
        said
    }

    /// As a part of docs/drill.md.
    #[expect(clippy::print_stdout, reason = "the table is what the drill is for")]
    pub(super) fn print(&self, all: &str) {
        let mut text = format!("\n## {}\n\n| after | what is seen |\n| ---: | --- |\n", self.title);
        for (seconds, said) in &self.noted {
            text += &format!("| {seconds:.1} s | {} |\n", said.replace('|', "\\|"));
        }
        text.push('\n');
        for id in &self.came {
            text += &format!("- The runbook, [{id}](runbook.md#{id}): {}\n", what_to_do(id));
        }
        if let Some((normal, mended)) = self.normal_at.zip(self.mended_at) {
            let took = (normal - mended).as_secs_f64();
            text += &format!("\nNormal again {took:.1} s after the mend. {all}\n");
        } else {
            text += &format!("\n{all}\n");
        }
        println!("{text}");
    }
}

/// The first lines of what the entry says is to be done.
fn what_to_do(id: &str) -> String {
    let entry = RUNBOOK.split(&format!("\n## {id}\n")).nth(1);
    let entry = entry.unwrap_or_else(|| panic!("the runbook has no entry {id}"));
    let entry = entry.split("\n## ").next().unwrap();
    let doing = entry.split("- **Do**: ").nth(1).unwrap_or_else(|| panic!("{id}: nothing to do"));
    let doing = doing.split("\n- **").next().unwrap().split("\n\n").next().unwrap();
    doing.split_whitespace().collect::<Vec<_>>().join(" ")
}
