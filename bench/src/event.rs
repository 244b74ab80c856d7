//! What is published: a number that tells order and loss, and the time, in data of a given size.

use rustix::time::{ClockId, clock_gettime};

/// Between the parts of the data; no other line of a stream has it.
const MARK: &str = "data: seq ";

/// Nanoseconds of the clock that all processes of this machine share.
pub(crate) fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// The data of an event: its number from 1, the time, and as much more as makes it `size` bytes.
pub(crate) fn data(number: u64, size: usize) -> String {
    let mut data = format!("seq {number} {} ", now());
    while data.len() < size {
        data.push('x');
    }
    data
}

/// Number and time of an event, from a line of a stream.
pub(crate) fn parse(line: &[u8]) -> Option<(u64, u64)> {
    let line = std::str::from_utf8(line).ok()?.strip_prefix(MARK)?;
    let mut parts = line.splitn(3, ' ');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}
