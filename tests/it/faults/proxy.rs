//! A proxy between the bridge and ClickHouse that breaks inserts as the test says, while it runs.
//!
//! It reads whole HTTP/1.1 requests (the bridge keeps its connections alive), asks its script what
//! to do with each insert, and counts. Questions that are no inserts pass, unless the proxy is down.
//! Never judges: what a fault did to the records is the oracle's matter.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::io::{BufReader, copy, sink};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::bridge::PATIENCE;

/// What becomes of one insert.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Wire {
    /// It is late.
    Latency(Duration),
    /// It never arrives, and nobody says so.
    Blackhole,
    /// It is stored, and nobody says so.
    SwallowAnswer,
    /// The connection is reset before anything is forwarded.
    Reset,
    /// Half of it arrives, then both connections are cut.
    CutRequest,
    /// All of it arrives, then both connections are cut at once.
    CutAfterRequest,
    /// It is stored; the connection is reset instead of the answer.
    CutAnswer,
    /// It is stored; the answer ends in its middle.
    TruncateAnswer,
    /// It is stored; a 502 of somebody in between is the answer.
    StoredThen502,
    /// It never arrives; a 500 whose body ends half-way is the answer.
    Half500,
    /// It never arrives; the answer is 200, with an exception in its header and body.
    Exception200,
    /// It never arrives; the answer is 200, with an exception only in its body.
    ExceptionBody200,
}

impl Wire {
    pub(crate) const ALL: [Self; 12] = [
        Self::Latency(Duration::from_millis(300)),
        Self::Blackhole,
        Self::SwallowAnswer,
        Self::Reset,
        Self::CutRequest,
        Self::CutAfterRequest,
        Self::CutAnswer,
        Self::TruncateAnswer,
        Self::StoredThen502,
        Self::Half500,
        Self::Exception200,
        Self::ExceptionBody200,
    ];
}

/// What a script has seen and done so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct Counts {
    /// Connections of clients, now.
    pub(crate) open: usize,
    pub(crate) inserts: u64,
    pub(crate) injected: BTreeMap<Wire, u64>,
    /// Inserts for which there was no room.
    pub(crate) refused: u64,
}

#[derive(Debug, Default)]
struct Script {
    /// For the next inserts, in this order.
    next: VecDeque<Wire>,
    down: bool,
    /// Inserts that are let in at a time; None: any number.
    room: Option<usize>,
    under_way: usize,
    counts: Counts,
}

pub(crate) struct Proxy {
    address: std::net::SocketAddr,
    script: Arc<Mutex<Script>>,
    /// Aborted with it.
    _acceptor: JoinSet<()>,
}

impl Proxy {
    /// In front of this server, given as `http://host:port`.
    pub(crate) async fn before(url: &str) -> Self {
        let target = url.strip_prefix("http://").unwrap().to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let script = Arc::<Mutex<Script>>::default();
        let mut acceptor = JoinSet::new();
        acceptor.spawn(accept(listener, target, Arc::clone(&script)));
        Self { address, script, _acceptor: acceptor }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// For the next so many inserts, behind those that were asked for before.
    pub(crate) fn inject(&self, wire: Wire, times: usize) {
        locked(&self.script).next.extend(std::iter::repeat_n(wire, times));
    }

    /// Whether every connection is refused.
    pub(crate) fn set_down(&self, down: bool) {
        locked(&self.script).down = down;
    }

    /// Lets so many inserts in at a time, and refuses the others as ClickHouse does (202).
    pub(crate) fn set_room(&self, inserts: usize) {
        locked(&self.script).room = Some(inserts);
    }

    /// Waits until every insert that was to be broken has been.
    pub(crate) async fn until_used_up(&self) {
        let used_up = async {
            while !locked(&self.script).next.is_empty() {
                sleep(Duration::from_millis(50)).await;
            }
        };
        timeout(PATIENCE, used_up).await.expect("there is load, and so there are inserts");
    }

    pub(crate) fn counts(&self) -> Counts {
        locked(&self.script).counts.clone()
    }
}

fn locked(script: &Mutex<Script>) -> MutexGuard<'_, Script> {
    script.lock().unwrap()
}

