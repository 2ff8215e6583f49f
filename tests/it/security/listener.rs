//! The real binary behind TLS and a token, asked by `data-bridge health` and by strangers.

use std::path::Path;
use std::process::Output;

use tempfile::TempDir;

use super::authority::Authority;
use crate::bridge::{Bridge, PATIENCE, get, program};
use crate::stack::free_port;

/// A bridge whose servers are away: it serves HTTP all the same.
fn config(dir: &Path, port: u16, http: &str) -> std::path::PathBuf {
    let text = format!(
        "[nats]\nservers = [\"nats://127.0.0.1:9\"]\n\
         [clickhouse]\nurl = \"http://127.0.0.1:9\"\n\
         [[routes]]\nname = \"x\"\nnats_subjects = [\"x\"]\ntable = \"x\"\n\
         [http]\nlisten = \"127.0.0.1:{port}\"\n{http}\n"
    );
    let path = dir.join("bridge.toml");
    std::fs::write(&path, text).unwrap();
    path
}

/// What `data-bridge health` says. Asked once more where a busy machine was silent for longer than it
/// waits.
async fn health(arguments: &[&str]) -> (i32, String) {
    let first = health_once(arguments).await;
    if first.1.contains("no answer from") { health_once(arguments).await } else { first }
}

async fn health_once(arguments: &[&str]) -> (i32, String) {
    let asking = program().arg("health").args(arguments).output();
    let Output { status, stdout, stderr } =
        tokio::time::timeout(PATIENCE, asking).await.unwrap().unwrap();
    let said = String::from_utf8_lossy(&stdout) + String::from_utf8_lossy(&stderr);
    (status.code().unwrap(), said.into_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_asks_a_bridge_that_speaks_tls() {
    let dir = TempDir::new().unwrap();
    let (authority, stranger) =
        (Authority::new(dir.path(), "ours"), Authority::new(dir.path(), "stranger"));
    // for a name, as in production; the check on the same machine asks 127.0.0.1
    let signed = authority.sign("bridge", &["localhost"]);
    let port = free_port();
    let tls = format!("[http.tls]\ncert_file = {:?}\nkey_file = {:?}", signed.cert, signed.key);
    let config = config(dir.path(), port, &tls);
    let mut bridge = Bridge::spawn(dir.path().join("log"), std::slice::from_ref(&config));
    bridge.listening().await;

    let own = health(&["--config", config.to_str().unwrap()]).await;
    assert_eq!(own.0, 0, "its own configuration is enough: {}", own.1);
    let (named, addressed) =
        (format!("https://localhost:{port}"), format!("https://127.0.0.1:{port}"));
    let (ca, other) = (authority.file(), stranger.file());
    let (ca, other) = (ca.to_str().unwrap(), other.to_str().unwrap());
    let good = health(&["--url", &named, "--ca-file", ca]).await;
    assert_eq!(good.0, 0, "{}", good.1);
    for (url, ca, advice) in [
        (&named, other, "put that authority's certificate into --ca-file"),
        (&addressed, ca, "is for another name (wanted \"127.0.0.1\""),
        (&format!("http://localhost:{port}"), ca, "it speaks TLS: ask with https://"),
    ] {
        let (code, said) = health(&["--url", url, "--ca-file", ca]).await;
        assert_eq!(code, 1, "{said}");
        assert!(said.contains(advice), "{said}");
    }
    let (code, said) = health(&["--url", &named]).await;
    assert!(code == 1 && said.contains("--ca-file"), "the system's authorities: {said}");
    let (status, said) = get(&format!("http://127.0.0.1:{port}/health")).await.unwrap();
    assert!(status == 400 && said.contains("https://"), "{status} {said}");
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expired_certificate_is_told_with_its_date() {
    let dir = TempDir::new().unwrap();
    let authority = Authority::new(dir.path(), "ours");
    let signed = authority.sign_expired("bridge", &["localhost"]);
    let port = free_port();
    let tls = format!("[http.tls]\ncert_file = {:?}\nkey_file = {:?}", signed.cert, signed.key);
    let config = config(dir.path(), port, &tls);
    let mut bridge = Bridge::spawn(dir.path().join("log"), std::slice::from_ref(&config));
    bridge.listening().await;
    let (url, ca) = (format!("https://localhost:{port}"), authority.file());
    let (code, said) = health(&["--url", &url, "--ca-file", ca.to_str().unwrap()]).await;
    assert!(code == 1 && said.contains("expired on 2021-01-01T00:00:00Z: renew it"), "{said}");
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_says_so_when_no_tls_is_spoken() {
    let dir = TempDir::new().unwrap();
    let authority = Authority::new(dir.path(), "ours");
    let port = free_port();
    let config = config(dir.path(), port, "");
    let mut bridge = Bridge::spawn(dir.path().join("log"), std::slice::from_ref(&config));
    bridge.listening().await;
    assert_eq!(health(&["--config", config.to_str().unwrap()]).await.0, 0);
    let ca = authority.file();
    let url = format!("https://127.0.0.1:{port}");
    let (code, said) = health(&["--url", &url, "--ca-file", ca.to_str().unwrap()]).await;
    assert!(code == 1 && said.contains("speaks no TLS"), "{said}");
    bridge.stop().await;
}

/// Found when the configuration is read, and by its key: not at the first handshake.
#[tokio::test]
async fn a_certificate_that_cannot_be_used_is_a_mistake_in_the_configuration() {
    let dir = TempDir::new().unwrap();
    let authority = Authority::new(dir.path(), "ours");
    let (one, other) = (authority.sign("one", &["a"]), authority.sign("other", &["b"]));
    let missing = dir.path().join("missing.pem");
    for (cert, key, said) in [
        (&one.cert, &other.key, "http.tls.key_file"),
        (&one.key, &one.key, "http.tls.cert_file"),
        (&one.cert, &missing, "http.tls.key_file"),
    ] {
        let tls = format!("[http.tls]\ncert_file = {cert:?}\nkey_file = {key:?}");
        let config = config(dir.path(), 1, &tls);
        let (code, text) = health(&["--config", config.to_str().unwrap()]).await;
        assert_eq!(code, 64, "{text}");
        assert!(text.contains(said) && !text.contains("PRIVATE KEY"), "{text}");
    }
    let half = config(dir.path(), 1, &format!("[http.tls]\ncert_file = {:?}", one.cert));
    let (code, text) = health(&["--config", half.to_str().unwrap()]).await;
    assert!(code == 64 && text.contains("http.tls.key_file: is missing"), "{text}");
}
