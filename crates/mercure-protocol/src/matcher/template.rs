//! URI templates (RFC 6570, all four levels), matched in reverse: could this template have
//! expanded to that topic?
//!
//! The text before the first expression and after the last one is compared; what is between becomes
//! one automaton of bounded size, which templates that differ in that text share. Where several
//! expansions are possible (lists, absent variables, exploded maps), it accepts their union.

use std::fmt::Write;
use std::sync::Arc;

use regex_syntax::escape;

use super::automaton::Automaton;
use crate::Error;

/// Unreserved characters of RFC 3987 (IRIs), and percent-encoded octets.
const UNRESERVED: &str = "(?:[A-Za-z0-9._~\\u{A0}-\\u{D7FF}\\u{F900}-\\u{FDCF}\
                          \\u{FDF0}-\\u{FFEF}\\u{10000}-\\u{EFFFD}-]|%[0-9A-Fa-f]{2})";
/// The same and the reserved characters of RFC 3986.
const RESERVED: &str = "(?:[A-Za-z0-9._~\\u{A0}-\\u{D7FF}\\u{F900}-\\u{FDCF}\\u{FDF0}-\\u{FFEF}\
                        \\u{10000}-\\u{EFFFD}:/?#\\[\\]@!$&'()*+,;=-]|%[0-9A-Fa-f]{2})";

#[derive(Debug)]
pub(super) struct Template {
    prefix: Box<str>,
    automaton: Arc<Automaton>,
    suffix: Box<str>,
}

impl Template {
    /// Parses a template. `None` if the text holds no expression or is no valid template: then it
    /// is an ordinary string.
    pub(super) fn parse(text: &str) -> Result<Option<Self>, Error> {
        let Some(begin) = text.find('{') else {
            return Ok(None);
        };
        let Some(end) = text.rfind('}').map(|at| at + 1).filter(|end| *end > begin) else {
            return Ok(None);
        };
        let (prefix, suffix) = (&text[..begin], &text[end..]);
        // A bracket where none may be: the text stands for itself.
        let is_plain = !prefix.contains('}') && !suffix.contains('{');
        let Some(source) = expression_of(&text[begin..end]).filter(|_| is_plain) else {
            return Ok(None);
        };
        let automaton = Automaton::of(&source, true)
            .ok_or_else(|| Error::invalid("topic matcher", "is too complex a URI template"))?;
        Ok(Some(Self { prefix: prefix.into(), automaton, suffix: suffix.into() }))
    }

    pub(super) fn size(&self) -> usize {
        self.automaton.size()
    }

    pub(super) fn matches(&self, topic: &str) -> bool {
        let middle = topic.strip_prefix(&*self.prefix);
        let middle = middle.and_then(|rest| rest.strip_suffix(&*self.suffix));
        middle.is_some_and(|middle| self.automaton.matches(middle))
    }

    /// The literal text before the first expression.
    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }
}

/// The regular expression of a template; `None` if the template is not valid.
fn expression_of(text: &str) -> Option<String> {
    let mut out = String::new();
    let mut rest = text;
    while let Some(open) = rest.find(['{', '}']) {
        out.push_str(&escape(&rest[..open]));
        let body = rest[open..].strip_prefix('{')?;
        let close = body.find('}')?;
        push_expression(&mut out, &body[..close])?;
        rest = &body[close + 1..];
    }
    out.push_str(&escape(rest));
    Some(out)
}

struct Variable<'a> {
    name: &'a str,
    explode: bool,
    max_length: Option<u16>,
}

impl<'a> Variable<'a> {
    fn parse(spec: &'a str) -> Option<Self> {
        let (name, explode, max_length) = if let Some(name) = spec.strip_suffix('*') {
            (name, true, None)
        } else if let Some((name, length)) = spec.split_once(':') {
            let well_formed = !length.starts_with('0') && length.len() <= 4;
            (name, false, Some(length.parse().ok().filter(|_| well_formed)?))
        } else {
            (spec, false, None)
        };
        let valid = !name.is_empty()
            && !name.starts_with('.')
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.%".contains(&b));
        valid.then_some(Self { name, explode, max_length })
    }

    /// An expression for the variable's value where `unit` is one allowed character.
    fn value(&self, unit: &str, exploded_extra: &str) -> String {
        match self.max_length {
            Some(length) => format!("{unit}{{0,{length}}}"),
            None if self.explode => format!("(?:{unit}|[,={exploded_extra}])*"),
            None => format!("(?:{unit}|,)*"),
        }
    }
}

fn push_expression(out: &mut String, body: &str) -> Option<()> {
    let operator = body.chars().next()?;
    let (operator, list) = match operator {
        '+' | '#' | '.' | '/' | ';' | '?' | '&' => (Some(operator), &body[1..]),
        '=' | ',' | '!' | '@' | '|' => return None,
        _ => (None, body),
    };
    let variables = list.split(',').map(Variable::parse).collect::<Option<Vec<_>>>()?;
    // Writing to a String cannot fail.
    let _ = match operator {
        None => write!(out, "{}", joined(&variables, UNRESERVED)),
        Some('+') => write!(out, "{}", joined(&variables, RESERVED)),
        Some('#') => write!(out, "(?:#{})?", joined(&variables, RESERVED)),
        Some('?') => write!(out, "(?:\\?{})?", named_query(&variables)),
        Some('&') => variables.iter().try_for_each(|v| write!(out, "(?:&{})?", named(v, true))),
        Some(';') => variables.iter().try_for_each(|v| {
            write!(out, "(?:;{}){}", named(v, false), if v.explode { "*" } else { "?" })
        }),
        Some(separator) => variables.iter().try_for_each(|v| {
            let repeat = if v.explode { '*' } else { '?' };
            let value = v.value(UNRESERVED, "");
            write!(out, "(?:{}{value}){repeat}", escape(&separator.to_string()))
        }),
    };
    Some(())
}

/// Values joined by commas; any of them may be absent.
fn joined(variables: &[Variable<'_>], unit: &str) -> String {
    let mut out = String::new();
    for (at, variable) in variables.iter().enumerate() {
        let separator = if at == 0 { "" } else { ",?" };
        let _ = write!(out, "(?:{separator}{})?", variable.value(unit, ""));
    }
    out
}

/// `name=value` pairs joined by `&`; any of them may be absent.
fn named_query(variables: &[Variable<'_>]) -> String {
    let mut out = String::new();
    for (at, variable) in variables.iter().enumerate() {
        let separator = if at == 0 { "" } else { "&?" };
        let _ = write!(out, "(?:{separator}{})?", named(variable, true));
    }
    out
}

/// One named value. An exploded variable brings names of its own; `;` omits an empty value.
fn named(variable: &Variable<'_>, always_equals: bool) -> String {
    if variable.explode {
        return variable.value(UNRESERVED, "&");
    }
    let name = escape(variable.name);
    let value = variable.value(UNRESERVED, "");
    if always_equals { format!("{name}={value}") } else { format!("{name}(?:={value})?") }
}
