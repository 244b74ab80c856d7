//! What a service manager is told (sd_notify(3)); nothing where there is none.

pub(super) use sd_notify::NotifyState as State;

pub(super) fn tell(states: &[State<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "the service manager could not be told");
    }
}

/// It waits until it is told that the service is ready again.
pub(super) fn tell_reloading() {
    match State::monotonic_usec_now() {
        Ok(now) => tell(&[State::Reloading, now]),
        Err(error) => tracing::warn!(%error, "the service manager is not told of a reload"),
    }
}
