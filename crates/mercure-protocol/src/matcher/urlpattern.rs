//! URL patterns by the WHATWG rules, evaluated in linear time.
//!
//! The `urlpattern` crate parses; what it finds is kept in a compact form: literal components and
//! components with a single wildcard need no regular expression, the rest becomes an automaton of
//! bounded size. The crate's own matcher is not used because it computes captures, which makes
//! hostile patterns quadratic.

use std::borrow::Cow;
use std::panic::catch_unwind;
use std::sync::Arc;

use ::urlpattern::quirks::{self, InnerMatcher, StringOrInit, UrlPatternComponent};
use ::urlpattern::regexp::RegExp;
use ::urlpattern::{RegexSyntax, UrlPatternOptions};
use regex_syntax::ParserBuilder;
use url::Url;

use super::automaton::Automaton;
use crate::{Error, HubUrl};

/// Signs that begin a wildcard, a name or a group, in one pattern.
const MOST_GROUPS: usize = 100;

#[derive(Debug)]
pub(super) struct UrlPattern {
    /// In the order of [`UrlView::components`]; `None` accepts everything.
    components: [Option<Component>; 8],
    prefix: String,
}

#[derive(Debug)]
struct Component {
    prefix: String,
    suffix: String,
    inner: Inner,
}

#[derive(Debug)]
enum Inner {
    Literal(String),
    Wildcard { excluded: Option<char>, allow_empty: bool },
    Automaton(Arc<Automaton>),
}

impl UrlPattern {
    /// Parses a pattern, absolute or relative to the hub's URL.
    pub(super) fn parse(pattern: &str, hub: &HubUrl) -> Result<Self, Error> {
        // Even to read one that is too complex takes long.
        if pattern.bytes().filter(|sign| b"*:({".contains(sign)).count() > MOST_GROUPS {
            let reason = format!("has more than {MOST_GROUPS} wildcards and groups");
            return Err(Error::invalid("topic matcher", reason));
        }
        let malformed = || Error::invalid("topic matcher", "is not a well-formed URL pattern");
        // The library unwraps here and there; whatever a client makes of that is its own error.
        let parsed = catch_unwind(|| syntax(pattern, hub)).ok().flatten().ok_or_else(malformed)?;
        let prefix = key_prefix(&parsed);
        let components = [
            parsed.protocol,
            parsed.username,
            parsed.password,
            parsed.hostname,
            parsed.port,
            parsed.pathname,
            parsed.search,
            parsed.hash,
        ];
        let [a, b, c, d, e, f, g, h] = components.map(Component::compile);
        Ok(Self { components: [a?, b?, c?, d?, e?, f?, g?, h?], prefix })
    }

    pub(super) fn size(&self) -> usize {
        let automata = self.components.iter().flatten().map(|component| match &component.inner {
            Inner::Automaton(automaton) => automaton.size(),
            Inner::Literal(_) | Inner::Wildcard { .. } => 0,
        });
        automata.sum()
    }

    pub(super) fn matches(&self, url: &UrlView) -> bool {
        self.components
            .iter()
            .zip(&url.components)
            .all(|(component, part)| component.as_ref().is_none_or(|c| c.matches(part)))
    }

    /// A prefix of [`UrlView::key`] for every URL that matches.
    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }
}

/// What the library makes of a pattern.
fn syntax(pattern: &str, hub: &HubUrl) -> Option<quirks::UrlPattern> {
    // An absolute pattern must not inherit anything from the base, so it is tried alone first.
    let input = || StringOrInit::String(Cow::Borrowed(pattern));
    let init = quirks::process_construct_pattern_input(input(), None)
        .or_else(|_| quirks::process_construct_pattern_input(input(), Some(hub.as_str())))
        .ok()?;
    quirks::parse_pattern::<Source>(init, UrlPatternOptions::default()).ok()
}

