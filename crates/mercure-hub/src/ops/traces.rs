//! A publication as a trace (OpenTelemetry): from its publisher's context through the log to the sockets.
//!
//! No span holds a topic, data, a token or an address: those are the application's business.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use mercure_engine::{Hub, Published};
use opentelemetry::propagation::TextMapPropagator as _;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry::trace::{Span as _, SpanKind, Status, TraceContextExt as _, Tracer as _};
use opentelemetry::{Context, KeyValue};
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{Sampler, SdkTracer, SdkTracerProvider, Span};

use crate::api::Request;

/// How long the collector may take for an answer.
const PATIENCE: Duration = Duration::from_secs(3);
/// Between two looks whether an event was dispatched; as exact as its span's end is.
const LOOK: Duration = Duration::from_millis(1);
/// When a dispatch is not waited for any more.
const LONGEST_DISPATCH: Duration = Duration::from_secs(10);

/// Where spans go, and which ones.
#[derive(Debug, Clone)]
pub struct TraceSettings {
    /// URL of the collector; `/v1/traces` is added to it.
    pub endpoint: String,
    /// Part of the publications that begin a trace, 0 to 1; who comes with a context decides by it.
    pub ratio: f64,
}

/// Makes spans, and sends them off in batches.
#[derive(Debug)]
pub struct Traces {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
}

/// A publication that is traced.
#[derive(Debug)]
pub(crate) struct Publication {
    context: Context,
    tracer: SdkTracer,
}

impl Traces {
    /// Begins to send spans to a collector (OTLP over HTTP).
    ///
    /// # Errors
    /// If the exporter cannot be set up.
    pub fn start(settings: &TraceSettings) -> anyhow::Result<Self> {
        let endpoint = format!("{}/v1/traces", settings.endpoint.trim_end_matches('/'));
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(Collector::new())
            .with_endpoint(endpoint)
            .build()?;
        let sampler = Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(settings.ratio)));
        let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
        let resource = Resource::builder().with_service_name("mercure-hub").with_attribute(version);
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_sampler(sampler)
            .with_resource(resource.build())
            .build();
        let tracer = provider.tracer("mercure-hub");
        Ok(Self { provider, tracer })
    }

    /// Begins a publication's span, as a child of the publisher's (W3C Trace Context).
    pub(crate) fn publication(&self, request: &Request) -> Publication {
        let fields = ["traceparent", "tracestate"].into_iter();
        let carried: HashMap<String, String> = fields
            .filter_map(|name| Some((name.to_owned(), request.headers.get(name)?.to_owned())))
            .collect();
        let parent = TraceContextPropagator::new().extract_with_context(&Context::new(), &carried);
        let span = self
            .tracer
            .span_builder("publish")
            .with_kind(SpanKind::Server)
            .with_attributes([KeyValue::new("http.request.method", "POST")])
            .start_with_context(&self.tracer, &parent);
        Publication { context: Context::new().with_span(span), tracer: self.tracer.clone() }
    }

    /// Sends what is left.
    pub fn stop(&self) {
        if let Err(error) = self.provider.shutdown_with_timeout(PATIENCE) {
            tracing::warn!(%error, "the last traces may be lost");
        }
    }
}

impl Publication {
    /// A part of it that begins now.
    fn child(&self, name: &'static str) -> Span {
        let builder = self.tracer.span_builder(name).with_kind(SpanKind::Internal);
        builder.start_with_context(&self.tracer, &self.context)
    }

    /// The log's part, which begins now.
    pub(crate) fn append(&self) -> Span {
        self.child("append")
    }

    /// The event is in the log: follows it to the sockets, without being waited for.
    pub(crate) fn appended(&self, published: &Published, hub: &Arc<Hub>) {
        let span = self.context.span();
        if !span.is_recording() {
            return;
        }
        span.set_attribute(KeyValue::new("mercure.event.id", published.id.to_string()));
        let (mut dispatch, position) = (self.child("dispatch"), published.position);
        // A hub that ends is not held up by who watches it.
        let hub = Arc::downgrade(hub);
        tokio::spawn(async move {
            let dispatched = async {
                while hub.upgrade().is_some_and(|hub| !hub.is_dispatched(position)) {
                    tokio::time::sleep(LOOK).await;
                }
            };
            if tokio::time::timeout(LONGEST_DISPATCH, dispatched).await.is_err() {
                dispatch.set_status(Status::error("not dispatched within 10 s"));
            }
            dispatch.end();
        });
    }

    /// The answer is known.
    pub(crate) fn answered(self, status: u16) {
        let span = self.context.span();
        span.set_attribute(KeyValue::new("http.response.status_code", i64::from(status)));
        if status >= 500 {
            span.set_status(Status::error("not published"));
        }
        span.end();
    }
}

/// Sends a batch from the thread that makes batches, which may wait.
#[derive(Debug)]
struct Collector {
    agent: ureq::Agent,
    /// Whether the last batch was lost, which is said once.
    is_away: AtomicBool,
}

impl Collector {
    fn new() -> Self {
        let config = ureq::Agent::config_builder();
        let config = config.timeout_global(Some(PATIENCE)).http_status_as_error(false);
        Self { agent: config.build().into(), is_away: AtomicBool::new(false) }
    }

    /// Tells the operator when traces begin to be lost, and when they arrive again.
    fn note(&self, outcome: &Result<http::Response<Bytes>, HttpError>) {
        let lost = match outcome {
            Ok(answer) if answer.status().is_success() => None,
            Ok(answer) => Some(format!("it answers {}", answer.status())),
            Err(error) => Some(error.to_string()),
        };
        let was_away = self.is_away.swap(lost.is_some(), Ordering::Relaxed);
        match lost {
            Some(reason) if !was_away => {
                tracing::warn!(
                    "traces are lost until the collector (otlp_endpoint) takes them: {reason}"
                );
            }
            None if was_away => tracing::info!("the collector takes traces again"),
            _ => {}
        }
    }

    fn send(&self, request: http::Request<Bytes>) -> Result<http::Response<Bytes>, HttpError> {
        let (head, body) = request.into_parts();
        let answer = self.agent.run(http::Request::from_parts(head, body.to_vec()))?;
        let (head, mut body) = answer.into_parts();
        let body = body.with_config().limit(64 * 1024).read_to_vec()?;
        Ok(http::Response::from_parts(head, body.into()))
    }
}

#[async_trait::async_trait]
impl HttpClient for Collector {
    async fn send_bytes(
        &self,
        request: http::Request<Bytes>,
    ) -> Result<http::Response<Bytes>, HttpError> {
        let outcome = self.send(request);
        self.note(&outcome);
        outcome
    }
}
