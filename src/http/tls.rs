//! The handshake of a connection, and a word to those who forgot it.

use std::sync::Arc;

use anyhow::{Context as _, bail};
use rustls::ServerConfig;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// The first byte of every TLS connection: a record of the kind "handshake". No HTTP method
/// begins so.
const HANDSHAKE: u8 = 22;

const PLAIN: &str = "HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\nconnection: close\r\n\
                     content-length: 52\r\n\r\nThis port speaks TLS: ask again with https:// here.\n";

/// What a plain request may still send before it is cut: its head. Closing while something is
/// unread would reset the connection, and the client might never see the answer.
const MAX_UNREAD_BYTES: u64 = 64 * 1024;

/// Shakes hands. The caller bounds the time.
pub(super) async fn accept(
    mut stream: TcpStream,
    config: Arc<ServerConfig>,
) -> anyhow::Result<TlsStream<TcpStream>> {
    let mut first = [0];
    if stream.peek(&mut first).await? == 0 {
        bail!("it was closed at once");
    }
    if first != [HANDSHAKE] {
        stream.write_all(PLAIN.as_bytes()).await?;
        stream.shutdown().await?;
        let mut unread = stream.take(MAX_UNREAD_BYTES);
        tokio::io::copy(&mut unread, &mut tokio::io::sink()).await?;
        bail!("it spoke no TLS; it was told so");
    }
    TlsAcceptor::from(config).accept(stream).await.context("the TLS handshake")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_to_plain_http_is_as_long_as_it_says() {
        let (head, body) = PLAIN.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}", body.len())), "{}", body.len());
    }
}
