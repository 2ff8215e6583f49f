//! The listener with TLS: real certificates, strangers, and files that change.

use std::path::PathBuf;

use rustls::pki_types::ServerName;
use tokio_rustls::TlsConnector;

use super::*;
use crate::config::HttpTls;
use crate::tls as pem;

/// A certificate in files, signed by an authority of its own.
struct Files {
    dir: tempfile::TempDir,
}

impl Files {
    fn new() -> Self {
        let files = Self { dir: tempfile::tempdir().unwrap() };
        files.renew();
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Puts another certificate there.
    fn renew(&self) {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec!["bridge.test".to_owned()]).unwrap();
        let cert = params.self_signed(&key).unwrap();
        std::fs::write(self.path("cert.pem"), cert.pem()).unwrap();
        std::fs::write(self.path("key.pem"), key.serialize_pem()).unwrap();
    }

    fn config(&self) -> config::Http {
        config::Http {
            listen: "127.0.0.1:0".parse().unwrap(),
            token: None,
            token_file: None,
            tls: Some(HttpTls { cert_file: self.path("cert.pem"), key_file: self.path("key.pem") }),
        }
    }

    /// A client that trusts what lies there now.
    fn trust(&self) -> TlsConnector {
        let mut chain = pem::certificates(&self.path("cert.pem")).unwrap();
        TlsConnector::from(Arc::new(pem::pinned(chain.swap_remove(0)).unwrap()))
    }
}

async fn over_tls(
    address: SocketAddr,
    trust: &TlsConnector,
    request: &str,
) -> std::io::Result<Answer> {
    let name = ServerName::try_from("bridge.test").unwrap();
    let stream = TcpStream::connect(address).await?;
    let mut stream = timeout(SOON, trust.connect(name, stream)).await.unwrap()?;
    stream.write_all(request.as_bytes()).await?;
    let mut text = String::new();
    timeout(SOON, stream.read_to_string(&mut text)).await.unwrap()?;
    Ok(Answer::parse(&text))
}

const HEALTH: &str = "GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";

#[tokio::test]
async fn health_is_answered_over_tls() {
    let files = Files::new();
    let bridge = Running::with(Limits::default(), Access::new(&files.config()).unwrap()).await;
    let answer = over_tls(bridge.address, &files.trust(), HEALTH).await.unwrap();
    assert_eq!((answer.code, answer.json()["service"].clone()), (200, "data-bridge".into()));
    let stranger = Files::new().trust();
    over_tls(bridge.address, &stranger, HEALTH).await.unwrap_err();
    bridge.stopped().await;
}

#[tokio::test]
async fn plain_http_on_the_tls_port_is_told_so() {
    let files = Files::new();
    let bridge = Running::with(Limits::default(), Access::new(&files.config()).unwrap()).await;
    let answer = bridge.get("/metrics").await;
    assert_eq!(answer.code, 400);
    assert!(answer.body.contains("https://"), "{answer:?}");
    // one that never ends its head, and one that sends no byte at all, are cut
    let limits = Limits { handshake: Duration::from_millis(300), ..Limits::default() };
    let short = Running::with(limits, Access::new(&files.config()).unwrap()).await;
    for start in ["GET /health HTTP/1.1\r\nx: ", "\x16\x03\x01", ""] {
        let mut stream = TcpStream::connect(short.address).await.unwrap();
        stream.write_all(start.as_bytes()).await.unwrap();
        let mut rest = Vec::new();
        timeout(SOON, stream.read_to_end(&mut rest)).await.expect("it is closed").ok();
    }
    let trust = files.trust();
    // A handshake that a stall of the machine cuts is tried again.
    until(async || over_tls(short.address, &trust, HEALTH).await.is_ok()).await;
    short.stopped().await;
    bridge.stopped().await;
}

#[tokio::test]
async fn tls_on_a_plain_port_is_refused_and_not_hung() {
    let bridge = Running::plain().await;
    over_tls(bridge.address, &Files::new().trust(), HEALTH).await.unwrap_err();
    assert_eq!(bridge.code("/livez").await, 200);
}

#[tokio::test]
async fn a_client_that_stalls_its_handshake_makes_room_for_others() {
    let limits =
        Limits { connections: 1, handshake: Duration::from_millis(300), ..Limits::default() };
    let files = Files::new();
    let bridge = Running::with(limits, Access::new(&files.config()).unwrap()).await;
    let mut stalled = TcpStream::connect(bridge.address).await.unwrap();
    stalled.write_all(b"\x16\x03\x01\x02\x00\x01").await.unwrap();
    let trust = files.trust();
    until(async || {
        let answer = over_tls(bridge.address, &trust, HEALTH).await;
        answer.is_ok_and(|answer| answer.code == 200)
    })
    .await;
    bridge.stopped().await;
}

#[tokio::test]
async fn a_stop_does_not_wait_for_a_handshake() {
    let files = Files::new();
    let limits = Limits { handshake: LONG, finish: LONG, ..Limits::default() };
    let bridge = Running::with(limits, Access::new(&files.config()).unwrap()).await;
    let _stalled = TcpStream::connect(bridge.address).await.unwrap();
    assert!(over_tls(bridge.address, &files.trust(), HEALTH).await.is_ok(), "it was accepted");
    bridge.stopped().await;
}

