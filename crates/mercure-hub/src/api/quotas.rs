use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use super::Request;

/// How much one address, or one subject of tokens, may take; zero for no bound.
#[derive(Debug, Clone, Default)]
pub struct Quotas {
    /// Connections at once that are no plain streams.
    pub http_connections: usize,
    /// Connections at once of one address.
    pub connections_per_address: usize,
    /// Publications a second from one address.
    pub publish_rate_per_address: usize,
    /// Publications a second with tokens of one subject.
    pub publish_rate_per_subject: usize,
    /// Who is believed about others.
    pub trusted_proxies: Proxies,
}

/// Networks of proxies whose word about a client is believed.
#[derive(Debug, Clone, Default)]
pub struct Proxies(pub Vec<IpNet>);

impl Proxies {
    /// Whether an address is such a proxy's.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }

    /// The last value of a field that proxies add to, if the request comes from one.
    pub(crate) fn word<'a>(&self, request: &'a Request, field: &'a str) -> Option<&'a str> {
        request.peer.filter(|peer| self.contains(*peer))?;
        let last = request.headers.all(field).last()?;
        last.rsplit(',').next().map(str::trim).filter(|word| !word.is_empty())
    }

    /// Whose request it is: the last address that no believed proxy stands at. What a client claims
    /// of itself stands before that, and is not looked at.
    #[must_use]
    pub fn client(&self, request: &Request) -> Option<IpAddr> {
        let mut client = request.peer?;
        let fields: Vec<_> = request.headers.all_lossy("x-forwarded-for").collect();
        let mut hops = fields.iter().rev().flat_map(|field| field.rsplit(','));
        while self.contains(client)
            && let Some(hop) = hops.next()
            && let Some(address) = parse_hop(hop.trim())
        {
            client = address;
        }
        Some(client)
    }
}

/// An address, which some proxies write with a port.
fn parse_hop(hop: &str) -> Option<IpAddr> {
    let bare = hop.strip_prefix('[').and_then(|hop| hop.strip_suffix(']')).unwrap_or(hop);
    bare.parse().ok().or_else(|| Some(hop.parse::<SocketAddr>().ok()?.ip()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_cannot_choose_its_address() {
        let trusted = ["127.0.0.0/8", "10.0.0.0/8", "2001:db8::/32"];
        let proxies = Proxies(trusted.iter().map(|text| text.parse().expect("valid")).collect());
        let cases: [(&str, &[&str], &str); 12] = [
            ("10.0.0.1", &["[2001:db9::5]"], "2001:db9::5"),
            ("10.0.0.1", &["\u{fffd}, 198.51.100.7"], "198.51.100.7"),
            ("10.0.0.1", &["198.51.100.7:4711"], "198.51.100.7"),
            ("192.0.2.1", &[], "192.0.2.1"),
            ("192.0.2.1", &["198.51.100.7"], "192.0.2.1"),
            ("127.0.0.1", &[], "127.0.0.1"),
            ("127.0.0.1", &["198.51.100.7"], "198.51.100.7"),
            ("127.0.0.1", &["1.2.3.4, 198.51.100.7"], "198.51.100.7"),
            ("127.0.0.1", &["1.2.3.4", "198.51.100.7 , 10.0.0.9"], "198.51.100.7"),
            ("::ffff:10.0.0.1", &["2001:db8::5"], "2001:db8::5"),
            ("10.0.0.1", &["1.2.3.4, unknown"], "10.0.0.1"),
            ("10.0.0.1", &["1.2.3.4, 10.0.0.2"], "1.2.3.4"),
        ];
        for (peer, fields, expected) in cases {
            let mut request = Request { peer: peer.parse().ok(), ..Request::default() };
            for field in fields {
                // As one that is not UTF-8 arrives.
                let field = field.replace('\u{fffd}', "\u{e9}");
                let bytes: Vec<u8> = field.chars().map(|c| c as u8).collect();
                request.headers.push("X-Forwarded-For", &bytes);
            }
            let found = proxies.client(&request).map(|address| address.to_string());
            assert_eq!(found.as_deref(), Some(expected), "{peer} {fields:?}");
        }
    }
}
