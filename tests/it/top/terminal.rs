//! A terminal for one program: `script` (of util-linux) gives it, and what the program writes becomes a
//! screen here. It ends with the test.

use std::fmt::Write as _;
use std::num::NonZero;
use std::path::Path;
use std::process::Stdio;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::{Instant, timeout, timeout_at};
use vt100::{Color, Parser};

use crate::bridge::{PATIENCE, program};
use crate::dashboard::browser::{Browser, pictures};

pub(super) struct Terminal {
    child: Child,
    keys: ChildStdin,
    written: ChildStdout,
    screen: Parser,
    /// Of the terminal, as the system calls it.
    device: std::path::PathBuf,
    _dir: tempfile::TempDir,
}

impl Terminal {
    /// `data-bridge top` with these arguments, on so many columns and rows.
    pub(super) async fn run(
        arguments: &[&str],
        (columns, rows): (u16, u16),
        variables: &[(&str, &str)],
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let name = dir.path().join("tty");
        let top = program();
        let top = top.as_std().get_program().to_str().unwrap();
        // Nothing here has a blank or a quote in it.
        let command = format!(
            "stty rows {rows} cols {columns}; tty > {}; exec {top} top {}",
            name.display(),
            arguments.join(" ")
        );
        let mut child = Command::new("script")
            .args(["--quiet", "--flush", "--return", "--command", &command, "/dev/null"])
            .env("TERM", "xterm-256color")
            .env_remove("NO_COLOR")
            .envs(variables.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("`script` is there: it is part of util-linux");
        let keys = child.stdin.take().unwrap();
        let written = child.stdout.take().unwrap();
        let (height, width) = (NonZero::new(rows).unwrap(), NonZero::new(columns).unwrap());
        let screen = Parser::new(height, width, 0);
        let device = Path::new("").to_owned();
        let mut terminal = Self { child, keys, written, screen, device, _dir: dir };
        terminal.until(&["data-bridge"]).await;
        terminal.device = std::fs::read_to_string(name).unwrap().trim().into();
        terminal
    }

    /// Waits until all of this is to be seen, whatever the lines are broken at.
    pub(super) async fn until(&mut self, texts: &[&str]) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let shown = self.screen.screen().contents();
            let words = shown.split_whitespace().collect::<Vec<_>>().join(" ");
            let Some(missing) = texts.iter().find(|text| !words.contains(text.trim())) else {
                return;
            };
            let read = timeout_at(deadline, self.read()).await;
            let read = read.unwrap_or_else(|_| panic!("never seen: {missing:?}\n{shown}"));
            assert!(read > 0, "it ended before it showed {missing:?}\n{shown}");
        }
    }

    async fn read(&mut self) -> usize {
        let mut bytes = vec![0; 16 * 1024];
        let read = self.written.read(&mut bytes).await.unwrap();
        self.screen.process(&bytes[..read]);
        read
    }

    pub(super) async fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).await.expect("it runs");
    }

    /// As when somebody pulls at the corner of its window.
    pub(super) async fn resize(&mut self, (columns, rows): (u16, u16)) {
        let (height, width) = (NonZero::new(rows).unwrap(), NonZero::new(columns).unwrap());
        self.screen.screen_mut().set_size(height, width);
        let (columns, rows) = (columns.to_string(), rows.to_string());
        let set = Command::new("stty")
            .arg("-F")
            .arg(&self.device)
            .args(["rows", &rows, "cols", &columns])
            .status();
        assert!(timeout(PATIENCE, set).await.expect("stty ends").unwrap().success());
    }

    /// Waits for the end; gives the exit code.
    pub(super) async fn ended(&mut self) -> i32 {
        let ending = async {
            while self.read().await > 0 {}
            self.child.wait().await.unwrap()
        };
        let status = timeout(PATIENCE, ending).await.expect("it ends");
        status.code().unwrap_or(-1)
    }

    fn size(&self) -> (u16, u16) {
        let (rows, columns) = self.screen.screen().size();
        (rows.get(), columns.get())
    }

    /// Whether it has the whole screen for itself.
    pub(super) fn is_full_screen(&self) -> bool {
        self.screen.screen().alternate_screen()
    }

    pub(super) fn is_colored(&self) -> bool {
        let screen = self.screen.screen();
        let (rows, columns) = self.size();
        let mut cells = (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column)));
        cells.any(|(row, column)| {
            let cell = screen.cell(row, column);
            cell.is_some_and(|cell| cell.fgcolor() != Color::Default)
        })
    }

    /// A picture for the documents, if any are wanted.
    pub(super) async fn picture(&mut self, name: &str) {
        if pictures().is_none() {
            return;
        }
        let (rows, columns) = self.size();
        let page = tempfile::Builder::new().suffix(".html").tempfile().unwrap();
        std::fs::write(page.path(), self.html()).unwrap();
        let mut browser = Browser::open(&format!("file://{}", page.path().display())).await;
        let (width, height) = (u32::from(columns) * 9 + 32, u32::from(rows) * 19 + 32);
        browser.width(width).await;
        browser.picture(name, height).await;
    }

    fn html(&self) -> String {
        let screen = self.screen.screen();
        let (rows, columns) = self.size();
        let mut html = "<meta charset=utf-8><style>body{margin:0;background:#101418;padding:16px}\
             pre{margin:0;font:15px/19px 'DejaVu Sans Mono',monospace;color:#e6e6e6}\
             span{display:inline-block;width:9px;height:19px;overflow:hidden;vertical-align:top}\
             </style><pre>"
            .to_owned();
        for row in 0..rows {
            for cell in (0..columns).filter_map(|column| screen.cell(row, column)) {
                let (mut text, mut behind) = (css(cell.fgcolor(), "#e6e6e6"), "transparent");
                if cell.inverse() {
                    (text, behind) = ("#101418", text);
                }
                let weight = if cell.bold() { "bold" } else { "normal" };
                let sign = cell.contents().replace('&', "&amp;").replace('<', "&lt;");
                let sign = if sign.is_empty() { " ".to_owned() } else { sign };
                let style = format!("color:{text};background:{behind};font-weight:{weight}");
                write!(html, "<span style='{style}'>{sign}</span>").unwrap();
            }
            html.push('\n');
        }
        html + "</pre>"
    }
}

/// As a dark terminal shows the sixteen colours, of which few are used.
fn css(color: Color, default: &'static str) -> &'static str {
    match color {
        Color::Idx(1 | 9) => "#ff6b6b",
        Color::Idx(2 | 10) => "#69db7c",
        Color::Idx(3 | 11) => "#ffd43b",
        Color::Idx(6 | 14) => "#4dc4ff",
        Color::Idx(8) => "#8b949e",
        _ => default,
    }
}
