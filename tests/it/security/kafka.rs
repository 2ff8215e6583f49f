//! A Kafka that speaks TLS, wants a certificate and a SCRAM password: what is right works; what is
//! wrong is told with what to do, and nothing is skipped meanwhile.

use std::path::Path;

use tempfile::TempDir;

use super::asks_for;
use super::authority::{Authority, Signed};
use crate::bridge::{Bridge, program};
use crate::lab::{Lab, assert_accounts, settled};
use crate::stack::{Addresses, Stack, is_apache_kafka, shared};

struct Secured {
    lab: Lab,
    secure: String,
    expired: String,
    ours: Authority,
    stranger: Authority,
    client: Signed,
    _dir: TempDir,
}

impl Secured {
    /// A broker of its own. Beside TLS it has an open listener, for the test's own clients.
    async fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let security = dir.path().join("security");
        std::fs::create_dir(&security).unwrap();
        let ours = Authority::new(dir.path(), "ours");
        let stranger = Authority::new(dir.path(), "stranger");
        let client = ours.sign("client", &["bridge"]);
        std::fs::copy(ours.file(), security.join("ca.pem")).unwrap();
        store(&ours.sign("broker", &["127.0.0.1"]), &security.join("broker.pem"));
        store(&ours.sign_expired("expired", &["127.0.0.1"]), &security.join("expired.pem"));
        let stack = tokio::task::spawn_blocking(move || {
            let stack = Stack::reserve();
            stack.run(&["up", "kafka", "--kafka-security", security.to_str().unwrap()]);
            stack.run(&["kafka-user", "bridge", "right"]);
            stack
        });
        let stack = stack.await.unwrap();
        let (secure, expired) = (stack.address("KAFKA_SECURE"), stack.address("KAFKA_EXPIRED"));
        let at = Addresses {
            kafka: stack.address("KAFKA"),
            nats: String::new(),
            clickhouse: shared("CLICKHOUSE"),
        };
        let lab = Lab::at(at, Some(stack)).await;
        lab.numbers_places().await;
        Self { lab, secure, expired, ours, stranger, client, _dir: dir }
    }

    fn over(
        &self,
        broker: &str,
        password: &str,
        ca: &Authority,
        client: Option<&Signed>,
    ) -> String {
        let ca = ca.file();
        let shows = client.map(|Signed { cert, key }| {
            format!("\"ssl.certificate.location\" = {cert:?}\n\"ssl.key.location\" = {key:?}\n")
        });
        format!(
            "[kafka]\nbrokers = [\"{broker}\"]\n[kafka.client]\n\
             \"security.protocol\" = \"SASL_SSL\"\n\"sasl.mechanism\" = \"SCRAM-SHA-512\"\n\
             \"sasl.username\" = \"bridge\"\n\"sasl.password\" = \"{password}\"\n\
             \"ssl.ca.location\" = {ca:?}\n{}",
            shows.unwrap_or_default()
        )
    }

    fn right(&self) -> String {
        self.over(&self.secure, "right", &self.ours, Some(&self.client))
    }

    fn set_password(&self, password: &str) {
        let stack = self.lab.own.as_ref().expect("a broker of its own");
        tokio::task::block_in_place(|| stack.run(&["kafka-user", "bridge", password]));
    }

    async fn stored(&self, bridge: &Bridge, count: u64) {
        let health =
            bridge.wait_until("all of it is stored", |health| settled(health, "kafka", 100)).await;
        assert_accounts(&health);
        assert_eq!(self.lab.stored_numbers(&(0..count)).await, (count, count));
    }

    /// What `check` finds wrong.
    async fn checked(&self, over: &str) -> String {
        let base = self.lab.file("check.toml", &self.lab.numbers("kafka"));
        let over = self.lab.file("check-over.toml", over);
        let mut command = program();
        command.arg("--config").arg(base).arg("--config").arg(over).arg("check");
        let done = tokio::time::timeout(crate::bridge::PATIENCE, command.output()).await;
        let words = String::from_utf8_lossy(&done.unwrap().unwrap().stdout).into_owned();
        words.split_whitespace().collect::<Vec<_>>().join(" ")
    }
}

/// A key and its certificate in one file, as Kafka wants them.
fn store(signed: &Signed, path: &Path) {
    let read = |path| std::fs::read_to_string(path).unwrap();
    std::fs::write(path, read(&signed.key) + &read(&signed.cert)).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_right_works_and_what_is_wrong_is_told() {
    if !is_apache_kafka("SCRAM over TLS") {
        return;
    }
    let place = Secured::new().await;
    let config = place.lab.numbers("kafka");
    let client = Some(&place.client);

    // what is wrong here: nothing is taken, nothing is skipped
    place.lab.numbers_to_kafka(0..100, 1_000).await;
    let by_name = place.secure.replace("127.0.0.1", "localhost");
    let any_cause = "the broker's certificate is not accepted";
    for (over, running, checking) in [
        (
            place.over(&place.secure, "right", &place.stranger, client),
            any_cause,
            "put that authority's certificate into the file of ssl.ca.location",
        ),
        (
            place.over(&by_name, "right", &place.ours, client),
            any_cause,
            "for another name (wanted \"localhost\"",
        ),
        (
            place.over(&place.expired, "right", &place.ours, client),
            any_cause,
            "certificate expired on 2021-01-01T00:00:00Z: renew it there",
        ),
        (
            place.over(&place.secure, "right", &place.ours, None),
            "ssl.certificate.location and ssl.key.location",
            "ssl.certificate.location and ssl.key.location",
        ),
        (
            place.over(&place.secure, "wrong", &place.ours, client),
            "correct sasl.username and sasl.password in [kafka.client]",
            "correct sasl.username and sasl.password in [kafka.client]",
        ),
        (
            place.right().replace("SASL_SSL", "PLAINTEXT"),
            "brokers are down",
            "set security.protocol in [kafka.client]",
        ),
    ] {
        let bridge = place.lab.spawn(&config, &over).ready().await;
        asks_for(&bridge, running).await;
        bridge.stop().await;
        let said = place.checked(&over).await;
        assert!(said.contains(checking), "{checking} is not in: {said}");
        assert_eq!(place.lab.stored_numbers(&(0..100)).await, (0, 0), "{running}");
    }
    let bridge = place.lab.start(&config, &place.right()).await;
    place.stored(&bridge, 100).await;
    bridge.stop().await;
    assert!(place.checked(&place.right()).await.contains("All is well"));

    // a password that becomes right while the bridge runs
    let bridge =
        place.lab.spawn(&config, &place.right().replace("\"right\"", "\"new\"")).ready().await;
    asks_for(&bridge, "correct sasl.username and sasl.password").await;
    place.lab.numbers_to_kafka(100..200, 1_000).await;
    place.set_password("new");
    place.stored(&bridge, 200).await;
    bridge.stop().await;
}
