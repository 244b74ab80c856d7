//! Topic matchers (1.0) and topic selectors (0.x): one type, one way to evaluate.

mod automaton;
mod compiler;
mod template;
mod urlpattern;

use std::borrow::Cow;
use std::cell::OnceCell;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

pub(crate) use self::compiler::Compiler;
use self::template::Template;
use self::urlpattern::{UrlPattern, UrlView};
use crate::limits::within;
use crate::{Error, HubUrl, Limits, text};

#[cfg(test)]
mod tests;

/// How a matcher's text is interpreted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MatcherType {
    /// 1.0: byte-for-byte comparison (section "Exact Matching").
    Exact,
    /// 1.0: URL Pattern (section "URL Pattern").
    UrlPattern,
    /// 0.x: equality, or a URI template that could have expanded to the topic ("Topic Selectors").
    Selector,
}

impl MatcherType {
    /// The 1.0 type that a query parameter selects.
    #[must_use]
    pub fn from_parameter(name: &str) -> Option<Self> {
        match name {
            "match" | "match_exact" => Some(Self::Exact),
            "match_urlpattern" => Some(Self::UrlPattern),
            _ => None,
        }
    }

    /// The names of the 1.0 types, as they stand in claims and in paths.
    pub const NAMES: [&str; 2] = ["exact", "urlpattern"];

    /// The 1.0 type with a name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "exact" => Some(Self::Exact),
            "urlpattern" => Some(Self::UrlPattern),
            _ => None,
        }
    }
}

/// An expression matched against topics. Two matchers are equal if type and text are.
#[derive(Clone)]
pub struct Matcher {
    kind: MatcherType,
    text: Arc<str>,
    test: Test,
}

#[derive(Clone)]
enum Test {
    Any,
    Equal,
    Template(Arc<Template>),
    UrlPattern(Arc<UrlPattern>),
}

/// What every topic that a matcher can match has in common: the way to find the matcher in an
/// index without evaluating it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route<'a> {
    /// Matches every topic.
    Any,
    /// Matches this topic only.
    Exact(&'a str),
    /// Matches topics that start with this text.
    TopicPrefix(&'a str),
    /// Matches topics whose [`TopicView::url_key`] starts with this text.
    UrlPrefix(&'a str),
}

impl Matcher {
    /// Parses a matcher. `*` is the wildcard whatever the type.
    ///
    /// # Errors
    /// Refuses an empty matcher, forbidden characters, a malformed or too complex pattern, and
    /// one over the length limit. A 0.x selector that is no valid template is compared as text.
    pub fn parse(
        kind: MatcherType,
        value: &str,
        hub: &HubUrl,
        limits: &Limits,
    ) -> Result<Self, Error> {
        within("topic matcher", value.len(), limits.matcher_length)?;
        if value.is_empty() {
            return Err(Error::invalid("topic matcher", "is empty"));
        }
        text::check("topic matcher", value)?;
        let test = match kind {
            _ if value == "*" => Test::Any,
            MatcherType::Exact => Test::Equal,
            MatcherType::UrlPattern => Test::UrlPattern(Arc::new(UrlPattern::parse(value, hub)?)),
            MatcherType::Selector => match Template::parse(value)? {
                Some(template) => Test::Template(Arc::new(template)),
                None => Test::Equal,
            },
        };
        Ok(Self { kind, text: value.into(), test })
    }

    /// How the text is interpreted.
    #[must_use]
    pub fn kind(&self) -> MatcherType {
        self.kind
    }

    /// The text as given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether the text is compiled and evaluated, instead of compared.
    #[must_use]
    pub fn is_pattern(&self) -> bool {
        matches!(self.test, Test::Template(_) | Test::UrlPattern(_))
    }

    /// What its compiled form takes, in bytes; nothing for text that is compared.
    #[must_use]
    pub fn size(&self) -> usize {
        match &self.test {
            Test::Any | Test::Equal => 0,
            Test::Template(template) => template.size(),
            Test::UrlPattern(pattern) => pattern.size(),
        }
    }

    /// How subscriptions to it are told.
    #[must_use]
    pub fn name(&self) -> MatcherName {
        MatcherName {
            text: Arc::clone(&self.text),
            v1: self.v1_name(),
            is_selector: self.is_selector(),
        }
    }

    fn v1_name(&self) -> Option<&'static str> {
        match (self.kind, &self.test) {
            (MatcherType::UrlPattern, _) => Some("urlpattern"),
            (MatcherType::Exact, _) | (_, Test::Any | Test::Equal) => Some("exact"),
            _ => None,
        }
    }

    fn is_selector(&self) -> bool {
        match self.kind {
            MatcherType::Selector => true,
            MatcherType::Exact => !self.text.contains('{'),
            MatcherType::UrlPattern => matches!(self.test, Test::Any),
        }
    }

    /// Whether the matcher selects the topic.
    #[must_use]
    pub fn matches(&self, topic: &TopicView<'_>) -> bool {
        match &self.test {
            Test::Any => true,
            Test::Equal => topic.topic == &*self.text,
            Test::Template(template) => topic.topic == &*self.text || template.matches(topic.topic),
            Test::UrlPattern(pattern) => topic.url().is_some_and(|url| pattern.matches(url)),
        }
    }

    /// Where to file the matcher in an index.
    #[must_use]
    pub fn route(&self) -> Route<'_> {
        match &self.test {
            Test::Any => Route::Any,
            Test::Equal => Route::Exact(&self.text),
            Test::Template(template) => Route::TopicPrefix(template.prefix()),
            Test::UrlPattern(pattern) => Route::UrlPrefix(pattern.prefix()),
        }
    }
}

