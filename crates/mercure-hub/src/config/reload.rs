//! What a running hub takes of a changed configuration.

use super::{Config, SETTINGS, Setting};

impl Config {
    /// Names of the settings that have another value in `new`, and of these, those that a running hub
    /// cannot take.
    #[must_use]
    pub fn changes(&self, new: &Self) -> (Vec<&'static str>, Vec<&'static str>) {
        let differs =
            |setting: &&Setting| self.values.get(setting.name) != new.values.get(setting.name);
        let names = |setting: &Setting| setting.name;
        let changed = SETTINGS.iter().filter(differs);
        (
            changed.clone().map(names).collect(),
            changed.filter(|setting| !setting.is_live).map(names).collect(),
        )
    }

    /// Keeps what a running hub cannot take: everything but what is named here.
    pub(crate) fn wait_for_restart(&mut self, old: &Self, changed: &[&'static str]) {
        let new = std::mem::replace(self, old.clone());
        let (mut policy, before) = (new.policy, &old.policy);
        // Its keys live as long as it does.
        if new.playground.is_some() || old.playground.is_some() {
            policy.trust = before.trust.clone();
        }
        if !changed.contains(&"resource_identifier") {
            policy.resource_identifier.clone_from(&before.resource_identifier);
        }
        // The usual names are those of the protocol.
        if !changed.contains(&"cookie_name") {
            policy.cookie_names.clone_from(&before.cookie_names);
        }
        policy.protocol = before.protocol;
        policy.metadata = before.metadata;
        policy.public_origins.clone_from(&before.public_origins);
        self.policy = policy;
        self.quotas = new.quotas;
        self.limits = new.limits;
        self.max_request_body = new.max_request_body;
        self.retry = new.retry;
        self.max_connection_age = new.max_connection_age;
        self.drain = new.drain;
        self.drain_delay = new.drain_delay;
        self.log_level = new.log_level;
        self.advice = new.advice;
        self.values = new.values;
    }

    /// Keeps another configuration's values of some settings, in the eyes of [`Config::changes`].
    pub(crate) fn keep(&mut self, old: &Self, names: &[&'static str]) {
        for name in names {
            self.values.insert(name, old.values.get(name).cloned().unwrap_or_default());
        }
    }
}
