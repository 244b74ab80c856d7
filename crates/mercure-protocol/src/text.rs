//! The one character rule that topics, matchers, ids and event types share.

use unicode_general_category::{GeneralCategory, get_general_category};

use crate::Error;

/// Refuses C0, DEL, C1 and format (`Cf`) characters (section "Terminology").
///
/// Line breaks and NUL among them would let a value inject fields into an event stream;
/// format characters are invisible and make two different identifiers look the same.
pub(crate) fn check(what: &'static str, value: &str) -> Result<(), Error> {
    match value.chars().find(|c| is_forbidden(*c)) {
        None => Ok(()),
        Some(c) => Err(Error::invalid(
            what,
            format!(
                "contains U+{:04X}; control and format characters are not allowed",
                u32::from(c)
            ),
        )),
    }
}

/// 16 random bytes as a `urn:uuid:` of version 4.
pub(crate) fn urn_uuid(mut bytes: [u8; 16]) -> String {
    use std::fmt::Write;
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    let mut urn = String::with_capacity(45);
    urn.push_str("urn:uuid:");
    for (at, byte) in bytes.iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            urn.push('-');
        }
        // Writing to a String cannot fail.
        let _ = write!(urn, "{byte:02x}");
    }
    urn
}

fn is_forbidden(c: char) -> bool {
    if c.is_ascii() {
        return c.is_ascii_control();
    }
    c.is_control() || get_general_category(c) == GeneralCategory::Format
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn control_and_format_characters_are_refused() {
        for c in [
            '\0', '\n', '\r', '\t', '\u{7f}', '\u{80}', '\u{9f}', '\u{ad}', '\u{200b}', '\u{202e}',
            '\u{feff}',
        ] {
            assert!(check("topic", &format!("a{c}b")).is_err(), "U+{:04X}", u32::from(c));
        }
        for c in ['a', ' ', 'é', '日', '\u{2028}', '🙂'] {
            assert!(check("topic", &format!("a{c}b")).is_ok(), "U+{:04X}", u32::from(c));
        }
    }
}
