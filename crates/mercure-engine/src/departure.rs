//! How a hub's streams go on in another process that has the same log.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mercure_protocol::{ClientId, Grants, Matcher};

use crate::admission::{AttachError, Held};
use crate::hub::Hub;
use crate::outlet::Outlet;
use crate::presence::Attended;
use crate::shard::End;
use crate::subscriber::NewSubscriber;
use crate::transport::{From, Handover, Head, TransportError};

/// A subscriber between two hubs. Dropping it ends the stream, unless another process holds its
/// connection as well.
#[derive(Debug)]
pub struct Departing {
    /// Its connection; never a body.
    pub outlet: Outlet,
    /// What it listens to.
    pub matchers: Vec<Matcher>,
    /// What private updates it may read.
    pub may_read: Vec<Matcher>,
    /// Its place in the log.
    pub from: From,
    /// Bytes that go before everything else: the rest of what was written in part.
    pub unsent: Bytes,
    /// How long its connection may still live; `None` for ever.
    pub time_left: Option<Duration>,
    /// Who it belongs to, if that is known.
    pub client: Option<ClientId>,
    /// What is noted of what it holds beside its place ([`Held::note`]).
    pub note: Option<String>,
    /// Its presence, if it was told.
    pub attended: Option<Attended>,
}

impl Hub {
    /// Ends like [`Hub::shutdown`], but gives the plain streams away instead of ending them.
    /// Everything accepted before has been dispatched: a stream is behind only where its socket is.
    #[must_use]
    pub fn depart(&self) -> Vec<Departing> {
        self.end(End::Depart)
    }

    /// Lets go of the log after [`Hub::depart`], so that another process can go on with it and, among
    /// several nodes, in the place of this one.
    #[must_use]
    pub fn close_log(&self) -> Handover {
        self.shared().transport.close()
    }

    /// Whether the log is the one in which an event had this place: only there do places mean the same.
    ///
    /// # Errors
    /// If the transport cannot be asked.
    pub async fn goes_on_from(&self, head: &Head) -> Result<bool, TransportError> {
        // What was dropped since cannot be found, and an id may have been given twice.
        if self.head().await? == *head {
            return Ok(true);
        }
        let Some(id) = &head.id else { return Ok(false) };
        let found = self.shared().transport.locate(id.as_str()).await?;
        Ok(found == Some(head.position))
    }

    /// Takes on a subscriber that departed elsewhere. This hub's log must be a continuation of the
    /// one it comes from. It holds what it held there.
    ///
    /// # Errors
    /// If there is no place for it.
    pub fn welcome(
        &self,
        departing: Departing,
        held: Option<Box<dyn Held>>,
    ) -> Result<(), AttachError> {
        let mut permit = self.admit(departing.client)?;
        held.into_iter().for_each(|held| permit.hold(held));
        let matchers = departing.matchers;
        let attended = departing.attended;
        let present = match (self.presence(), attended) {
            (Some(presence), Some(attended)) => Some(presence.resume(&matchers, attended)),
            (Some(_), None) => self.enter(&matchers, None)?,
            (None, _) => None,
        };
        let grants = departing.may_read;
        self.attach(NewSubscriber {
            outlet: departing.outlet,
            grants: (!grants.is_empty()).then(|| Arc::new(Grants::to_read(grants))),
            from: departing.from,
            preamble: departing.unsent,
            deadline: departing.time_left.map(|left| self.clock().now() + left),
            matchers,
            permit,
            present,
        });
        Ok(())
    }
}