async fn accept(listener: TcpListener, target: String, script: Arc<Mutex<Script>>) {
    let mut connections = JoinSet::new();
    loop {
        let (client, _) = listener.accept().await.unwrap();
        while connections.try_join_next().is_some() {}
        let (target, script) = (target.clone(), Arc::clone(&script));
        locked(&script).counts.open += 1;
        connections.spawn(async move {
            let mut client = client;
            // An error of either side ends both, as the loss of a connection does.
            let end = serve(&mut client, &target, &script).await.unwrap_or(End::Reset);
            locked(&script).counts.open -= 1;
            if end == End::Reset {
                client.set_zero_linger().unwrap();
            }
        });
    }
}

/// How the client's connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Closed,
    Reset,
}

/// Serves one connection, request by request.
async fn serve(client: &mut TcpStream, target: &str, script: &Mutex<Script>) -> io::Result<End> {
    let mut client = BufReader::new(client);
    while let Some(request) = Message::read(&mut client).await? {
        let (wire, let_in) = {
            let mut script = locked(script);
            if script.down {
                return Ok(End::Reset);
            }
            let let_in = !request.is_insert() || script.lets_in();
            ((request.is_insert() && let_in).then(|| script.take()).flatten(), let_in)
        };
        if !let_in {
            client.write_all(TOO_MANY.as_bytes()).await?;
            continue;
        }
        let _under_way = request.is_insert().then(|| UnderWay(script));
        if let Some(end) = answer(wire, &request, &mut client, target).await? {
            return Ok(end);
        }
    }
    Ok(End::Closed)
}

/// An insert that was let in, until it is answered.
struct UnderWay<'a>(&'a Mutex<Script>);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        locked(self.0).under_way -= 1;
    }
}

impl Script {
    /// Whether there is room for one more insert; it is counted either way.
    fn lets_in(&mut self) -> bool {
        let full = self.room.is_some_and(|room| self.under_way >= room);
        self.counts.refused += u64::from(full);
        self.under_way += usize::from(!full);
        !full
    }

    /// What to do with the insert that has just come.
    fn take(&mut self) -> Option<Wire> {
        self.counts.inserts += 1;
        let wire = self.next.pop_front()?;
        *self.counts.injected.entry(wire).or_default() += 1;
        Some(wire)
    }
}

const HALF_500: &str = "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 4096\r\n\
    X-ClickHouse-Exception-Code: 241\r\n\r\nCode: 241. DB::Exc";
const TOO_MANY: &str = "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 57\r\n\
    X-ClickHouse-Exception-Code: 202\r\n\r\n\
    Code: 202. DB::Exception: Too many simultaneous queries.\n";
const BAD_GATEWAY: &str = "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 11\r\n\r\nBad Gateway";
const EXCEPTION: &str = "Code: 241. DB::Exception: Memory limit (total) exceeded. \
    (MEMORY_LIMIT_EXCEEDED) (version 26.7.2.1 (official build))\n";

fn ok_with_exception(header: &str) -> String {
    let length = EXCEPTION.len();
    format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n{header}\r\n{EXCEPTION}")
}

/// Answers one request; Some when that was the connection's last.
async fn answer(
    wire: Option<Wire>,
    request: &Message,
    client: &mut BufReader<&mut TcpStream>,
    target: &str,
) -> io::Result<Option<End>> {
    let everything = request.body.len();
    match wire {
        None => client.write_all(&forward(request, target).await?.whole()).await?,
        Some(Wire::Latency(by)) => {
            sleep(by).await;
            client.write_all(&forward(request, target).await?.whole()).await?;
        }
        Some(Wire::Blackhole) => return until_closed(client).await,
        Some(Wire::SwallowAnswer) => {
            forward(request, target).await?;
            return until_closed(client).await;
        }
        Some(Wire::Reset) => return Ok(Some(End::Reset)),
        Some(Wire::CutRequest) => {
            forward_and_cut(request, everything / 2, target).await?;
            return Ok(Some(End::Reset));
        }
        Some(Wire::CutAfterRequest) => {
            forward_and_cut(request, everything, target).await?;
            return Ok(Some(End::Reset));
        }
        Some(Wire::CutAnswer) => {
            forward(request, target).await?;
            return Ok(Some(End::Reset));
        }
        Some(Wire::TruncateAnswer) => {
            let answer = forward(request, target).await?.whole();
            // within the head: a body of an insert's answer is empty
            client.write_all(&answer[..answer.len() / 2]).await?;
            return Ok(Some(End::Closed));
        }
        Some(Wire::StoredThen502) => {
            forward(request, target).await?;
            client.write_all(BAD_GATEWAY.as_bytes()).await?;
        }
        Some(Wire::Half500) => {
            client.write_all(HALF_500.as_bytes()).await?;
            return Ok(Some(End::Closed));
        }
        Some(Wire::Exception200) => {
            let answer = ok_with_exception("X-ClickHouse-Exception-Code: 241\r\n");
            client.write_all(answer.as_bytes()).await?;
        }
        Some(Wire::ExceptionBody200) => {
            client.write_all(ok_with_exception("").as_bytes()).await?;
        }
    }
    Ok(None)
}

