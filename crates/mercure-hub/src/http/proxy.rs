//! What a proxy says of a connection before it: the PROXY protocol, versions 1 and 2
//! (HAProxy, proxy-protocol.txt). Exactly the header is read, since the connection is given away afterwards.

use std::io::{Error, ErrorKind, Result};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use tokio::io::{AsyncRead, AsyncReadExt as _};

/// How version 2 begins.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// The longest line of version 1, with its end.
const LONGEST_LINE: usize = 107;
/// The most that version 2 may say; what is added to the addresses is not looked at.
const LONGEST_REST: u16 = 4096;

/// Who is behind the proxy; `None` if it speaks for itself, or does not say.
pub(super) async fn read<S: AsyncRead + Unpin>(socket: &mut S) -> Result<Option<IpAddr>> {
    let mut begin = [0; SIGNATURE.len()];
    socket.read_exact(&mut begin).await?;
    match begin == SIGNATURE {
        true => second(socket).await,
        false => first(socket, begin.to_vec()).await,
    }
}

fn refused() -> Error {
    Error::new(ErrorKind::InvalidData, "no PROXY header")
}

/// A line of text, which has begun.
async fn first<S: AsyncRead + Unpin>(socket: &mut S, mut line: Vec<u8>) -> Result<Option<IpAddr>> {
    if !line.starts_with(b"PROXY ") {
        return Err(refused());
    }
    while !line.ends_with(b"\r\n") {
        if line.len() >= LONGEST_LINE {
            return Err(refused());
        }
        line.push(socket.read_u8().await?);
    }
    let line = std::str::from_utf8(&line).map_err(|_| refused())?;
    let mut words = line.trim_end().split(' ').skip(1);
    let (family, source) = (words.next(), words.next().unwrap_or_default());
    match family {
        Some("TCP4") => Ok(Some(source.parse::<Ipv4Addr>().map_err(|_| refused())?.into())),
        Some("TCP6") => Ok(Some(source.parse::<Ipv6Addr>().map_err(|_| refused())?.into())),
        Some("UNKNOWN") => Ok(None),
        _ => Err(refused()),
    }
}

/// What follows the signature: version and command, family, length, addresses.
async fn second<S: AsyncRead + Unpin>(socket: &mut S) -> Result<Option<IpAddr>> {
    let (command, family) = (socket.read_u8().await?, socket.read_u8().await?);
    let length = socket.read_u16().await?;
    if length > LONGEST_REST {
        return Err(refused());
    }
    let mut rest = vec![0; length.into()];
    socket.read_exact(&mut rest).await?;
    match (command, family >> 4) {
        // A check of the proxy's own.
        (0x20, _) => Ok(None),
        (0x21, 1) => {
            let source = rest.first_chunk::<4>().ok_or_else(refused)?;
            Ok(Some(Ipv4Addr::from(*source).into()))
        }
        (0x21, 2) => {
            let source = rest.first_chunk::<16>().ok_or_else(refused)?;
            Ok(Some(Ipv6Addr::from(*source).into()))
        }
        (0x21, _) => Ok(None),
        _ => Err(refused()),
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    /// What is found, and what is left.
    fn found(bytes: &[u8]) -> (Option<Option<String>>, usize) {
        let mut socket = bytes;
        let result = read(&mut socket).now_or_never().expect("memory does not wait");
        (result.ok().map(|source| source.map(|source| source.to_string())), socket.len())
    }

    fn of(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).expect("short").to_be_bytes();
        [&SIGNATURE[..], &[command, family], &length, rest, b"GET"].concat()
    }

    #[test]
    fn both_versions_are_read_to_their_end_and_no_further() {
        let v6 = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7];
        let long = [&v6[..], &[0; 20], &[0; 30]].concat();
        for (bytes, source) in [
            (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\nGET".to_vec(), Some("192.0.2.1")),
            (b"PROXY TCP6 2001:db8::7 ::1 1 2\r\nGET".to_vec(), Some("2001:db8::7")),
            (b"PROXY UNKNOWN\r\nGET".to_vec(), None),
            (of(0x21, 0x11, &[192, 0, 2, 1, 192, 0, 2, 2, 0, 1, 0, 2]), Some("192.0.2.1")),
            (of(0x21, 0x21, &long), Some("2001:db8::7")),
            (of(0x20, 0x00, &[]), None),
            (of(0x21, 0x31, &[0; 216]), None),
        ] {
            assert_eq!(found(&bytes), (Some(source.map(str::to_owned)), 3), "{bytes:?}");
        }
    }

    #[test]
    fn what_is_no_header_is_refused() {
        let line = format!("PROXY TCP4 {}\r\n", "1".repeat(200));
        for bytes in [
            &b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..],
            b"PROXY TCP4 nobody x 1 2\r\n",
            b"PROXY TCP4 ::1 ::1 1 2\r\n",
            b"PROXY UDP4 1.2.3.4 x\r\n",
            b"PROXY TCP4 1.2",
            line.as_bytes(),
            &of(0x21, 0x11, &[1, 2, 3]),
            &of(0x31, 0x11, &[0; 12]),
            &of(0x21, 0x11, &[0; 5000]),
        ] {
            assert_eq!(found(bytes).0, None, "{bytes:?}");
        }
    }
}
