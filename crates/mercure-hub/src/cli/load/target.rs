//! Where the hub is, and a connection to it.

use std::io;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::cli::Usage;
use crate::cli::client::trusting;

/// A hub's URL, taken apart, and the topic.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub(super) url: url::Url,
    pub(super) topic: String,
    host: String,
    port: u16,
    tls: Option<Arc<ClientConfig>>,
}

/// A connection in plain text or over TLS.
pub(super) trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Socket for S {}

impl Target {
    pub(super) fn parse(text: &str, topic: &str) -> Result<Self, Usage> {
        let wrong = || {
            Usage("the URL must be one, as in http://127.0.0.1:5500/.well-known/mercure".to_owned())
        };
        let url = url::Url::parse(text).map_err(|_| wrong())?;
        let tls = match url.scheme() {
            "http" => None,
            "https" => Some(Arc::new(trusting().map_err(|error| Usage(error.to_string()))?)),
            _ => return Err(wrong()),
        };
        let host = url.host_str().ok_or_else(wrong)?.trim_matches(['[', ']']).to_owned();
        let port = url.port_or_known_default().ok_or_else(wrong)?;
        Ok(Self { host, port, tls, topic: topic.to_owned(), url })
    }

    pub(super) async fn connect(&self) -> io::Result<Box<dyn Socket>> {
        let socket = TcpStream::connect((self.host.as_str(), self.port)).await?;
        socket.set_nodelay(true)?;
        let Some(tls) = &self.tls else { return Ok(Box::new(socket)) };
        let name = ServerName::try_from(self.host.clone()).map_err(io::Error::other)?;
        Ok(Box::new(TlsConnector::from(Arc::clone(tls)).connect(name, socket).await?))
    }

    /// The request of a subscriber.
    pub(super) fn subscription(&self, token: Option<&str>) -> String {
        let mut url = self.url.clone();
        url.query_pairs_mut().append_pair("topic", &self.topic);
        let target = &url[url::Position::BeforePath..];
        let authority = &url[url::Position::BeforeHost..url::Position::AfterPort];
        let token =
            token.map_or(String::new(), |token| format!("Authorization: Bearer {token}\r\n"));
        format!(
            "GET {target} HTTP/1.1\r\nHost: {authority}\r\nAccept: text/event-stream\r\n{token}\r\n"
        )
    }
}
