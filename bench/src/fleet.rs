//! What a fleet holds, by simulation: every node reads every event of the log and writes it to its
//! own subscribers, so a node's work is the events' and its share of the deliveries.

/// What is known of one node.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Node {
    /// Cores that write to sockets.
    pub(crate) cores: f64,
    /// Processor time of one delivery, in microseconds.
    pub(crate) delivery: f64,
    /// Processor time of one event without receivers, in microseconds.
    pub(crate) event: f64,
    /// Memory of one connection, in the hub and in the kernel, in bytes.
    pub(crate) connection: f64,
    /// Memory for connections, in bytes.
    pub(crate) memory: f64,
}

/// Events that each simulation takes.
const EVENTS: usize = 20_000;
/// How much of its cores a node is to use.
const BUSY: f64 = 0.5;

/// Prints what fleets of this node hold: so many connections, each of which hears one of a hundred
/// events.
pub(crate) fn run(node: Node) {
    const HEARD: f64 = 0.01;
    println!(
        "| nodes | connections | events/s | deliveries/s | p50 ms | p99 ms | engine reads/s |\n\
         |---|---|---|---|---|---|---|"
    );
    for nodes in [1, 3, 30] {
        let connections = node.memory / node.connection;
        let service = (node.event + connections * HEARD * node.delivery) / node.cores;
        let rate = BUSY * 1e6 / service;
        let mut delays = delays(rate, service);
        delays.sort_by(f64::total_cmp);
        let percentile = |part: f64| delays[(delays.len() as f64 * part) as usize] / 1000.0;
        let fleet = f64::from(nodes);
        println!(
            "| {nodes} | {:.0} | {rate:.0} | {:.0} | {:.1} | {:.1} | {:.0} |",
            connections * fleet,
            rate * connections * HEARD * fleet,
            percentile(0.5),
            percentile(0.99),
            rate * fleet
        );
    }
}

/// How long events take until the last of their receivers at one node has them, in microseconds:
/// they arrive at random, and each waits for those before it.
fn delays(rate: f64, service: f64) -> Vec<f64> {
    let mut random = fastrand::Rng::with_seed(1);
    let (mut now, mut free) = (0.0_f64, 0.0_f64);
    let mut one = || {
        now += -(1.0 - random.f64()).ln() / rate * 1e6;
        free = free.max(now) + service;
        free - now
    };
    (0..EVENTS).map(|_| one()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_is_that_of_a_queue_with_a_fixed_service_time() {
        let mean = |busy: f64| {
            let delays = delays(busy * 1e6 / 100.0, 100.0);
            delays.iter().sum::<f64>() / delays.len() as f64
        };
        // Pollaczek and Khinchine: half the utilization over what is left of it, and the service.
        for busy in [0.1, 0.5, 0.8] {
            let expected = 100.0 * (1.0 + busy / (2.0 * (1.0 - busy)));
            let found = mean(busy);
            assert!((found / expected - 1.0).abs() < 0.1, "{busy}: {found} {expected}");
        }
    }
}