/// Asks until what is wanted is answered; each answer in between must be one or the other.
async fn until(mut asks: impl AsyncFnMut() -> bool) {
    let all = async {
        while !asks().await {
            tokio::task::yield_now().await;
        }
    };
    timeout(SOON, all).await.expect("it changes");
}

#[tokio::test]
async fn a_renewed_certificate_is_taken_without_a_restart() {
    let files = Files::new();
    let access = Access::looking_every(&files.config(), Duration::from_millis(20)).unwrap();
    let bridge = Running::with(Limits::default(), access).await;
    let old = files.trust();
    assert!(over_tls(bridge.address, &old, HEALTH).await.is_ok());
    files.renew();
    let new = files.trust();
    until(async || over_tls(bridge.address, &new, HEALTH).await.is_ok()).await;
    over_tls(bridge.address, &old, HEALTH).await.unwrap_err();
    bridge.stopped().await;
}

#[tokio::test]
async fn a_renewed_token_replaces_the_old_one() {
    let files = Files::new();
    let file = files.path("token");
    std::fs::write(&file, "first\n").unwrap();
    let config = config::Http {
        token: Some("first".into()),
        token_file: Some(file.clone()),
        tls: None,
        ..files.config()
    };
    let access = Access::looking_every(&config, Duration::from_millis(20)).unwrap();
    let bridge = Running::with(Limits::default(), access).await;
    let code = async |token: &str| {
        let head = format!("authorization: Bearer {token}\r\nconnection: close");
        bridge.ask(&format!("GET /metrics HTTP/1.1\r\nhost: x\r\n{head}\r\n\r\n")).await.code
    };
    assert_eq!((code("first").await, code("second").await), (200, 401));
    std::fs::write(&file, "second\n").unwrap();
    until(async || code("second").await == 200).await;
    assert_eq!(code("first").await, 401);
    bridge.stopped().await;
}

#[tokio::test]
async fn what_goes_on_ends_with_the_token_that_opened_it() {
    let files = Files::new();
    let file = files.path("token");
    std::fs::write(&file, "first\n").unwrap();
    let config = config::Http { token_file: Some(file.clone()), tls: None, ..files.config() };
    let access = Access::looking_every(&config, Duration::from_millis(20)).unwrap();
    let bridge = Running::with(Limits::default(), access).await;
    let upgrade = "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
                   sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let mut open = Vec::new();
    for (path, more, code) in [
        ("/ws", upgrade, "101"),
        ("/topics/candles/events", "", "200"),
        ("/health/stream", "", "200"),
    ] {
        let mut stream = TcpStream::connect(bridge.address).await.unwrap();
        let head = format!("host: localhost\r\nauthorization: Bearer first\r\n{more}");
        let request = format!("GET {path} HTTP/1.1\r\n{head}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut begun = [0; "HTTP/1.1 200".len()];
        timeout(SOON, stream.read_exact(&mut begun)).await.unwrap().unwrap();
        assert!(begun.ends_with(code.as_bytes()), "{path}: {}", String::from_utf8_lossy(&begun));
        open.push((path, stream));
    }
    std::fs::write(&file, "second\n").unwrap();
    for (path, mut stream) in open {
        let mut rest = Vec::new();
        let ended = timeout(SOON, async {
            while stream.read_buf(&mut rest).await.unwrap() > 0
                && !rest.ends_with(b"\r\n0\r\n\r\n")
                && !rest.ends_with(b"the token has changed")
            {}
        });
        let ended = ended.await;
        assert!(ended.is_ok(), "{path}: {:?}", String::from_utf8_lossy(&rest));
        let says_why = rest.ends_with(b"\x03\xf0the token has changed");
        assert_eq!(says_why, path == "/ws", "{path}: closed with 1008");
    }
    bridge.stopped().await;
}

#[test]
fn a_certificate_that_cannot_be_used_is_named() {
    let (one, other) = (Files::new(), Files::new());
    let said = |cert: PathBuf, key: PathBuf| pem::identity(&cert, &key).unwrap_err().to_string();
    let (cert, key) = (one.path("cert.pem"), one.path("key.pem"));
    let mixed = said(cert.clone(), other.path("key.pem"));
    assert!(mixed.starts_with("key_file: is not the key of the certificate"), "{mixed}");
    let swapped = said(key.clone(), cert.clone());
    assert!(swapped.starts_with("cert_file: the file holds no certificate"), "{swapped}");
    let no_key = said(cert.clone(), cert.clone());
    assert!(no_key.starts_with("key_file: the file holds no private key"), "{no_key}");
    let encrypted = one.path("encrypted.pem");
    let armour = "ENCRYPTED PRIVATE KEY-----";
    std::fs::write(&encrypted, format!("-----BEGIN {armour}\nMIIB\n-----END {armour}\n")).unwrap();
    assert!(said(cert, encrypted).contains("openssl pkey"));
    let missing = said(one.path("nothing.pem"), key);
    assert!(missing.starts_with("cert_file: the file cannot be read: No such file"), "{missing}");
}
