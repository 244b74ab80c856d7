//! What a connection still owes its client. The library keeps an answer until the client has taken it,
//! however long that takes: who never does is found out here.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use hyper::rt::Executor;
use mercure_engine::BodyEnd;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Longest piece that the library gets at once, in bytes: the last one it keeps beyond the body.
const PIECE: usize = 4 * 1024;

/// The answers of one connection that are not taken yet.
#[derive(Debug, Default)]
pub(super) struct Owed(Mutex<Debts>);

#[derive(Debug, Default)]
struct Debts {
    next: u64,
    /// What `next` was at the last look.
    seen: u64,
    open: HashMap<u64, Debt>,
}

#[derive(Debug, Default)]
struct Debt {
    is_answered: bool,
    /// Of a stream, which has nothing to give most of the time: whether it has ended.
    end: Option<BodyEnd>,
    /// When it was first seen waiting for the client.
    waits_since: Option<Instant>,
    /// Ends its task, if it has one of its own.
    end_task: Option<Arc<Notify>>,
}

/// How a connection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// Nothing was asked that is not answered and taken.
    Idle,
    /// Something is worked on, or taken, or was since the last look.
    Busy,
    /// The client does not take what it has asked for, on a connection for nothing else.
    Stuck,
}

impl Owed {
    /// Something is asked for.
    pub(super) fn ask(self: &Arc<Self>) -> Ticket {
        let mut debts = self.lock();
        let id = debts.next;
        debts.next += 1;
        debts.open.insert(id, Debt::default());
        Ticket { owed: Arc::clone(self), id }
    }

    /// The task of what was asked for last begins: it ends when this notifies.
    fn begin(&self) -> Option<Arc<Notify>> {
        let mut debts = self.lock();
        let last = debts.next.checked_sub(1)?;
        let debt = debts.open.get_mut(&last)?;
        Some(Arc::clone(debt.end_task.get_or_insert_default()))
    }

    /// How the connection stands, if a client may take `patience` before it takes more of an answer. Ends
    /// the tasks of those answers that it leaves where they are.
    pub(super) fn look(&self, now: Instant, patience: Duration) -> Standing {
        let mut debts = self.lock();
        let has_asked = debts.seen != debts.next;
        debts.seen = debts.next;
        if debts.open.is_empty() && !has_asked {
            return Standing::Idle;
        }
        let mut is_stuck = false;
        for debt in debts.open.values_mut() {
            let is_late = debt.is_late(now, patience);
            match &debt.end_task {
                _ if !is_late => {}
                Some(task) => task.notify_one(),
                None => is_stuck = true,
            }
        }
        if is_stuck { Standing::Stuck } else { Standing::Busy }
    }

    fn lock(&self) -> MutexGuard<'_, Debts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Debt {
    fn is_late(&mut self, now: Instant, patience: Duration) -> bool {
        let waits = self.is_answered && self.end.as_ref().is_none_or(BodyEnd::is_reached);
        self.waits_since = waits.then(|| self.waits_since.unwrap_or(now));
        self.waits_since.is_some_and(|since| now.duration_since(since) >= patience)
    }
}

/// Runs the streams of an HTTP/2 connection as tasks that can be ended one by one: the library resets a
/// stream whose task ends early. It begins a task right after it has asked for the answer.
#[derive(Debug, Clone)]
pub(super) struct Tasks(pub(super) Arc<Owed>);

impl<F> Executor<F> for Tasks
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, future: F) {
        let end = self.0.begin();
        tokio::spawn(async move {
            let ended = async {
                match &end {
                    Some(end) => end.notified().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = future => {}
                () = ended => tracing::debug!("an answer was not taken"),
            }
        });
    }
}

/// One answer that is owed, until it is dropped.
#[derive(Debug)]
pub(super) struct Ticket {
    owed: Arc<Owed>,
    id: u64,
}

impl Ticket {
    fn update(&self, update: impl FnOnce(&mut Debt)) {
        self.owed.lock().open.get_mut(&self.id).map(update);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.owed.lock().open.remove(&self.id);
    }
}