impl Component {
    fn compile(parsed: UrlPatternComponent) -> Result<Option<Self>, Error> {
        let matcher = parsed.matcher;
        let inner = match matcher.inner {
            InnerMatcher::Literal { literal } => Inner::Literal(literal),
            InnerMatcher::SingleCapture { filter, allow_empty } => {
                Inner::Wildcard { excluded: filter, allow_empty }
            }
            InnerMatcher::RegExp { regexp } => Inner::Automaton(compile(&regexp)?),
        };
        let everything = matcher.prefix.is_empty()
            && matcher.suffix.is_empty()
            && matches!(inner, Inner::Wildcard { excluded: None, allow_empty: true });
        Ok((!everything).then_some(Self { prefix: matcher.prefix, suffix: matcher.suffix, inner }))
    }

    fn matches(&self, part: &str) -> bool {
        let Some(rest) = part.strip_prefix(self.prefix.as_str()) else {
            return false;
        };
        let Some(middle) = rest.strip_suffix(self.suffix.as_str()) else {
            return false;
        };
        match &self.inner {
            Inner::Literal(literal) => middle == literal,
            Inner::Wildcard { excluded, allow_empty } => {
                (*allow_empty || !middle.is_empty())
                    && excluded.is_none_or(|excluded| !middle.contains(excluded))
            }
            Inner::Automaton(automaton) => automaton.matches(middle),
        }
    }
}

fn compile(source: &str) -> Result<Arc<Automaton>, Error> {
    // A URL's components are ASCII, so Unicode classes would only cost; who asks for one gets it.
    let ascii = ParserBuilder::new().unicode(false).utf8(false).build().parse(source).is_ok();
    Automaton::of(source, !ascii)
        .ok_or_else(|| Error::invalid("topic matcher", "is malformed or too complex a URL pattern"))
}

/// The fixed beginning of [`UrlView::key`]: whole components while they are literal, then the
/// literal start of the path.
fn key_prefix(parsed: &quirks::UrlPattern) -> String {
    let literal = |component: &UrlPatternComponent| match &component.matcher.inner {
        InnerMatcher::Literal { literal } => {
            Some(format!("{}{literal}{}", component.matcher.prefix, component.matcher.suffix))
        }
        InnerMatcher::SingleCapture { .. } | InnerMatcher::RegExp { .. } => None,
    };
    let mut key = String::new();
    for component in [&parsed.protocol, &parsed.hostname, &parsed.port] {
        let Some(text) = literal(component) else {
            return key;
        };
        key.push_str(&text);
        key.push('\n');
    }
    key.push_str(
        &literal(&parsed.pathname).unwrap_or_else(|| parsed.pathname.matcher.prefix.clone()),
    );
    key
}

/// A topic's URL, taken apart the way URL patterns see it.
#[derive(Debug)]
pub(super) struct UrlView {
    components: [String; 8],
}

impl UrlView {
    pub(super) fn new(url: &Url) -> Self {
        Self {
            components: [
                url.scheme().to_owned(),
                url.username().to_owned(),
                url.password().unwrap_or_default().to_owned(),
                url.host_str().unwrap_or_default().to_owned(),
                url::quirks::port(url).to_owned(),
                url.path().to_owned(),
                url.query().unwrap_or_default().to_owned(),
                url.fragment().unwrap_or_default().to_owned(),
            ],
        }
    }

    /// Scheme, host, port and path, each but the last ended by a line break, which none contains.
    pub(super) fn key(&self) -> Cow<'_, str> {
        let [scheme, _, _, host, port, path, ..] = &self.components;
        Cow::Owned(format!("{scheme}\n{host}\n{port}\n{path}"))
    }
}

/// Keeps an expression as text: compiling happens afterwards, within our bounds.
struct Source(String);

impl RegExp for Source {
    fn syntax() -> RegexSyntax {
        RegexSyntax::Rust
    }

    fn parse(pattern: &str, _flags: &str, _force_eval: bool) -> Result<Self, ()> {
        Ok(Self(pattern.to_owned()))
    }

    /// Called by the parser only, to ask whether a protocol pattern covers a special scheme.
    fn matches<'a>(&self, text: &'a str) -> Option<Vec<Option<&'a str>>> {
        compile(&self.0).ok()?.matches(text).then(Vec::new)
    }

    fn pattern_string(&self) -> &str {
        &self.0
    }
}
