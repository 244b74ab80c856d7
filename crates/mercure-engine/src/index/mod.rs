//! Who listens to what, so that an event finds its receivers without asking everyone.
//!
//! Exact topics are found by hash. Patterns are interned and filed under the literal text that
//! everything they match begins with; of those, each distinct one is evaluated once per event,
//! however many subscribers share it.

mod slots;

use std::collections::HashMap;
use std::sync::Arc;

use mercure_protocol::{Matcher, Route, TopicView};
use patricia_tree::PatriciaMap;
use slab::Slab;

use self::slots::Slots;

/// A subscriber's slot in its shard.
pub(crate) type Slot = u32;

#[derive(Debug, Default)]
pub(crate) struct Index {
    everything: Slots,
    exact: HashMap<Arc<str>, Slots>,
    patterns: Slab<Pattern>,
    by_matcher: HashMap<Matcher, usize>,
    by_topic_prefix: PatriciaMap<Vec<usize>>,
    by_url_prefix: PatriciaMap<Vec<usize>>,
}

#[derive(Debug)]
struct Pattern {
    matcher: Matcher,
    slots: Slots,
}

impl Index {
    /// Files a subscriber under a matcher. Returns the matcher to keep: an equal one that others
    /// share already, so that a compiled pattern is held once.
    pub(crate) fn insert(&mut self, slot: Slot, matcher: &Matcher) -> Matcher {
        match matcher.route() {
            Route::Any => self.everything.insert(slot),
            Route::Exact(topic) => match self.exact.get_mut(topic) {
                Some(slots) => slots.insert(slot),
                None => {
                    self.exact.insert(topic.into(), Slots::of(slot));
                }
            },
            Route::TopicPrefix(_) | Route::UrlPrefix(_) => {
                return self.insert_pattern(slot, matcher);
            }
        }
        matcher.clone()
    }

    /// Takes back one [`Index::insert`].
    pub(crate) fn remove(&mut self, slot: Slot, matcher: &Matcher) {
        match matcher.route() {
            Route::Any => self.everything.remove(slot),
            Route::Exact(topic) => {
                let Some(slots) = self.exact.get_mut(topic) else {
                    return;
                };
                slots.remove(slot);
                if slots.is_empty() {
                    self.exact.remove(topic);
                }
            }
            Route::TopicPrefix(_) | Route::UrlPrefix(_) => self.remove_pattern(slot, matcher),
        }
    }

    /// Calls `found` with every subscriber that listens to one of the topics; with some of them
    /// more than once.
    pub(crate) fn find(&self, topics: &[TopicView<'_>], mut found: impl FnMut(Slot)) {
        self.everything.for_each(&mut found);
        for topic in topics {
            if let Some(slots) = self.exact.get(topic.as_str()) {
                slots.for_each(&mut found);
            }
            if self.patterns.is_empty() {
                continue;
            }
            let by_topic = self.by_topic_prefix.common_prefix_values(topic.as_str());
            self.evaluate(by_topic, topic, &mut found);
            if !self.by_url_prefix.is_empty()
                && let Some(key) = topic.url_key()
            {
                let by_url = self.by_url_prefix.common_prefix_values(key.as_ref());
                self.evaluate(by_url, topic, &mut found);
            }
        }
    }

    /// Whether somebody may listen to one of the topics; patterns are not evaluated for it.
    pub(crate) fn may_match(&self, topics: &[TopicView<'_>]) -> bool {
        let any = |topic: &TopicView<'_>| {
            let (by_topic, by_url) = (&self.by_topic_prefix, &self.by_url_prefix);
            let is_below = |tree: &PatriciaMap<Vec<usize>>, key: &str| {
                tree.common_prefix_values(key).next().is_some()
            };
            self.exact.contains_key(topic.as_str())
                || (!by_topic.is_empty() && is_below(by_topic, topic.as_str()))
                || (!by_url.is_empty() && topic.url_key().is_some_and(|key| is_below(by_url, &key)))
        };
        !self.everything.is_empty() || topics.iter().any(any)
    }

    fn evaluate<'a>(
        &self,
        candidates: impl Iterator<Item = &'a Vec<usize>>,
        topic: &TopicView<'_>,
        found: &mut impl FnMut(Slot),
    ) {
        for pattern in candidates.flatten().filter_map(|key| self.patterns.get(*key)) {
            if pattern.matcher.matches(topic) {
                pattern.slots.for_each(&mut *found);
            }
        }
    }

