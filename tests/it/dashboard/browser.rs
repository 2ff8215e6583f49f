//! A real browser, driven by `web/test/drive.mjs`: commands go in as lines of JSON, answers come out.
//! It ends with the test.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value as Json, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

use crate::bridge::{Bridge, PATIENCE};

/// An answer may take as long as what it waits for, and a little more.
const ANSWER_WITHIN: Duration = PATIENCE.saturating_add(Duration::from_secs(60));

/// Where pictures for the documents go; without it none are taken.
const PICTURES: &str = "DATA_BRIDGE_TEST_PICTURES";

pub(crate) fn pictures() -> Option<PathBuf> {
    std::env::var_os(PICTURES).map(PathBuf::from)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Theme {
    Light,
    Dark,
}

pub(crate) struct Browser {
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Browser {
    /// Looks at the dashboard of this bridge.
    pub(crate) async fn at(bridge: &Bridge) -> Self {
        Self::with_token(bridge, "").await
    }

    /// The same; asked for a password, it gives this.
    pub(crate) async fn with_token(bridge: &Bridge, token: &str) -> Self {
        let mut browser = Self::of(&format!("http://{}/", bridge.address()), token).await;
        browser.was_built(".headline").await;
        browser
    }

    /// Looks at any page.
    pub(crate) async fn open(url: &str) -> Self {
        Self::of(url, "").await
    }

    /// Looks at any page; asked for a password, it gives this.
    pub(crate) async fn of(url: &str, token: &str) -> Self {
        let driver = Path::new(env!("CARGO_MANIFEST_DIR")).join("web/test/drive.mjs");
        let mut child = Command::new("node")
            .arg(driver)
            .env("DATA_BRIDGE_TEST_TOKEN", token)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("scripts/test installs Node, and scripts/build-web what the driver needs");
        let input = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut browser = Self { child, input, output };
        browser.ask(json!({ "command": "open", "url": url })).await;
        browser
    }

    /// What only the built page has is there.
    pub(crate) async fn was_built(&mut self, selector: &str) {
        let built = self.is_visible(selector).await;
        assert!(built, "this is the plain page: scripts/build-web, then build the bridge");
    }

    /// Writes into a field, in place of what is there.
    pub(crate) async fn fill(&mut self, selector: &str, text: &str) {
        self.ask(json!({ "command": "fill", "selector": selector, "text": text })).await;
    }

    pub(crate) async fn click(&mut self, selector: &str) {
        self.ask(json!({ "command": "click", "selector": selector })).await;
    }

    /// Closes the browser, and waits until it has ended.
    pub(crate) async fn leave(self) {
        let Self { mut child, input, output: _output } = self;
        drop(input);
        timeout(ANSWER_WITHIN, child.wait()).await.expect("it ends with its input").unwrap();
    }

    async fn ask(&mut self, command: Json) -> Json {
        let line = format!("{command}\n");
        self.input.write_all(line.as_bytes()).await.expect("the browser runs");
        let answer = timeout(ANSWER_WITHIN, self.output.next_line()).await;
        let answer = answer.unwrap_or_else(|_| panic!("no answer to {command}")).unwrap();
        let answer = answer.unwrap_or_else(|| panic!("the browser has ended at {command}"));
        let mut answer: Json = serde_json::from_str(&answer).unwrap();
        assert!(answer.get("error").is_none(), "{}", answer["error"].as_str().unwrap_or_default());
        answer["ok"].take()
    }

    /// Waits until the text of these elements matches; gives it.
    pub(crate) async fn until(&mut self, selector: &str, pattern: &str) -> String {
        let within = u64::try_from(PATIENCE.as_millis()).unwrap();
        let wanted = json!({ "command": "until", "selector": selector, "pattern": pattern,
            "within": within });
        self.ask(wanted).await.as_str().unwrap().to_owned()
    }

    /// Waits for the big word.
    pub(crate) async fn word(&mut self, word: &str) {
        self.until(".word", &format!("^{word}$")).await;
    }

    pub(crate) async fn text(&mut self, selector: &str) -> String {
        let text = self.ask(json!({ "command": "text", "selector": selector })).await;
        text.as_str().unwrap().to_owned()
    }

    pub(crate) async fn press(&mut self, key: &str) {
        self.ask(json!({ "command": "press", "key": key })).await;
    }

    /// The name of what has the keyboard.
    pub(crate) async fn focused(&mut self) -> String {
        self.ask(json!({ "command": "focused" })).await.as_str().unwrap().to_owned()
    }

    pub(crate) async fn is_visible(&mut self, selector: &str) -> bool {
        self.ask(json!({ "command": "isVisible", "selector": selector })).await == true
    }

    pub(crate) async fn width(&mut self, width: u32) {
        self.look(Theme::Light, width).await;
    }

    pub(crate) async fn look(&mut self, theme: Theme, width: u32) {
        let theme = if theme == Theme::Dark { "dark" } else { "light" };
        self.ask(json!({ "command": "look", "theme": theme, "width": width })).await;
    }

    /// Nobody is kept out, in light and dark, on a desk and on a phone; and the page is as wide as
    /// the screen.
    pub(crate) async fn is_for_everybody(&mut self) {
        for (theme, width) in [(Theme::Light, 1280), (Theme::Dark, 390), (Theme::Light, 390)] {
            self.look(theme, width).await;
            let found = self.ask(json!({ "command": "axe" })).await;
            assert_eq!(found, json!([]), "{theme:?}, {width} px");
            let wide = self.ask(json!({ "command": "tooWide" })).await;
            assert_eq!(wide, json!([]), "{width} px");
        }
        self.look(Theme::Light, 1280).await;
    }

    /// A picture for the documents, if any are wanted.
    pub(crate) async fn picture(&mut self, name: &str, height: u32) {
        let Some(folder) = pictures() else { return };
        let path = folder.join(format!("{name}.png"));
        self.ask(json!({ "command": "picture", "path": path, "height": height })).await;
    }

    /// Waits until it complains of this.
    pub(crate) async fn until_complaint(&mut self, pattern: &str) {
        let within = u64::try_from(PATIENCE.as_millis()).unwrap();
        self.ask(json!({ "command": "complains", "pattern": pattern, "within": within })).await;
    }

    /// No script broke, and the page's policy had nothing to forbid.
    pub(crate) async fn complained_of_nothing(&mut self) {
        assert_eq!(self.ask(json!({ "command": "complaints" })).await, json!([]));
    }
}
