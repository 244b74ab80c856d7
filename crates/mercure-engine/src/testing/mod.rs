//! For tests: the conformance suite that every transport passes, and a decorator that injects
//! faults into one.

mod faults;
mod nodes;
mod retention;
mod roster;
mod suite;

pub use faults::{Faults, Faulty};
pub use suite::{Subject, conformance};
