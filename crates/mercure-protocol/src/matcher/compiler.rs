use super::{Matcher, MatcherType};
use crate::limits::within;
use crate::{Error, HubUrl, Limits};

/// Parses the matchers of one request or token. What it accepts is bounded one by one and in all:
/// compiled patterns stay in memory for as long as somebody listens to them.
pub(crate) struct Compiler<'a> {
    hub: &'a HubUrl,
    limits: &'a Limits,
    compiled: usize,
}

impl<'a> Compiler<'a> {
    pub(crate) fn new(hub: &'a HubUrl, limits: &'a Limits) -> Self {
        Self { hub, limits, compiled: 0 }
    }

    /// See [`Matcher::parse`].
    pub(crate) fn parse(&mut self, kind: MatcherType, text: &str) -> Result<Matcher, Error> {
        let matcher = Matcher::parse(kind, text, self.hub, self.limits)?;
        self.compiled += matcher.size();
        within("compiled size of all patterns", self.compiled, self.limits.compiled)?;
        Ok(matcher)
    }
}
