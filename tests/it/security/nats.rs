//! NATS with TLS and each way to sign in: what is right works end to end; what is wrong is told in
//! one sentence and is over when it is mended, on the server or in the file.

use std::fmt::Write as _;

use nkeys::KeyPair;

use super::asks_for;
use super::authority::{Authority, Signed};
use crate::bridge::Bridge;
use crate::lab::{Lab, assert_accounts};
use crate::nats_source::auth::operator_mode;
use crate::nats_source::server::{Server, within};
use crate::stack::{Addresses, shared};

struct Secured {
    lab: Lab,
    server: Server,
    ours: Authority,
    good: Signed,
    /// Who may come in, as the server's configuration says it.
    users: String,
    /// The bridge's answer to that.
    sign_in: String,
    publisher: async_nats::ConnectOptions,
}

impl Secured {
    async fn new(users: &str, sign_in: &str, publisher: async_nats::ConnectOptions) -> Self {
        let server = Server::down();
        let at = Addresses {
            kafka: String::new(),
            nats: format!("tls://localhost:{}", server.port),
            clickhouse: shared("CLICKHOUSE"),
        };
        let lab = Lab::at(at, None).await;
        let sql = "CREATE TABLE numbers (n UInt64, _partition Nullable(Int32), \
                   _offset Nullable(Int64)) ENGINE = MergeTree ORDER BY n";
        lab.clickhouse.query(sql).await;
        let ours = Authority::new(server.dir.path(), "ours");
        let good = ours.sign("server", &["localhost"]);
        let publisher = publisher.add_root_certificates(ours.file()).require_tls(true);
        let (users, sign_in) = (users.to_owned(), sign_in.to_owned());
        let mut place = Self { lab, server, ours, good, users, sign_in, publisher };
        place.restart(&place.good.clone()).await;
        place
    }

    /// The server with another certificate.
    async fn restart(&mut self, shows: &Signed) {
        let Signed { cert, key } = shows;
        let tls = format!("tls {{ cert_file: {cert:?}, key_file: {key:?} }}\n{}", self.users);
        self.server.restart(&tls).await;
    }

    fn config(&self) -> String {
        let file = self.ours.file();
        format!("[nats]\n{}\n[nats.tls]\nca_file = {file:?}\n", self.sign_in)
    }

    async fn start(&self) -> Bridge {
        self.lab.start(&self.lab.numbers("nats"), &self.config()).await
    }

    /// A hundred numbers from here on arrive in ClickHouse.
    async fn works(&self, bridge: &Bridge, from: u64) {
        bridge
            .wait_until("connected", |health| {
                health["metrics"]["sources"]["nats"]["connected"] == true
            })
            .await;
        let connecting = self.publisher.clone().connect(self.lab.at.nats.clone());
        let client = within("the publisher connects", connecting).await.unwrap();
        for n in from..from + 100 {
            let subject = self.lab.subject("numbers.1");
            client.publish(subject, format!("{{\"n\":{n}}}").into()).await.unwrap();
        }
        client.flush().await.unwrap();
        let sql = format!("SELECT uniqExact(n) FROM numbers WHERE n >= {from}");
        self.lab.clickhouse.until(&sql, 100).await;
    }
}

fn options() -> async_nats::ConnectOptions {
    async_nats::ConnectOptions::new()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_goes_wrong_with_a_certificate_is_told_and_ends_when_it_is_mended() {
    let mut place = Secured::new("", "", options()).await;
    let bridge = place.start().await;
    place.works(&bridge, 0).await;
    let stranger = Authority::new(place.server.dir.path(), "stranger");
    let (expired, elsewhere, foreign) = (
        place.ours.sign_expired("expired", &["localhost"]),
        place.ours.sign("elsewhere", &["other.test"]),
        stranger.sign("server", &["localhost"]),
    );
    let mut from = 0;
    for (shows, words) in [
        (&expired, "certificate expired on 2021-01-01T00:00:00Z: renew it there"),
        (&elsewhere, "for another name (wanted \\\"localhost\\\""),
        (&foreign, "put that authority's certificate into nats.tls.ca_file"),
    ] {
        place.restart(shows).await;
        asks_for(&bridge, words).await;
        place.restart(&place.good.clone()).await;
        from += 1_000;
        place.works(&bridge, from).await;
    }
    // the bridge's own file may be mended too: it is read at each attempt
    let file = place.ours.file();
    place.restart(&foreign).await;
    asks_for(&bridge, "nats.tls.ca_file").await;
    std::fs::copy(stranger.file(), &file).unwrap();
    bridge
        .wait_until("connected", |health| health["metrics"]["sources"]["nats"]["connected"] == true)
        .await;
    assert_accounts(&bridge.health().await);
    bridge.stop().await;
}

/// In with the right one; the wrong one is told, and is over when the server takes it.
async fn signs_in(place: &mut Secured, wrong_users: &str, words: &str) {
    let bridge = place.start().await;
    place.works(&bridge, 0).await;
    let right = std::mem::replace(&mut place.users, wrong_users.to_owned());
    place.restart(&place.good.clone()).await;
    asks_for(&bridge, words).await;
    place.users = right;
    place.restart(&place.good.clone()).await;
    place.works(&bridge, 1_000).await;
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_and_a_password_over_tls() {
    let users = |password| format!("authorization {{ user: me, password: \"{password}\" }}");
    let publisher = options().user_and_password("me".to_owned(), "right".to_owned());
    let sign_in = "user = \"me\"\npassword = \"right\"";
    let mut place = Secured::new(&users("right"), sign_in, publisher).await;
    signs_in(&mut place, &users("other"), "correct nats.user and nats.password").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_over_tls() {
    let users = |token| format!("authorization {{ token: \"{token}\" }}");
    let sign_in = "token = \"right\"";
    let publisher = options().token("right".to_owned());
    let mut place = Secured::new(&users("right"), sign_in, publisher).await;
    signs_in(&mut place, &users("other"), "correct nats.token").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_nkey_over_tls() {
    let (right, other) = (KeyPair::new_user(), KeyPair::new_user());
    let users =
        |key: &KeyPair| format!("authorization {{ users = [ {{ nkey: {} }} ] }}", key.public_key());
    let seed = right.seed().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("user.nk");
    std::fs::write(&file, &seed).unwrap();
    let mut sign_in = String::new();
    writeln!(sign_in, "nkey_file = {file:?}").unwrap();
    let mut place = Secured::new(&users(&right), &sign_in, options().nkey(seed)).await;
    signs_in(&mut place, &users(&other), "correct nats.nkey_file").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_credentials_file_over_tls() {
    let ((right, credentials), (other, _)) = (operator_mode(), operator_mode());
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("user.creds");
    std::fs::write(&file, &credentials).unwrap();
    let publisher = options().credentials(&credentials).unwrap();
    let sign_in = format!("credentials_file = {file:?}");
    let mut place = Secured::new(&right, &sign_in, publisher).await;
    signs_in(&mut place, &other, "correct nats.credentials_file").await;
}
