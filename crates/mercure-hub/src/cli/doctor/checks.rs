//! What streams need, one after the other.

use std::io::Write as _;
use std::time::{Duration, SystemTime};

use mercure_engine::Clock;

use super::stream::{By, Came, Stream, agent};
use super::{Findings, Patient};

/// How long an event may take before something holds it back.
const ROUND: Duration = Duration::from_secs(5);
/// A clock that is this wrong makes tokens expire too early or too late.
const CLOCK: Duration = Duration::from_secs(30);

pub(super) fn check(patient: &Patient, findings: &mut Findings) {
    let by = patient.token.as_deref().map_or(By::Nothing, By::Header);
    let stream = match Stream::open(patient, by, None) {
        Ok(stream) => stream,
        Err(error) => {
            return findings.broken(&format!(
                "no answer to a subscription: {error}; if others are answered, something waits for the \
                 end of the response: switch buffering off (nginx: proxy_buffering off)"
            ));
        }
    };
    if !head(patient, &stream, findings) {
        return;
    }
    cors(patient, &stream, findings);
    match patient.token.as_deref() {
        Some(token) => round(patient, token, &stream, findings),
        None => findings.doubt(
            "no token: whether events arrive was not measured; give one with --jwt (mercure-hub token \
             makes one)",
        ),
    }
    idle(patient, &stream, findings);
}

/// What the answer's head says; whether it is a stream.
fn head(patient: &Patient, stream: &Stream, findings: &mut Findings) -> bool {
    let status = stream.head.status.as_u16();
    if status != 200 {
        findings.broken(&format!("a subscription is answered {status}: {}", refusal(status)));
        return false;
    }
    let media_type = stream.field("content-type").unwrap_or("nothing");
    if !media_type.starts_with("text/event-stream") {
        findings.broken(&format!(
            "the answer is {media_type}, not text/event-stream: is {} the hub's URL, and does the proxy \
             pass it on?",
            patient.url
        ));
        return false;
    }
    findings.fine("a subscription is answered with an event stream");
    match stream.field("content-encoding") {
        Some(encoding) => findings.broken(&format!(
            "the stream is compressed ({encoding}), so events wait until a block is full: leave \
             text/event-stream out of compression (nginx: gzip_types)"
        )),
        None => findings.fine("it is not compressed"),
    }
    match stream.field("cache-control") {
        Some(value) if value.contains("no-") || value.contains("private") => {}
        _ => findings.doubt(
            "nothing forbids caches to keep the stream: let the hub's Cache-Control through",
        ),
    }
    clock(stream, findings);
    true
}

fn refusal(status: u16) -> &'static str {
    match status {
        301..=308 => {
            "use the URL that it redirects to, EventSource and credentials do not follow well"
        }
        401 => "it takes a token that the hub believes (--jwt), or anonymous = true at the hub",
        403 => "the token is good but does not allow this topic",
        404 => "there is no hub at this path; the standard one is /.well-known/mercure",
        413 | 414 | 431 => "the request is too long for what is in between",
        429 => "too many connections or requests of this address",
        502..=504 => "the proxy cannot reach the hub: is it running where the proxy looks for it?",
        _ => "look into the hub's log",
    }
}

fn clock(stream: &Stream, findings: &mut Findings) {
    let date = stream.field("date").and_then(|date| httpdate::parse_http_date(date).ok());
    let Some(theirs) = date else { return };
    let ours = SystemTime::UNIX_EPOCH + Clock::system().unix_time();
    let apart = theirs.duration_since(ours).or_else(|_| ours.duration_since(theirs));
    match apart.unwrap_or_default() {
        apart if apart > CLOCK => findings.doubt(&format!(
            "the clocks here and there are {} s apart: tokens expire too early or too late; use NTP",
            apart.as_secs()
        )),
        _ => findings.fine("the clocks agree"),
    }
}

fn cors(patient: &Patient, stream: &Stream, findings: &mut Findings) {
    let Some(origin) = patient.origin.as_deref() else { return };
    if patient.url.origin().ascii_serialization() == origin {
        return findings.fine("CORS: not needed, pages and hub have one origin");
    }
    let allowed = stream.field("access-control-allow-origin");
    let with_credentials = stream.field("access-control-allow-credentials") == Some("true");
    match allowed {
        Some(found) if found == origin && with_credentials => {
            findings.fine("CORS: pages of that origin may subscribe, with their cookie");
        }
        Some("*") => findings.doubt(
            "CORS: any origin may subscribe, but none with a cookie; name the origin in cors_origins for that",
        ),
        _ => findings.broken(&format!(
            "CORS: pages of {origin} may not read the stream; add it to cors_origins, and let the proxy \
             pass the Access-Control fields"
        )),
    }
}

