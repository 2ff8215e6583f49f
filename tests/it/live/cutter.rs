//! A network between a client and a bridge that can fail.

use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Passes on what comes, while it is not down.
pub(super) struct Cutter {
    address: SocketAddr,
    down: watch::Sender<bool>,
    _tasks: JoinSet<()>,
}

impl Cutter {
    pub(super) async fn before(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (down, is_down) = watch::channel(false);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((mut near, _)) = listener.accept().await {
                let mut is_down = is_down.clone();
                connections.spawn(async move {
                    let mut far = TcpStream::connect(target).await.unwrap();
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                        _ = is_down.wait_for(|down| *down) => {}
                    }
                });
            }
        });
        Self { address, down, _tasks: tasks }
    }
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Cuts every connection there is, and those that come, until it is up again.
    pub(super) fn set_down(&self, down: bool) {
        self.down.send_replace(down);
    }
}
