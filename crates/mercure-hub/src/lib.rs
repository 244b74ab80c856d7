//! The hub as a server: configuration, authorization, HTTP, and the bus of a companion.
//!
//! What a request means is decided in [`api`], on plain values. The adapters (TCP, HTTP/2, the
//! companion's sockets, connections taken over from a worker) translate and nothing else.
//! [`serve`] is the only way to open the hub to clients.

mod accepting;
pub mod api;
pub mod auth;
pub mod bus;
pub mod config;
mod estate;
mod http;
mod listeners;
pub mod logging;
mod ops;
mod server;
pub mod tls;
mod upgrade;

pub use listeners::Listeners;
pub use ops::{TraceSettings, Traces};
pub use server::{Server, serve};
pub use upgrade::{Predecessor, Upgraded, upgrade};
