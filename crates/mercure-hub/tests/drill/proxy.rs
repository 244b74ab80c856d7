//! The network between a node and its engine, which can be cut.

use std::sync::Arc;

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// A way to a port on this machine.
pub struct Proxy {
    pub port: u16,
    open: Arc<watch::Sender<bool>>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    pub async fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let own = listener.local_addr().expect("bound").port();
        let open = Arc::new(watch::Sender::new(true));
        let state = Arc::clone(&open);
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(carry(client, port, state.subscribe()));
            }
        });
        Self { port: own, open, accepting }
    }

    /// Cuts the network: what is sent arrives nowhere, and nothing is said of it.
    pub fn cut(&self) {
        self.open.send_replace(false);
    }

    /// Mends it; connections that were cut are lost.
    pub fn mend(&self) {
        self.open.send_replace(true);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn carry(mut client: TcpStream, port: u16, mut open: watch::Receiver<bool>) {
    // A connection that is made while the network is cut waits.
    if open.wait_for(|open| *open).await.is_err() {
        return;
    }
    let Ok(mut server) = TcpStream::connect(("127.0.0.1", port)).await else { return };
    let is_cut = tokio::select! {
        _ = tokio::io::copy_bidirectional(&mut client, &mut server) => false,
        _ = open.wait_for(|open| !*open) => true,
    };
    if is_cut {
        // Neither side hears anything, until the network is there again and says so.
        let _ = open.wait_for(|open| *open).await;
    }
    let _ = client.shutdown().await;
}