    fn insert_pattern(&mut self, slot: Slot, matcher: &Matcher) -> Matcher {
        if let Some(key) = self.by_matcher.get(matcher) {
            let pattern = &mut self.patterns[*key];
            pattern.slots.insert(slot);
            return pattern.matcher.clone();
        }
        let key =
            self.patterns.insert(Pattern { matcher: matcher.clone(), slots: Slots::of(slot) });
        self.by_matcher.insert(matcher.clone(), key);
        if let Some((tree, prefix)) = self.tree(matcher) {
            match tree.get_mut(prefix) {
                Some(keys) => keys.push(key),
                None => {
                    tree.insert(prefix, vec![key]);
                }
            }
        }
        matcher.clone()
    }

    fn remove_pattern(&mut self, slot: Slot, matcher: &Matcher) {
        let Some(key) = self.by_matcher.get(matcher).copied() else {
            return;
        };
        let slots = &mut self.patterns[key].slots;
        slots.remove(slot);
        if !slots.is_empty() {
            return;
        }
        self.patterns.remove(key);
        self.by_matcher.remove(matcher);
        let Some((tree, prefix)) = self.tree(matcher) else {
            return;
        };
        if let Some(keys) = tree.get_mut(prefix) {
            remove_value(keys, &key);
            if keys.is_empty() {
                tree.remove(prefix);
            }
        }
    }

    fn tree<'a>(
        &mut self,
        matcher: &'a Matcher,
    ) -> Option<(&mut PatriciaMap<Vec<usize>>, &'a str)> {
        match matcher.route() {
            Route::TopicPrefix(prefix) => Some((&mut self.by_topic_prefix, prefix)),
            Route::UrlPrefix(prefix) => Some((&mut self.by_url_prefix, prefix)),
            Route::Any | Route::Exact(_) => None,
        }
    }
}

fn remove_value<T: PartialEq>(values: &mut Vec<T>, value: &T) {
    if let Some(at) = values.iter().position(|candidate| candidate == value) {
        values.swap_remove(at);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use mercure_protocol::{HubUrl, Limits, MatcherType};
    use proptest::prelude::*;

    use super::*;

    fn hub() -> HubUrl {
        HubUrl::parse("http://hub.test/.well-known/mercure").expect("hub URL")
    }

    fn matcher(kind: MatcherType, text: &str) -> Matcher {
        Matcher::parse(kind, text, &hub(), &Limits::default()).expect("matcher")
    }

    fn arbitrary_matcher() -> impl Strategy<Value = Matcher> {
        let text = "(\\*|/|http://(hub\\.test|h)/)?(a|b|\\{x\\}|:y|\\*|/){0,4}";
        let kinds = vec![MatcherType::Exact, MatcherType::UrlPattern, MatcherType::Selector];
        (proptest::sample::select(kinds), text).prop_filter_map("invalid", |(kind, text)| {
            Matcher::parse(kind, &text, &hub(), &Limits::default()).ok()
        })
    }

    proptest! {
        /// The index finds exactly those that asking everyone would find, also after removals.
        #[test]
        fn finds_what_a_full_scan_finds(
            matchers in proptest::collection::vec((arbitrary_matcher(), any::<bool>()), 0..24),
            topics in proptest::collection::vec("(/|http://(hub\\.test|h)/)?(a|b|/){1,4}", 1..3),
        ) {
            let mut index = Index::default();
            for (slot, (matcher, _)) in matchers.iter().enumerate() {
                index.insert(slot as Slot, matcher);
            }
            for (slot, (matcher, _)) in matchers.iter().enumerate().filter(|(_, (_, keep))| !keep) {
                index.remove(slot as Slot, matcher);
            }
            let hub = hub();
            let views: Vec<_> = topics.iter().map(|topic| TopicView::new(topic, &hub)).collect();
            let mut found = BTreeSet::new();
            index.find(&views, |slot| { found.insert(slot); });
            let scanned: BTreeSet<Slot> = matchers
                .iter()
                .enumerate()
                .filter(|(_, (m, keep))| *keep && views.iter().any(|view| m.matches(view)))
                .map(|(slot, _)| slot as Slot)
                .collect();
            prop_assert!(index.may_match(&views) || found.is_empty());
            prop_assert_eq!(found, scanned);
        }
    }

    #[test]
    fn an_emptied_index_holds_nothing() {
        let mut index = Index::default();
        let matchers = [
            matcher(MatcherType::Exact, "a"),
            matcher(MatcherType::Exact, "*"),
            matcher(MatcherType::Selector, "http://h/{x}"),
            matcher(MatcherType::UrlPattern, "http://h/:x"),
        ];
        for slot in 0..3 {
            matchers.iter().for_each(|matcher| drop(index.insert(slot, matcher)));
        }
        for slot in 0..3 {
            matchers.iter().for_each(|matcher| index.remove(slot, matcher));
        }
        assert!(index.everything.is_empty() && index.exact.is_empty() && index.patterns.is_empty());
        assert!(index.by_matcher.is_empty());
        assert!(index.by_topic_prefix.is_empty() && index.by_url_prefix.is_empty());
    }
}
