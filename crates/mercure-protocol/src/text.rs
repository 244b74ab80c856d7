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
