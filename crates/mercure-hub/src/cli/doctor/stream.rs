//! An event stream that can be waited for with a bound.

use std::io::{BufRead as _, BufReader};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

use super::Patient;

/// How the token is presented.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum By<'a> {
    Nothing,
    Header(&'a str),
    /// In the cookies of both generations.
    Cookie(&'a str),
}

/// What came in time.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Came {
    Line(String),
    Nothing,
    End,
}

/// An open stream.
pub(super) struct Stream {
    pub(super) head: http::response::Parts,
    lines: Receiver<String>,
}

pub(super) fn agent() -> ureq::Agent {
    ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_connect(Some(Duration::from_secs(10)))
        .timeout_recv_response(Some(Duration::from_secs(10)))
        .max_redirects(0)
        .build()
        .into()
}

impl Stream {
    /// Subscribes; the answer's head is there, whatever it says.
    pub(super) fn open(
        patient: &Patient,
        by: By<'_>,
        cursor: Option<&str>,
    ) -> Result<Self, ureq::Error> {
        let mut request = agent()
            .get(patient.subscription())
            .header("Accept", "text/event-stream")
            // As browsers do: what compresses streams shows itself.
            .header("Accept-Encoding", "gzip, br");
        request = match by {
            By::Nothing => request,
            By::Header(token) => request.header("Authorization", format!("Bearer {token}")),
            By::Cookie(token) => {
                let both =
                    format!("mercureAuthorization={token}; __Secure-mercure_access_token={token}");
                request.header("Cookie", both)
            }
        };
        if let Some(origin) = &patient.origin {
            request = request.header("Origin", origin);
        }
        if let Some(cursor) = cursor {
            request = request.header("Last-Event-ID", cursor);
        }
        let (head, body) = request.call()?.into_parts();
        let (tell, lines) = sync_channel(1024);
        // It ends with the stream, or with the program.
        std::thread::spawn(move || {
            let reader = BufReader::new(body.into_reader());
            for line in reader.lines().map_while(Result::ok) {
                if tell.send(line).is_err() {
                    break;
                }
            }
        });
        Ok(Self { head, lines })
    }

    /// The next line.
    pub(super) fn next(&self, patience: Duration) -> Came {
        match self.lines.recv_timeout(patience) {
            Ok(line) => Came::Line(line),
            Err(RecvTimeoutError::Timeout) => Came::Nothing,
            Err(RecvTimeoutError::Disconnected) => Came::End,
        }
    }

    /// Waits for a line that begins so; what follows it.
    pub(super) fn until(&self, begin: &str, patience: Duration) -> Option<String> {
        let clock = mercure_engine::Clock::system();
        while let Some(left) = patience.checked_sub(clock.now()) {
            match self.next(left) {
                Came::Line(line) => {
                    if let Some(rest) = line.strip_prefix(begin) {
                        return Some(rest.to_owned());
                    }
                }
                Came::Nothing | Came::End => return None,
            }
        }
        None
    }

    pub(super) fn field(&self, name: &str) -> Option<&str> {
        self.head.headers.get(name)?.to_str().ok()
    }
}
