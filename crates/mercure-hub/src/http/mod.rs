//! The only place that knows HTTP libraries: translation between requests and [`crate::api`].

mod answer;
mod classify;
mod connection;
mod direct;
mod gate;
mod library;
mod ops;
mod owed;
mod pages;
mod prefixed;
mod proxy;
mod redirect;
mod refused;
mod routes;
mod site;
mod wait;

pub(crate) use self::connection::{Bound, Connection, prepare_tcp};
pub(crate) use self::direct::write_head;
pub(crate) use self::ops::ops;
pub(crate) use self::pages::Pages;
pub(crate) use self::redirect::redirect;
pub(crate) use self::routes::{Routes, bus, public};
pub(crate) use self::site::{Site, Terms};
