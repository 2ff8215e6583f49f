//! ClickHouse behind TLS, with a user, a password and a certificate for each side: what is right
//! works; what is wrong is told in one sentence, loses nothing, and is over when it is mended.

use std::fmt::Write as _;
use std::time::Duration;

use tempfile::TempDir;

use super::asks_for;
use super::authority::{Authority, Signed};
use super::proxy::Proxy;
use crate::bridge::Bridge;
use crate::lab::{Lab, assert_accounts, settled};

/// Of the user `data_bridge` on the servers that all tests share.
const PASSWORD: &str = "data-bridge";

struct Secured {
    lab: Lab,
    ours: Authority,
    stranger: Authority,
    server: Signed,
    client: Signed,
    _dir: TempDir,
}

impl Secured {
    async fn new() -> Self {
        let lab = Lab::new().await;
        lab.numbers_places().await;
        let dir = TempDir::new().unwrap();
        let ours = Authority::new(dir.path(), "ours");
        let stranger = Authority::new(dir.path(), "stranger");
        let server = ours.sign("server", &["localhost"]);
        let client = ours.sign("client", &["bridge"]);
        Self { lab, ours, stranger, server, client, _dir: dir }
    }

    async fn proxy(&self) -> Proxy {
        Proxy::start(&self.lab.at.clickhouse, &self.server, Some(&self.ours)).await
    }

    /// The bridge's side of it, all right.
    fn right(&self, url: &str) -> String {
        self.over(url, PASSWORD, Some(&self.ours), Some(&self.client))
    }

    fn over(
        &self,
        url: &str,
        password: &str,
        trusts: Option<&Authority>,
        shows: Option<&Signed>,
    ) -> String {
        let mut text = format!(
            "[clickhouse]\nurl = \"{url}\"\nuser = \"data_bridge\"\npassword = \"{password}\"\n\
             [clickhouse.tls]\n"
        );
        if let Some(authority) = trusts {
            writeln!(text, "ca_file = {:?}", authority.file()).unwrap();
        }
        if let Some(Signed { cert, key }) = shows {
            writeln!(text, "cert_file = {cert:?}\nkey_file = {key:?}").unwrap();
        }
        text
    }

    async fn stored(&self, bridge: &Bridge, count: u64) {
        let health = bridge
            .wait_until("all of it is stored", |health| settled(health, "kafka", count))
            .await;
        assert_accounts(&health);
        assert_eq!(health["metrics"]["dead_letters"], 0, "{health:#}");
        let all = 0..count;
        assert_eq!(self.lab.stored_numbers(&all).await, (count, count));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_goes_wrong_with_a_certificate_is_told_and_loses_nothing() {
    let place = Secured::new().await;
    let proxy = place.proxy().await;
    let config = place.lab.numbers("kafka");
    let bridge = place.lab.start(&config, &place.right(&proxy.url("localhost"))).await;
    let mut sent = 100;
    place.lab.numbers_to_kafka(0..sent, 1_000).await;
    place.stored(&bridge, sent).await;

    let expired = place.ours.sign_expired("expired", &["localhost"]);
    let elsewhere = place.ours.sign("elsewhere", &["other.test"]);
    let foreign = place.stranger.sign("server", &["localhost"]);
    for (shows, wants, words) in [
        (&expired, &place.ours, "certificate expired on 2021-01-01T00:00:00Z: renew it there"),
        (&elsewhere, &place.ours, "for another name (wanted \\\"localhost\\\""),
        (&foreign, &place.ours, "put that authority's certificate into clickhouse.tls.ca_file"),
        (&place.server, &place.stranger, "does not accept who we are"),
    ] {
        proxy.show(shows, Some(wants));
        place.lab.numbers_to_kafka(sent..sent + 100, 1_000).await;
        sent += 100;
        asks_for(&bridge, words).await;
        proxy.show(&place.server, Some(&place.ours));
        place.stored(&bridge, sent).await;
    }
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_here_is_told_at_the_start_and_nothing_is_taken() {
    let place = Secured::new().await;
    let proxy = place.proxy().await;
    let config = place.lab.numbers("kafka");
    place.lab.numbers_to_kafka(0..100, 1_000).await;
    let url = proxy.url("localhost");
    let (ours, client) = (Some(&place.ours), Some(&place.client));
    for (over, words) in [
        (place.over(&url, PASSWORD, Some(&place.stranger), client), "clickhouse.tls.ca_file"),
        (place.over(&url, PASSWORD, None, client), "clickhouse.tls.ca_file"),
        (place.right(&proxy.url("127.0.0.1")), "correct clickhouse.url"),
        (place.over(&url, PASSWORD, ours, None), "clickhouse.tls.cert_file and key_file"),
        (
            place.right(&place.lab.at.clickhouse.replace("http://127.0.0.1", "https://localhost")),
            "speaks no TLS: correct clickhouse.url",
        ),
        (
            place.over(&url, "wrong", ours, client),
            "correct clickhouse.user and clickhouse.password",
        ),
    ] {
        let mut bridge = place.lab.spawn(&config, &over);
        bridge.listening().await;
        asks_for(&bridge, words).await;
        // with the wrong password it has records by now, which it would wait for at a stop
        bridge.kill().await;
        assert_eq!(place.lab.stored_numbers(&(0..100)).await, (0, 0), "{words}");
    }
    let bridge = place.lab.start(&config, &place.right(&url)).await;
    place.stored(&bridge, 100).await;
    bridge.stop().await;
}

/// `check` says the same, and takes no longer for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_says_what_is_wrong_with_a_certificate() {
    let place = Secured::new().await;
    let proxy = place.proxy().await;
    let config = place.lab.file("base.toml", &place.lab.numbers("kafka"));
    let good = place.lab.file("good.toml", &place.right(&proxy.url("localhost")));
    let bad = place.lab.file("bad.toml", &place.right(&proxy.url("127.0.0.1")));
    for (over, code, words) in
        [(good, 0, "All is well"), (bad, 69, "the server's certificate is for another name")]
    {
        let mut command = crate::bridge::program();
        command.arg("--config").arg(&config).arg("--config").arg(over).arg("check");
        let done = tokio::time::timeout(Duration::from_secs(30), command.output()).await;
        let done = done.unwrap().unwrap();
        let said = String::from_utf8_lossy(&done.stdout).replace("\n    ", " ");
        assert_eq!(done.status.code(), Some(code), "{said}");
        assert!(said.contains(words), "{said}");
    }
}
