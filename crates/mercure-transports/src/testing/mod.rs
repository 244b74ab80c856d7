//! Real engines for tests and measurements: on free ports, in temporary folders, ended when dropped.
//!
//! What is not installed is said, loudly, and skipped on a laptop; where `CI` is set it is an error.

mod faults;
mod process;
mod servers;

pub use self::faults::{Faults, connect_through};
pub use self::process::{Process, free_port};
pub use self::servers::{NatsServer, PostgresServer, RedisServer, is_missing};
