use std::fmt::{self, Write as _};

use mercure_engine::{Hub, State, Times};
use metrics::{counter, describe_counter, describe_gauge, gauge, with_local_recorder};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use metrics_process::Collector;

use crate::http::Site;
use crate::tls::Tls;

/// Figures of one hub; several in one process do not mix.
pub(super) struct Figures {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
    process: Collector,
}

impl fmt::Debug for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Figures").finish_non_exhaustive()
    }
}

impl Figures {
    pub(super) fn new() -> Self {
        let recorder = PrometheusBuilder::new().build_recorder();
        let (handle, process) = (recorder.handle(), Collector::default());
        with_local_recorder(&recorder, || {
            describe();
            process.describe();
        });
        Self { recorder, handle, process }
    }

    /// Takes the figures of this moment. What the engine would have to be asked for is left as it
    /// was if it does not answer.
    pub(super) async fn of(&self, hub: &Hub, site: &Site) -> String {
        let (held, head) = (hub.measure().await.ok(), hub.head().await.ok());
        let (stats, state, tail) = (hub.stats(), hub.transport_state(), hub.tail());
        with_local_recorder(&self.recorder, || {
            self.process.collect();
            gauge!("mercure_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
            if let Some(at) = site.tls.as_ref().and_then(Tls::not_after) {
                gauge!("mercure_certificate_expiry_timestamp_seconds").set(at as f64);
            }
            let tasks = tokio::runtime::Handle::current().metrics().num_alive_tasks();
            gauge!("mercure_tasks").set(tasks as f64);
            gauge!("mercure_subscribers").set(stats.subscribers as f64);
            let v1 = stats.subscribers.saturating_sub(stats.subscribers_v0);
            for (generation, count) in [("1.0", v1), ("0.x", stats.subscribers_v0)] {
                gauge!("mercure_subscribers_by_generation", "generation" => generation)
                    .set(count as f64);
            }
            counter!("mercure_events_accepted_total").absolute(stats.published);
            counter!("mercure_events_delivered_total").absolute(stats.delivered);
            counter!("mercure_gaps_total").absolute(stats.gaps);
            counter!("mercure_stalled_total").absolute(stats.stalled);
            let memory = stats.memory;
            let parts = [
                ("window", memory.window),
                ("subscribers", memory.subscribers),
                ("backlogs", memory.backlogs),
            ];
            for (part, bytes) in parts {
                gauge!("mercure_memory_bytes", "part" => part).set(bytes as f64);
            }
            for (reason, count) in site.gate.refusals.all() {
                counter!("mercure_refused_total", "reason" => reason).absolute(count);
            }
            let away = match state {
                State::Available => 0.0,
                State::Away { since, .. } => hub.clock().now().saturating_sub(since).as_secs_f64(),
            };
            gauge!("mercure_transport_available").set(if away > 0.0 { 0.0 } else { 1.0 });
            gauge!("mercure_transport_away_seconds").set(away);
            if let Some(held) = held {
                gauge!("mercure_log_events").set(held.events as f64);
                gauge!("mercure_log_bytes").set(held.bytes as f64);
            }
            if let Some(head) = head {
                let lag = head.position.0.saturating_sub(tail.0);
                gauge!("mercure_log_lag_events").set(lag as f64);
            }
        });
        let mut text = self.handle.render();
        for (name, help, times) in [
            (
                "acknowledging",
                "From an update's arrival to its acknowledgement",
                stats.acknowledging,
            ),
            (
                "dispatching",
                "From knowing an event until it is written to who is live",
                stats.dispatching,
            ),
            ("catching_up", "From falling behind, or coming back, until live", stats.catching_up),
        ] {
            write_times(&mut text, name, help, &times);
        }
        text
    }
}

/// A histogram whose counts stand already, which the recorder cannot take (Prometheus' text format).
fn write_times(out: &mut String, name: &str, help: &str, times: &Times) {
    let name = format!("mercure_{name}_seconds");
    // Writing to memory cannot fail.
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} histogram");
    for (end, count) in times.cumulative() {
        let end = end.map_or("+Inf".to_owned(), |end| end.as_secs_f64().to_string());
        let _ = writeln!(out, "{name}_bucket{{le=\"{end}\"}} {count}");
    }
    let _ = writeln!(
        out,
        "{name}_sum {}\n{name}_count {}\n",
        times.total().as_secs_f64(),
        times.count()
    );
}

fn describe() {
    describe_gauge!("mercure_build_info", "1, with the version of this hub");
    describe_gauge!(
        "mercure_certificate_expiry_timestamp_seconds",
        "When the certificate ends that is shown, in Unix time"
    );
    describe_gauge!("mercure_subscribers", "Streams that are open at this node");
    describe_gauge!("mercure_subscribers_by_generation", "The same, by generation of the protocol");
    describe_gauge!("mercure_tasks", "Tasks that are under way, idle connections among them");
    describe_counter!("mercure_events_accepted_total", "Events accepted by this node");
    describe_counter!("mercure_events_delivered_total", "Events handed to subscribers' sockets");
    describe_counter!("mercure_gaps_total", "Streams ended because the log had dropped events");
    describe_counter!("mercure_stalled_total", "Streams ended because their client did not read");
    describe_counter!("mercure_refused_total", "Connections and requests refused, by reason");
    describe_gauge!("mercure_memory_bytes", "Memory by what it is for, about");
    describe_gauge!("mercure_transport_available", "1 if the transport's engine answers");
    describe_gauge!("mercure_transport_away_seconds", "How long it has not answered");
    describe_gauge!("mercure_log_events", "Events that the log holds");
    describe_gauge!("mercure_log_bytes", "Their size in bytes, about");
    describe_gauge!("mercure_log_lag_events", "Events of the log that this node has yet to tell");
}
