//! Who we are: every form of authentication, and TLS.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use data_bridge::config::{NatsAuth, Tls};
use nkeys::KeyPair;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer};

use super::bridge::{Bridge, Setup};
use super::server::{Server, within};

pub(crate) fn user(user: &str, password: &str) -> NatsAuth {
    NatsAuth::UserPassword { user: user.to_owned(), password: password.to_owned().into() }
}

/// It connects, and a record that another such connection publishes arrives.
async fn works(server: &Server, auth: NatsAuth, options: async_nats::ConnectOptions) {
    let mut bridge = Setup::new(server, &["a.*"]).auth(auth).start().await;
    let to = within("the publisher connects", options.connect(server.url())).await.unwrap();
    bridge.until_subscribed(&to, "a.probe").await;
    bridge.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn user_and_password() {
    let server = Server::start("authorization { user: me, password: \"s3cret\" }").await;
    let options = async_nats::ConnectOptions::with_user_and_password("me".into(), "s3cret".into());
    Box::pin(works(&server, user("me", "s3cret"), options)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token() {
    let server = Server::start("authorization { token: \"t0ken\" }").await;
    let options = async_nats::ConnectOptions::with_token("t0ken".into());
    Box::pin(works(&server, NatsAuth::Token("t0ken".to_owned().into()), options)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_nkey() {
    let key = KeyPair::new_user();
    let config = format!("authorization {{ users = [ {{ nkey: {} }} ] }}", key.public_key());
    let server = Server::start(&config).await;
    let seed = key.seed().unwrap();
    let path = server.write("user.nk", &format!("# the bridge\n{seed}\n"));
    Box::pin(works(&server, NatsAuth::NkeyFile(path), async_nats::ConnectOptions::with_nkey(seed)))
        .await;
}

/// A server's configuration in operator mode, and a user's credentials for it.
pub(crate) fn operator_mode() -> (String, String) {
    let (operator, account, user) =
        (KeyPair::new_operator(), KeyPair::new_account(), KeyPair::new_user());
    let operator_jwt = jwt(&operator, &operator, "operator");
    let account_jwt = jwt(&operator, &account, "account");
    let config = format!(
        "operator: {operator_jwt}\nresolver: MEMORY\nresolver_preload: {{ {}: {account_jwt} }}\n",
        account.public_key(),
    );
    let credentials = format!(
        "-----BEGIN NATS USER JWT-----\n{}\n------END NATS USER JWT------\n\n\
         -----BEGIN USER NKEY SEED-----\n{}\n------END USER NKEY SEED------\n",
        jwt(&account, &user, "user"),
        user.seed().unwrap(),
    );
    (config, credentials)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_credentials_file() {
    let (config, credentials) = operator_mode();
    let server = Server::start(&config).await;
    let path = server.write("user.creds", &credentials);
    let options = async_nats::ConnectOptions::with_credentials(&credentials).unwrap();
    Box::pin(works(&server, NatsAuth::CredentialsFile(path), options)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_is_missing_or_wrong_is_named_at_the_start() {
    let server = Server::down();
    let missing = server.path("nobody");
    let empty = server.write("empty", "nothing of use\n");
    for path in [missing, empty] {
        for auth in [NatsAuth::CredentialsFile(path.clone()), NatsAuth::NkeyFile(path.clone())] {
            names(Setup::new(&server, &["a"]).auth(auth).try_start().await, &path);
        }
    }
    let missing = server.path("ca.pem");
    let mut setup = Setup::new(&server, &["a"]);
    setup.nats.tls = Some(Tls { ca_file: Some(missing.clone()), ..Tls::default() });
    names(setup.try_start().await, &missing);
}

fn names(result: anyhow::Result<Bridge>, path: &std::path::Path) {
    let error = format!("{:#}", result.err().expect("it cannot start"));
    assert!(error.contains(path.to_str().unwrap()), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_password_is_visible_and_works_once_it_is_right() {
    let mut server = Server::start("authorization { user: me, password: \"old\" }").await;
    let mut bridge = Setup::new(&server, &["a.*"]).auth(user("me", "new")).start().await;
    bridge.until_error("refused our login").await;
    server.restart("authorization { user: me, password: \"new\" }").await;
    let options = async_nats::ConnectOptions::with_user_and_password("me".into(), "new".into());
    let to = within("the publisher connects", options.connect(server.url())).await.unwrap();
    bridge.until_subscribed(&to, "a.probe").await;
    let said = format!("{:?}", bridge.connections);
    assert!(!said.contains("new") && !said.contains("old"), "{said}");
    bridge.close().await;
}

struct Certificates {
    config: String,
    ca: PathBuf,
    other_ca: PathBuf,
    cert: PathBuf,
    key: PathBuf,
}

/// An authority, a server's certificate for 127.0.0.1, a client's, and an authority of a stranger.
fn certificates(server: &Server) -> Certificates {
    let authority = || {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().unwrap();
        (params.self_signed(&key).unwrap(), Issuer::new(params, key))
    };
    let (ca, issuer) = authority();
    let ca_path = server.write("ca.pem", &ca.pem());
    let other_ca = server.write("other-ca.pem", &authority().0.pem());
    let signed = |name: &str, san: &str| {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![san.to_owned()]).unwrap();
        let cert = params.signed_by(&key, &issuer).unwrap();
        let cert = server.write(&format!("{name}.pem"), &cert.pem());
        (cert, server.write(&format!("{name}.key"), &key.serialize_pem()))
    };
    let (server_cert, server_key) = signed("server", "127.0.0.1");
    let (cert, key) = signed("client", "bridge");
    let config = format!(
        "tls {{ cert_file: {server_cert:?}, key_file: {server_key:?}, ca_file: {ca_path:?}, \
         verify: true }}"
    );
    Certificates { config, ca: ca_path, other_ca, cert, key }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_with_a_private_authority_and_a_client_certificate() {
    let mut server = Server::down();
    let certificates = certificates(&server);
    server.restart(&certificates.config).await;
    let options = async_nats::ConnectOptions::new()
        .add_root_certificates(certificates.ca.clone())
        .add_client_certificate(certificates.cert.clone(), certificates.key.clone());
    let url = server.url().replace("nats://", "tls://");
    let to = within("the publisher connects", options.connect(url.clone())).await.unwrap();
    let setup = |ca: &PathBuf| {
        let mut setup = Setup::new(&server, &["a.*"]);
        setup.nats.servers = vec![url.clone()];
        setup.nats.tls = Some(Tls {
            ca_file: Some(ca.clone()),
            cert_file: Some(certificates.cert.clone()),
            key_file: Some(certificates.key.clone()),
        });
        setup
    };
    let mut bridge = setup(&certificates.ca).start().await;
    bridge.until_subscribed(&to, "a.probe").await;
    bridge.close().await;

    let mut stranger = setup(&certificates.other_ca).start().await;
    stranger.until_error("certificate").await;
    stranger.close().await;
}

/// A JWT as NATS wants it: signed with an nkey, the claims under `nats`.
fn jwt(issuer: &KeyPair, subject: &KeyPair, kind: &str) -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let issued = (now - Duration::from_secs(60)).as_secs();
    let limits = match kind {
        "account" => {
            r#","limits":{"subs":-1,"data":-1,"payload":-1,"imports":-1,"exports":-1,"conn":-1,"leaf":-1,"wildcards":true}"#
        }
        "user" => r#","subs":-1,"data":-1,"payload":-1"#,
        _ => "",
    };
    let mut claims = String::new();
    write!(
        claims,
        r#"{{"jti":"{kind}","iat":{issued},"iss":"{}","sub":"{}","name":"{kind}","nats":{{"type":"{kind}","version":2{limits}}}}}"#,
        issuer.public_key(),
        subject.public_key(),
    )
    .unwrap();
    let signed = format!(
        "{}.{}",
        base64url(br#"{"typ":"JWT","alg":"ed25519-nkey"}"#),
        base64url(claims.as_bytes())
    );
    format!("{signed}.{}", base64url(&issuer.sign(signed.as_bytes()).unwrap()))
}

fn base64url(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let bits = group.iter().fold(0_usize, |bits, byte| bits << 8 | usize::from(*byte));
        let bits = bits << (8 * (3 - group.len()));
        for digit in 0..=group.len() {
            text.push(char::from(DIGITS[bits >> (18 - 6 * digit) & 63]));
        }
    }
    text
}
