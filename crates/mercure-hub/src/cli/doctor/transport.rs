//! TCP and TLS: whether the hub is there, and what is spoken with it.

use std::net::{TcpStream, ToSocketAddrs as _};
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConnection;
use rustls::pki_types::ServerName;

use super::{Findings, Patient};
use crate::cli::client::trusting;

const PATIENCE: Duration = Duration::from_secs(10);

/// Whether there is any point in going on.
pub(super) fn check(patient: &Patient, findings: &mut Findings) -> bool {
    let url = &patient.url;
    let (host, port) =
        (url.host_str().unwrap_or_default(), url.port_or_known_default().unwrap_or(80));
    let socket = match connect(host, port) {
        Ok(socket) => socket,
        Err(error) => {
            findings.broken(&format!(
                "no connection to {host} port {port}: {error}; is the hub (or the proxy before it) \
                 running, and does a firewall let you through?"
            ));
            return false;
        }
    };
    match url.scheme() {
        "https" => handshake(socket, host, findings),
        _ => {
            plain(url, findings);
            true
        }
    }
}

fn connect(host: &str, port: u16) -> std::io::Result<TcpStream> {
    let mut last = std::io::Error::from(std::io::ErrorKind::NotFound);
    // An address of IPv6 stands in brackets in a URL.
    for address in (host.trim_matches(['[', ']']), port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, PATIENCE) {
            Ok(socket) => {
                socket.set_read_timeout(Some(PATIENCE))?;
                socket.set_write_timeout(Some(PATIENCE))?;
                return Ok(socket);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn plain(url: &url::Url, findings: &mut Findings) {
    let is_local = match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    };
    match is_local {
        true => findings.fine("plain HTTP, on this machine"),
        false => findings.doubt(
            "plain HTTP: tokens can be read on the way, and a browser opens six streams at most for all its \
             tabs; serve over HTTPS (tls_cert, acme_domains, or a proxy), where HTTP/2 has no such bound",
        ),
    }
}

fn handshake(mut socket: TcpStream, host: &str, findings: &mut Findings) -> bool {
    let result = client(host).and_then(|mut client| {
        client.complete_io(&mut socket)?;
        Ok(client)
    });
    let client = match result {
        Ok(client) => client,
        Err(error) => {
            findings.broken(&format!(
                "TLS: {error}; browsers refuse it too: look at the certificate's names, its dates, and whether \
                 the whole chain is sent"
            ));
            return false;
        }
    };
    let version = client.protocol_version().and_then(|version| version.as_str()).unwrap_or("TLS");
    findings.fine(&format!("{version}, and the certificate is good"));
    match client.alpn_protocol() {
        Some(b"h2") => findings.fine("HTTP/2: all tabs of a browser share one connection"),
        _ => findings.doubt(
            "no HTTP/2: a browser opens six streams at most for all its tabs; switch HTTP/2 on where TLS \
             ends (nginx: http2 on)",
        ),
    }
    true
}

fn client(host: &str) -> std::io::Result<ClientConnection> {
    let mut config = trusting().map_err(std::io::Error::other)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned());
    ClientConnection::new(Arc::new(config), name.map_err(std::io::Error::other)?)
        .map_err(std::io::Error::other)
}
