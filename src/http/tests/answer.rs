//! What came back, read from the socket.

use serde_json::Value;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::SOON;

#[derive(Debug)]
pub(in crate::http) struct Answer {
    pub(in crate::http) code: u16,
    pub(in crate::http) head: String,
    pub(in crate::http) body: String,
    /// All of it, as it came.
    pub(in crate::http) original: String,
}

impl Answer {
    /// Everything until the server closes.
    pub(in crate::http) async fn read(stream: &mut TcpStream) -> Self {
        let mut text = String::new();
        timeout(SOON, stream.read_to_string(&mut text)).await.unwrap().unwrap();
        Self::parse(&text)
    }

    pub(in crate::http) fn parse(text: &str) -> Self {
        let (head, body) = text.split_once("\r\n\r\n").expect("an answer");
        let code = head.split(' ').nth(1).unwrap().parse().unwrap();
        let (head, body, original) = (head.to_ascii_lowercase(), body.to_owned(), text.to_owned());
        Self { code, head, body, original }
    }

    pub(in crate::http) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("not JSON: {self:?}"))
    }
}
