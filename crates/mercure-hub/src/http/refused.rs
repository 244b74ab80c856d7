use std::sync::atomic::{AtomicU64, Ordering};

/// Why something was refused, as far as an operator can do something about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    Connections,
    ConnectionsPerAddress,
    Handshake,
    PublishRate,
    Malformed,
    Unauthorized,
    Late,
    TooLarge,
    TooMany,
    Unavailable,
}

impl Refused {
    const ALL: [(Self, &'static str); 10] = [
        (Self::Connections, "connections"),
        (Self::ConnectionsPerAddress, "connections_per_address"),
        (Self::Handshake, "handshake"),
        (Self::PublishRate, "publish_rate"),
        (Self::Malformed, "malformed"),
        (Self::Unauthorized, "unauthorized"),
        (Self::Late, "late"),
        (Self::TooLarge, "too_large"),
        (Self::TooMany, "too_many"),
        (Self::Unavailable, "unavailable"),
    ];

    /// What an answer with this status is, if it is a refusal.
    fn of(status: u16) -> Option<Self> {
        Some(match status {
            401 | 403 => Self::Unauthorized,
            408 => Self::Late,
            413 | 414 | 431 => Self::TooLarge,
            429 => Self::TooMany,
            500.. => Self::Unavailable,
            400.. => Self::Malformed,
            _ => return None,
        })
    }
}

/// How often something was refused, by reason. What is refused for its rate or its number is an answer
/// as well, and counted as both.
#[derive(Debug, Default)]
pub(crate) struct Refusals([AtomicU64; Refused::ALL.len()]);

impl Refusals {
    pub(crate) fn count(&self, reason: Refused) {
        self.0[reason as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_answer(&self, status: u16) {
        if let Some(reason) = Refused::of(status) {
            self.count(reason);
        }
    }

    /// Every reason, and how often there was it.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let counts = self.0.iter().map(|count| count.load(Ordering::Relaxed));
        Refused::ALL.iter().map(|(_, name)| *name).zip(counts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_counted_under_its_name() {
        let refusals = Refusals::default();
        for (reason, name) in Refused::ALL {
            refusals.count(reason);
            let counted: Vec<_> = refusals.all().filter(|(_, count)| *count == 1).collect();
            assert_eq!(counted.last().map(|(name, _)| *name), Some(name));
        }
    }
}