/// Sends all of it to the server; its answer. The server may answer before it has read everything.
async fn forward(request: &Message, target: &str) -> io::Result<Message> {
    let mut server = TcpStream::connect(target).await?;
    let (reading, mut writing) = server.split();
    let whole = request.whole();
    let mut reading = BufReader::new(reading);
    let (_, answer) = tokio::join!(writing.write_all(&whole), Message::read(&mut reading));
    answer?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

/// Sends so much of the body to the server, and cuts the connection.
async fn forward_and_cut(request: &Message, bytes: usize, target: &str) -> io::Result<()> {
    let mut server = TcpStream::connect(target).await?;
    server.write_all(&request.head).await?;
    server.write_all(&request.body[..bytes]).await?;
    // In order, so that the server reads what has come before it sees the end.
    server.shutdown().await
}

async fn until_closed(client: &mut BufReader<&mut TcpStream>) -> io::Result<Option<End>> {
    copy(client, &mut sink()).await?;
    Ok(Some(End::Closed))
}

/// One request or answer, byte for byte.
#[derive(Debug)]
struct Message {
    head: Vec<u8>,
    /// With the framing of its chunks.
    body: Vec<u8>,
}

/// How long a body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    Bytes(usize),
    Chunked,
    /// Until the connection ends; only of answers.
    UntilEnd,
}

impl Message {
    /// None: the connection has ended.
    async fn read(from: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Option<Self>> {
        let mut head = Vec::new();
        loop {
            let before = head.len();
            if from.read_until(b'\n', &mut head).await? == 0 {
                return if head.is_empty() { Ok(None) } else { Err(unexpected_end()) };
            }
            if &head[before..] == b"\r\n" {
                break;
            }
        }
        let mut body = Vec::new();
        match framing(&head) {
            Framing::Bytes(length) => {
                body.resize(length, 0);
                from.read_exact(&mut body).await?;
            }
            Framing::Chunked => read_chunks(from, &mut body).await?,
            Framing::UntilEnd => {
                from.read_to_end(&mut body).await?;
            }
        }
        Ok(Some(Self { head, body }))
    }

    fn whole(&self) -> Vec<u8> {
        [self.head.as_slice(), self.body.as_slice()].concat()
    }

    /// The statement of an insert stands in the address.
    fn is_insert(&self) -> bool {
        let line = self.head.split(|&byte| byte == b'\n').next().unwrap_or_default();
        memchr::memmem::find(line, b"INSERT").is_some()
    }
}

fn unexpected_end() -> io::Error {
    io::ErrorKind::UnexpectedEof.into()
}

fn framing(head: &[u8]) -> Framing {
    let head = String::from_utf8_lossy(head).to_ascii_lowercase();
    let value = |name: &str| {
        head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::trim))
    };
    if value("transfer-encoding") == Some("chunked") {
        return Framing::Chunked;
    }
    match value("content-length") {
        Some(length) => Framing::Bytes(length.parse().unwrap()),
        None if head.starts_with("http/") => Framing::UntilEnd,
        None => Framing::Bytes(0),
    }
}

/// Up to and including the empty chunk and what trails it.
async fn read_chunks(from: &mut (impl AsyncBufRead + Unpin), body: &mut Vec<u8>) -> io::Result<()> {
    loop {
        let line = read_line(from, body).await?;
        let size = String::from_utf8_lossy(&line).into_owned();
        let size = usize::from_str_radix(size.split(';').next().unwrap().trim(), 16).unwrap();
        if size == 0 {
            while read_line(from, body).await? != b"\r\n" {}
            return Ok(());
        }
        let start = body.len();
        body.resize(start + size + 2, 0);
        from.read_exact(&mut body[start..]).await?;
    }
}

async fn read_line(
    from: &mut (impl AsyncBufRead + Unpin),
    into: &mut Vec<u8>,
) -> io::Result<Vec<u8>> {
    let start = into.len();
    match from.read_until(b'\n', into).await? {
        0 => Err(unexpected_end()),
        _ => Ok(into[start..].to_vec()),
    }
}
