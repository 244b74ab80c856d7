//! Expressions as finished automata: one table look-up per byte, whatever the expression.
//!
//! A lazily built or simulated automaton costs the product of the expression's and the text's
//! length in the worst case, which a hostile pattern reaches. Building all of it at once, within a
//! bound, moves that cost to the subscription: a pattern whose automaton is too large is refused.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, Weak};

use regex_automata::dfa::{Automaton as _, StartKind, dense};
use regex_automata::nfa::thompson::{self, WhichCaptures};
use regex_automata::util::syntax;
use regex_automata::{Anchored, Input, MatchKind};

/// Bounds of building, in bytes: what the expression takes, what is finished, and what is needed
/// meanwhile. They bound the time as well, which is what a hostile subscription would take.
struct Bounds {
    expression: usize,
    finished: usize,
    meanwhile: usize,
}

const ASCII: Bounds = Bounds { expression: 32 * 1024, finished: 32 * 1024, meanwhile: 128 * 1024 };
/// Unicode's classes are large.
const UNICODE: Bounds =
    Bounds { expression: 128 * 1024, finished: 128 * 1024, meanwhile: 256 * 1024 };
/// Longest expression that is looked at, in bytes: understanding one takes time as well.
const LONGEST: usize = 16 * 1024;

/// Those that somebody holds, by their expression, and how many entries there were when the rest was
/// thrown out last.
#[derive(Debug, Default)]
struct Shared {
    automata: HashMap<(Box<str>, bool), Weak<Automaton>>,
    kept: usize,
}

static SHARED: LazyLock<Mutex<Shared>> = LazyLock::new(Mutex::default);

/// An expression that is matched against whole texts.
#[derive(Debug)]
pub(super) struct Automaton(Box<dense::DFA<Vec<u32>>>);

impl Automaton {
    /// The automaton of an expression; `None` if it is malformed or too complex. Whoever asks for
    /// the same one, as subscribers mostly do, gets the same one.
    ///
    /// Expressions for text that is ASCII do without Unicode's classes, which are large.
    pub(super) fn of(expression: &str, unicode: bool) -> Option<Arc<Self>> {
        let key = (Box::from(expression), unicode);
        if let Some(found) = shared().automata.get(&key).and_then(Weak::upgrade) {
            return Some(found);
        }
        // Others may build the same meanwhile: better twice than one after the other.
        let built = Arc::new(Self::build(expression, unicode)?);
        shared().insert(key, &built);
        Some(built)
    }

    fn build(expression: &str, unicode: bool) -> Option<Self> {
        if expression.len() > LONGEST {
            return None;
        }
        let bounds = if unicode { UNICODE } else { ASCII };
        let config = dense::Config::new()
            .start_kind(StartKind::Anchored)
            .match_kind(MatchKind::All)
            .dfa_size_limit(Some(bounds.finished))
            .determinize_size_limit(Some(bounds.meanwhile));
        let syntax = syntax::Config::new().unicode(unicode).utf8(unicode);
        let nfa = thompson::Config::new()
            .utf8(unicode)
            .which_captures(WhichCaptures::None)
            .nfa_size_limit(Some(bounds.expression));
        let mut builder = dense::Builder::new();
        builder.configure(config).syntax(syntax).thompson(nfa);
        builder.build(&format!("\\A(?:{expression})\\z")).ok().map(Box::new).map(Self)
    }

    /// What it takes in memory, in bytes; what it took to build grows with it.
    pub(super) fn size(&self) -> usize {
        self.0.memory_usage()
    }

    /// Whether the expression matches all of a text.
    pub(super) fn matches(&self, text: &str) -> bool {
        let input = Input::new(text).anchored(Anchored::Yes);
        // An automaton without quit bytes, in a mode that it was built for, cannot fail.
        matches!(self.0.try_search_fwd(&input), Ok(Some(_)))
    }
}

fn shared() -> MutexGuard<'static, Shared> {
    SHARED.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn insert(&mut self, key: (Box<str>, bool), automaton: &Arc<Automaton>) {
        // Twice as many as last time: so each is looked at a few times only.
        if self.automata.len() >= 2 * self.kept + 64 {
            self.automata.retain(|_, automaton| automaton.strong_count() > 0);
            self.automata.shrink_to_fit();
            self.kept = self.automata.len();
        }
        self.automata.insert(key, Arc::downgrade(automaton));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_expressions_are_one_and_none_stays_longer_than_it_is_used() {
        let first = Automaton::of("(?:shared)*", false).expect("built");
        let second = Automaton::of("(?:shared)*", false).expect("built");
        assert!(Arc::ptr_eq(&first, &second));
        assert!(!Arc::ptr_eq(&first, &Automaton::of("(?:shared)*", true).expect("built")));
        for number in 0..1000 {
            drop(Automaton::of(&format!("{number}-of-many"), false).expect("built"));
        }
        let many = shared().automata.keys().filter(|(text, _)| text.ends_with("-of-many")).count();
        assert!(many < 500, "{many}");
    }
}
