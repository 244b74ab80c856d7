//! Expressions as finished automata: one table look-up per byte, whatever the expression.
//!
//! A lazily built or simulated automaton costs the product of the expression's and the text's
//! length in the worst case, which a hostile pattern reaches. Building all of it at once, within a
//! bound, moves that cost to the subscription: a pattern whose automaton is too large is refused.

use regex_automata::dfa::{Automaton as _, StartKind, dense};
use regex_automata::nfa::thompson::{self, WhichCaptures};
use regex_automata::util::syntax;
use regex_automata::{Anchored, Input, MatchKind};

/// Bound on a finished automaton, in bytes.
const SIZE: usize = 128 * 1024;
/// Bound on what building one takes meanwhile, in bytes.
const BUILDING: usize = 512 * 1024;
/// Bound on the expression in the form it is built from, in bytes.
const EXPRESSION: usize = 256 * 1024;

/// An expression that is matched against whole texts.
#[derive(Debug)]
pub(super) struct Automaton(Box<dense::DFA<Vec<u32>>>);

impl Automaton {
    /// Builds the automaton of an expression; `None` if it is malformed or too complex.
    /// Expressions for text that is ASCII do without Unicode's classes, which are large.
    pub(super) fn build(expression: &str, unicode: bool) -> Option<Self> {
        let config = dense::Config::new()
            .start_kind(StartKind::Anchored)
            .match_kind(MatchKind::All)
            .dfa_size_limit(Some(SIZE))
            .determinize_size_limit(Some(BUILDING));
        let syntax = syntax::Config::new().unicode(unicode).utf8(unicode);
        let nfa = thompson::Config::new()
            .utf8(unicode)
            .which_captures(WhichCaptures::None)
            .nfa_size_limit(Some(EXPRESSION));
        let mut builder = dense::Builder::new();
        builder.configure(config).syntax(syntax).thompson(nfa);
        builder.build(&format!("\\A(?:{expression})\\z")).ok().map(Box::new).map(Self)
    }

    /// Whether the expression matches all of a text.
    pub(super) fn matches(&self, text: &str) -> bool {
        let input = Input::new(text).anchored(Anchored::Yes);
        // An automaton without quit bytes, in a mode that it was built for, cannot fail.
        matches!(self.0.try_search_fwd(&input), Ok(Some(_)))
    }
}
