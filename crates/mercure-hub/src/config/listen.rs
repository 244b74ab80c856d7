use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use mercure_protocol::HubUrl;

use crate::tls::Certificates;

/// An address to listen on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// `host:port`, over TLS if there are certificates.
    Tcp(String),
    /// `http://host:port`: never over TLS.
    Plain(String),
    /// `unix:/path`.
    Unix(PathBuf),
    /// The sockets that systemd passes, over TLS if they are TCP and there are certificates.
    Systemd,
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => f.write_str(address),
            Self::Plain(address) => write!(f, "http://{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Systemd => f.write_str("systemd"),
        }
    }
}

pub(crate) fn parse_listen(text: &str) -> Result<Listen, String> {
    if text == "systemd" {
        return Ok(Listen::Systemd);
    }
    if let Some(path) = text.strip_prefix("unix:") {
        let path = PathBuf::from(path);
        return match path.is_absolute() {
            true => Ok(Listen::Unix(path)),
            false => Err("needs an absolute path, as in unix:/run/mercure.sock".to_owned()),
        };
    }
    let (address, made): (_, fn(String) -> Listen) = match text.strip_prefix("http://") {
        Some(address) => (address, Listen::Plain),
        None => (text, Listen::Tcp),
    };
    let port = address
        .rsplit_once(':')
        .and_then(|(host, port)| (!host.is_empty()).then_some(port)?.parse::<u16>().ok());
    match port {
        Some(_) if address.parse::<SocketAddr>().is_ok() || !address.contains(['/', '[']) => {
            Ok(made(address.to_owned()))
        }
        _ => Err("needs host:port, as in 127.0.0.1:5500 or [::]:5500, or unix:/path".to_owned()),
    }
}

/// The hub's URL: below its first public origin, else below the first name that it gets certificates
/// for, else below its first address.
pub(super) fn own_url(
    listen: &[Listen],
    public_url: &[String],
    certificates: Option<&Certificates>,
    path: &str,
) -> Result<HubUrl, String> {
    let origin = match (public_url.first(), certificates, listen.first()) {
        (Some(origin), ..) => origin.clone(),
        (_, Some(Certificates::Acme(acme)), _) if !acme.domains.is_empty() => {
            format!("https://{}", acme.domains[0])
        }
        (_, Some(_), Some(Listen::Tcp(address))) => format!("https://{address}"),
        (_, _, Some(Listen::Tcp(address) | Listen::Plain(address))) => format!("http://{address}"),
        _ => "http://localhost".to_owned(),
    };
    HubUrl::parse(&format!("{origin}{path}")).map_err(|error| error.to_string())
}