/// A matcher as subscriptions name it, without the means to evaluate it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MatcherName {
    text: Arc<str>,
    v1: Option<&'static str>,
    is_selector: bool,
}

impl MatcherName {
    /// A name that a roster has kept: it was made from a matcher.
    #[must_use]
    pub fn from_log(text: &str, v1: Option<&str>, is_selector: bool) -> Self {
        let known = |name| MatcherType::NAMES.into_iter().find(|known| *known == name);
        Self { text: text.into(), v1: v1.and_then(known), is_selector }
    }

    /// The matcher's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The name of the 1.0 type that selects the same topics; `None` for a URI template, which
    /// 1.0 cannot express.
    #[must_use]
    pub fn v1_name(&self) -> Option<&'static str> {
        self.v1
    }

    /// Whether the text, read as a 0.x selector, selects the same topics.
    #[must_use]
    pub fn is_selector(&self) -> bool {
        self.is_selector
    }
}

impl PartialEq for Matcher {
    fn eq(&self, other: &Self) -> bool {
        self.kind == other.kind && self.text == other.text
    }
}

impl Eq for Matcher {}

impl Hash for Matcher {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.kind.hash(state);
        self.text.hash(state);
    }
}

/// For people: what kind it is, and its text.
impl fmt::Display for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            MatcherType::Exact => "exactly",
            MatcherType::UrlPattern => "URL pattern",
            MatcherType::Selector => "selector",
        };
        write!(f, "{kind} {:?}", self.text)
    }
}

impl fmt::Debug for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}({:?})", self.kind, self.text)
    }
}

/// A topic under evaluation: parsed as a URL at most once, and only if a pattern asks.
#[derive(Debug)]
pub struct TopicView<'a> {
    topic: &'a str,
    hub: &'a HubUrl,
    url: OnceCell<Option<UrlView>>,
}

impl<'a> TopicView<'a> {
    /// A view of a topic; relative ones are resolved against the hub's URL.
    #[must_use]
    pub fn new(topic: &'a str, hub: &'a HubUrl) -> Self {
        Self { topic, hub, url: OnceCell::new() }
    }

    /// The topic as text.
    #[must_use]
    pub fn as_str(&self) -> &'a str {
        self.topic
    }

    /// The text that [`Route::UrlPrefix`] is a prefix of; `None` if no URL pattern can match.
    #[must_use]
    pub fn url_key(&self) -> Option<Cow<'_, str>> {
        self.url().map(UrlView::key)
    }

    fn url(&self) -> Option<&UrlView> {
        self.url.get_or_init(|| self.hub.resolve(self.topic).map(|url| UrlView::new(&url))).as_ref()
    }
}