/// The body of an answer, in small pieces. The library asks for one more as soon as the client has room for
/// the first byte of the one before, so the last one is a single byte, if it is known to be the last.
#[derive(Debug)]
pub(super) struct Answered {
    body: Body,
    piece: Bytes,
    has_begun: bool,
    ticket: Ticket,
}

impl Answered {
    pub(super) fn new(response: http::Response<Body>, ticket: Ticket) -> http::Response<Self> {
        let (mut head, body) = response.into_parts();
        let end = head.extensions.remove::<BodyEnd>();
        ticket.update(|debt| (debt.is_answered, debt.end) = (true, end));
        let body = Self { body, piece: Bytes::new(), has_begun: false, ticket };
        http::Response::from_parts(head, body)
    }
}

impl http_body::Body for Answered {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.has_begun = true;
        self.ticket.update(|debt| debt.waits_since = None);
        if self.piece.is_empty() {
            match ready!(Pin::new(&mut self.body).poll_frame(cx)).transpose()? {
                None => return Poll::Ready(None),
                Some(frame) => match frame.into_data() {
                    Ok(bytes) => self.piece = bytes,
                    Err(other) => return Poll::Ready(Some(Ok(other))),
                },
            }
        }
        let is_last = self.body.is_end_stream() && self.piece.len() > 1;
        let length = (self.piece.len() - usize::from(is_last)).min(PIECE);
        Poll::Ready(Some(Ok(Frame::data(self.piece.split_to(length)))))
    }

    fn is_end_stream(&self) -> bool {
        !self.has_begun && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (inner, more) = (self.body.size_hint(), self.piece.len() as u64);
        let mut hint = SizeHint::new();
        hint.set_lower(inner.lower().saturating_add(more));
        if let Some(upper) = inner.upper() {
            hint.set_upper(upper.saturating_add(more));
        }
        hint
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_does_not_take_an_answer_is_found_out() {
        const PATIENCE: Duration = Duration::from_secs(10);
        let owed = Arc::new(Owed::default());
        let later = |seconds| owed.look(Instant::now() + Duration::from_secs(seconds), PATIENCE);
        assert_eq!(later(0), Standing::Idle);
        let ticket = owed.ask();
        assert_eq!((later(0), later(1000)), (Standing::Busy, Standing::Busy), "it is worked on");
        let answer = http::Response::new(Body::from("x".repeat(PIECE + 1)));
        let mut answer = Answered::new(answer, ticket).into_body();
        assert_eq!(
            (later(0), later(9), later(10)),
            (Standing::Busy, Standing::Busy, Standing::Stuck)
        );
        let piece = answer.frame().await.expect("a piece").expect("no error");
        assert_eq!(piece.into_data().expect("data").len(), PIECE);
        assert_eq!(
            (later(20), later(29), later(30)),
            (Standing::Busy, Standing::Busy, Standing::Stuck)
        );
        assert_eq!(http_body::Body::size_hint(&answer).exact(), Some(1));
        assert!(!http_body::Body::is_end_stream(&answer));
        assert_eq!(
            answer.frame().await.expect("one more").expect("no error").into_data().ok(),
            Some("x".into())
        );
        assert!(answer.frame().await.is_none());
        drop(answer);
        assert_eq!(later(99), Standing::Idle);
        drop(owed.ask());
        assert_eq!((later(99), later(99)), (Standing::Busy, Standing::Idle), "something was asked");
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_may_wait_until_it_has_ended() {
        const PATIENCE: Duration = Duration::from_secs(10);
        let owed = Arc::new(Owed::default());
        let (outlet, reader) = mercure_engine::body();
        let mut answer = http::Response::new(Body::empty());
        answer.extensions_mut().insert(reader.end());
        let answer = Answered::new(answer, owed.ask());
        let later = |seconds| owed.look(Instant::now() + Duration::from_secs(seconds), PATIENCE);
        assert_eq!((later(0), later(1000)), (Standing::Busy, Standing::Busy));
        drop(outlet);
        assert_eq!((later(1000), later(1010)), (Standing::Busy, Standing::Stuck));
        drop((reader, answer));
    }
}
