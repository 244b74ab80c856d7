//! Whose tokens are believed, by which keys, in which role.

use std::sync::Arc;

use mercure_engine::Clock;

use super::Role;
use super::jwks::FetchedKeys;
use super::key::KeySet;

/// Keys of one issuer for one role.
#[derive(Debug, Clone)]
pub enum Keys {
    /// Written in the configuration.
    Fixed(Arc<KeySet>),
    /// Fetched from the issuer.
    Fetched(Arc<FetchedKeys>),
}

/// An issuer's keys; each role has its own.
#[derive(Debug, Clone, Default)]
pub struct Roles {
    /// Verifies publishers' tokens.
    pub publisher: Option<Keys>,
    /// Verifies subscribers' tokens.
    pub subscriber: Option<Keys>,
}

/// An issuer with keys of its own.
#[derive(Debug, Clone)]
pub struct Issuer {
    /// What the `iss` claim says.
    pub id: String,
    /// Whether it is an authorization server that clients may ask for tokens.
    pub authorization_server: bool,
    /// Its keys, and nobody else's.
    pub roles: Roles,
}

/// Everybody whose tokens are believed.
#[derive(Debug, Clone, Default)]
pub struct Trust {
    /// Keys that belong to no issuer block: they verify 0.x tokens, and the 1.0 tokens of
    /// `trusted`.
    pub shared: Roles,
    /// Issuers whose 1.0 tokens the shared keys verify.
    pub trusted: Vec<String>,
    /// Issuers with keys of their own.
    pub issuers: Vec<Issuer>,
}

/// Where the keys for a token were found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found<'a> {
    Shared,
    Issuer(&'a str),
}

impl Keys {
    /// The keys as they are now.
    pub(super) fn current(&self) -> Arc<KeySet> {
        match self {
            Self::Fixed(keys) => Arc::clone(keys),
            Self::Fetched(keys) => keys.current(),
        }
    }
}

impl Roles {
    /// The keys of a role.
    pub(super) fn of(&self, role: Role) -> Option<&Keys> {
        match role {
            Role::Publisher => self.publisher.as_ref(),
            Role::Subscriber => self.subscriber.as_ref(),
        }
    }

    fn is_empty(&self) -> bool {
        self.publisher.is_none() && self.subscriber.is_none()
    }

    fn fetched(&self) -> impl Iterator<Item = &Arc<FetchedKeys>> {
        let both = [&self.publisher, &self.subscriber].into_iter().flatten();
        both.filter_map(|keys| match keys {
            Keys::Fixed(_) => None,
            Keys::Fetched(keys) => Some(keys),
        })
    }
}

impl Trust {
    /// Whether nobody's tokens are believed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.shared.is_empty() && self.issuers.is_empty()
    }

    /// Issuers that can be asked for tokens.
    pub fn authorization_servers(&self) -> impl Iterator<Item = &str> {
        self.issuers.iter().filter(|one| one.authorization_server).map(|one| one.id.as_str())
    }

    /// The keys that a 1.0 token of this issuer is verified with: its own, never a pool.
    pub(super) fn for_v1(&self, issuer: &str) -> Option<(&Roles, Found<'_>)> {
        if let Some(own) = self.own(issuer) {
            return Some(own);
        }
        self.trusted.iter().any(|one| one == issuer).then_some((&self.shared, Found::Shared))
    }

    /// The keys that a 0.x token is verified with: those of the issuer it names, if that one has
    /// keys here, else the shared ones.
    pub(super) fn for_v0(&self, issuer: Option<&str>) -> (&Roles, Found<'_>) {
        let own = issuer.and_then(|issuer| self.own(issuer));
        own.unwrap_or((&self.shared, Found::Shared))
    }

    fn own(&self, issuer: &str) -> Option<(&Roles, Found<'_>)> {
        let found = self.issuers.iter().find(|one| one.id == issuer)?;
        Some((&found.roles, Found::Issuer(&found.id)))
    }

    /// Every set that is fetched.
    pub fn fetched(&self) -> impl Iterator<Item = &Arc<FetchedKeys>> {
        let own = self.issuers.iter().map(|issuer| &issuer.roles);
        std::iter::once(&self.shared).chain(own).flat_map(Roles::fetched)
    }

    /// Takes over what was fetched for a former configuration.
    pub(crate) fn inherit(&self, former: &Self) {
        for keys in self.fetched() {
            former.fetched().for_each(|known| keys.inherit(known));
        }
    }

    /// Fetches what is to be fetched, now and from time to time, until the tasks are dropped.
    pub(crate) fn keep_fresh(&self, clock: &Clock) -> tokio::task::JoinSet<()> {
        let mut tasks = tokio::task::JoinSet::new();
        for keys in self.fetched() {
            tasks.spawn(Arc::clone(keys).keep_fresh(clock.clone()));
        }
        tasks
    }
}
