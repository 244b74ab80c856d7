//! The Mercure protocol as data, both generations (0.x and 1.0).
//!
//! Every type here is built by a fallible constructor and has private fields, so an invalid
//! topic, matcher, update or event id cannot exist further down. Nothing in this crate waits,
//! reads a clock, a file or the environment: each function's result follows from its arguments.
//!
//! Section names in the documentation refer to `draft-dunglas-mercure-08` ("1.0") and, where
//! marked "0.x", to the specification as it stood at v0.18 of the reference hub.

mod discovery;
mod error;
mod event;
mod form;
mod grants;
mod limits;
mod matcher;
mod sse;
mod subscribe;
mod subscription;
mod text;
mod topic;
mod update;

pub use discovery::{Metadata, subscriptions_link};
pub use error::Error;
pub use event::{EventId, EventType, LastEventId};
pub use grants::{ClientId, Grants, Principal};
pub use limits::Limits;
pub use matcher::{Matcher, MatcherName, MatcherType, Route, TopicView};
pub use sse::{HEARTBEAT, frame, frame_cursor, frame_retry};
pub use subscribe::{Generation, Protocol, SubscribeQuery};
pub use subscription::{AskedMatcher, SubscriberId, Subscription, SubscriptionsPath, collection};
pub use topic::{HubUrl, Topic};
pub use update::{Publication, Update};
