//! `application/x-www-form-urlencoded` parsing, strict about UTF-8.
//!
//! The `form_urlencoded` crate replaces invalid sequences; the specification asks hubs to refuse
//! them, so the few lines of splitting are here and only the decoding is a library's.

use std::borrow::Cow;

use percent_encoding::percent_decode;

use crate::Error;

/// A decoded name and value.
pub(crate) type Pair<'a> = (Cow<'a, str>, Cow<'a, str>);

/// The pairs of a form body or a query component, in order.
pub(crate) fn pairs<'a>(
    what: &'static str,
    input: &'a [u8],
) -> impl Iterator<Item = Result<Pair<'a>, Error>> {
    input.split(|byte| *byte == b'&').filter(|piece| !piece.is_empty()).map(move |piece| {
        let (name, value) = split(piece);
        Ok((decode(what, name)?, decode(what, value)?))
    })
}

/// The pairs of a query, in order. A parameter that is not UTF-8 is an error only for who looks at
/// it: names are decoded with replacements, as the standard does, and values are results.
pub(crate) fn parameters<'a>(
    what: &'static str,
    input: &'a [u8],
) -> impl Iterator<Item = (String, Result<Cow<'a, str>, Error>)> {
    input.split(|byte| *byte == b'&').filter(|piece| !piece.is_empty()).map(move |piece| {
        let (name, value) = split(piece);
        let name = percent_decode(&spaced(name)).decode_utf8_lossy().into_owned();
        (name, decode(what, value))
    })
}

fn split(piece: &[u8]) -> (&[u8], &[u8]) {
    match piece.iter().position(|byte| *byte == b'=') {
        Some(at) => (&piece[..at], &piece[at + 1..]),
        None => (piece, &[]),
    }
}

/// A plus sign stands for a space.
fn spaced(raw: &[u8]) -> Vec<u8> {
    raw.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect()
}

fn decode<'a>(what: &'static str, raw: &'a [u8]) -> Result<Cow<'a, str>, Error> {
    let not_utf8 = || Error::invalid(what, "is not valid UTF-8 after percent-decoding");
    if !raw.iter().any(|byte| matches!(byte, b'%' | b'+')) {
        return std::str::from_utf8(raw).map(Cow::Borrowed).map_err(|_| not_utf8());
    }
    let decoded = percent_decode(&spaced(raw)).collect::<Vec<u8>>();
    String::from_utf8(decoded).map(Cow::Owned).map_err(|_| not_utf8())
}