/// An event on its way through the hub and back.
fn round(patient: &Patient, token: &str, stream: &Stream, findings: &mut Findings) {
    let (clock, first) = (Clock::system(), uuid::Uuid::new_v4().to_string());
    if let Err(reason) = publish(patient, token, &first) {
        return findings.broken(&reason);
    }
    match stream.until("id: ", ROUND) {
        Some(id) if id == first => {
            findings.fine(&format!("an event came back after {} ms", clock.now().as_millis()));
        }
        Some(other) => {
            return findings
                .doubt(&format!("another event came first ({other}); name a quiet --topic"));
        }
        None => {
            return findings.broken(
                "an event was accepted and did not arrive within 5 s: something in between collects the stream; \
                 switch buffering off (nginx: proxy_buffering off; X-Accel-Buffering let through)",
            );
        }
    }
    again(patient, token, &first, findings);
    let by_cookie = Stream::open(patient, By::Cookie(token), None);
    match by_cookie.map(|stream| stream.head.status.as_u16()) {
        Ok(200) => findings.fine("the token counts as a cookie as well"),
        Ok(status) => findings.doubt(&format!(
            "with the token as a cookie the answer is {status}: a proxy may drop \
             cookies, or cookie_name names another one"
        )),
        Err(error) => {
            findings.doubt(&format!("with the token as a cookie there is no answer: {error}"))
        }
    }
}

/// What was missed is sent again.
fn again(patient: &Patient, token: &str, first: &str, findings: &mut Findings) {
    let second = uuid::Uuid::new_v4().to_string();
    if let Err(reason) = publish(patient, token, &second) {
        return findings.broken(&reason);
    }
    let resumed = Stream::open(patient, By::Header(token), Some(first));
    let missed = resumed.ok().and_then(|stream| stream.until("id: ", ROUND));
    match missed {
        Some(id) if id == second => findings.fine("what a client has missed is sent to it again"),
        _ => findings.broken(
            "who comes back with Last-Event-ID does not get what it has missed: does a proxy drop that \
             field, or do several hubs not share one log (transport)?",
        ),
    }
}

fn publish(patient: &Patient, token: &str, id: &str) -> Result<(), String> {
    let mut form = url::form_urlencoded::Serializer::new(String::new());
    form.append_pair("topic", &patient.topic).append_pair("id", id).append_pair("data", "doctor");
    let sent = agent()
        .post(patient.url.as_str())
        .header("Content-Type", "application/x-www-form-urlencoded")
        .header("Authorization", format!("Bearer {token}"))
        .send(form.finish());
    match sent.map(|answer| answer.status().as_u16()) {
        Ok(200) => Ok(()),
        Ok(403) => {
            Err("the token may not publish to the topic: name one that it allows (--topic)"
                .to_owned())
        }
        Ok(status) => Err(format!("a publication is answered {status}: {}", refusal(status))),
        Err(error) => Err(format!("a publication is not answered: {error}")),
    }
}

/// Watches a stream on which nothing happens.
fn idle(patient: &Patient, stream: &Stream, findings: &mut Findings) {
    if patient.idle.is_zero() {
        return;
    }
    tell_progress(patient.idle);
    let (clock, mut heartbeat) = (Clock::system(), None);
    while let Some(left) = patient.idle.checked_sub(clock.now()) {
        match stream.next(left) {
            Came::Line(line) if line.starts_with(':') => {
                heartbeat.get_or_insert(clock.now());
            }
            Came::Line(_) => {}
            Came::Nothing => break,
            Came::End => {
                return findings.broken(&format!(
                    "the stream was cut after {} s of silence: raise the time limit of what is in between \
                     (nginx: proxy_read_timeout), or lower heartbeat at the hub",
                    clock.now().as_secs()
                ));
            }
        }
    }
    match heartbeat {
        Some(at) => findings.fine(&format!("a heartbeat came after {} s", at.as_secs())),
        None => findings.doubt(&format!(
            "the stream stayed open, but no heartbeat came within {} s: what cuts idle connections later was \
             not seen; watch longer with --idle, or lower heartbeat at the hub",
            patient.idle.as_secs()
        )),
    }
}

/// Somebody waits.
fn tell_progress(idle: Duration) {
    let _ =
        writeln!(std::io::stderr(), "       watching a silent stream for {} s …", idle.as_secs());
}
