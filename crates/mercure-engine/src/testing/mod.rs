//! For tests: the conformance suite that every transport passes, and a decorator that injects
//! faults into one.

mod faults;
mod suite;

pub use faults::{Faults, Faulty};
pub use suite::conformance;
