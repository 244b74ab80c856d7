//! How long deliveries took, in buckets that grow by an eighth.

/// Buckets for each doubling.
const STEPS: u64 = 8;

/// A histogram of times in nanoseconds.
#[derive(Debug, Clone, Default)]
pub(crate) struct Latency(Vec<u64>);

impl Latency {
    pub(crate) fn add(&mut self, nanoseconds: u64) {
        let bucket = bucket(nanoseconds);
        if self.0.len() <= bucket {
            self.0.resize(bucket + 1, 0);
        }
        self.0[bucket] += 1;
    }

    /// The time that a part of the deliveries stayed below, in microseconds; 0 if there were none.
    pub(crate) fn percentile(&self, part: f64) -> f64 {
        let wanted = self.0.iter().sum::<u64>() as f64 * part;
        let mut seen = 0;
        for (bucket, count) in self.0.iter().enumerate() {
            seen += count;
            if *count > 0 && seen as f64 >= wanted {
                return end(bucket) / 1000.0;
            }
        }
        0.0
    }
}

fn bucket(nanoseconds: u64) -> usize {
    let value = nanoseconds.max(STEPS);
    let doubling = u64::from(value.ilog2());
    let step = (value >> (doubling - 3)) - STEPS;
    ((doubling - 3) * STEPS + step) as usize
}

fn end(bucket: usize) -> f64 {
    let (doubling, step) = (bucket as u64 / STEPS, bucket as u64 % STEPS);
    (((STEPS + step + 1) << doubling) - 1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_an_eighth_exact() {
        let mut latency = Latency::default();
        (1..=10_000).for_each(|number| latency.add(number * 1000));
        for (part, exact) in [(0.5, 5000.0), (0.99, 9900.0), (1.0, 10_000.0)] {
            let found = latency.percentile(part);
            assert!(found >= exact && found <= exact * 1.125, "{part}: {found}");
        }
        assert_eq!(Latency::default().percentile(0.5), 0.0);
    }
}
