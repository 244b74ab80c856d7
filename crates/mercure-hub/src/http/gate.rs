//! How much of the hub one address may take: connections at once, publications a second.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mercure_engine::Held;
use mercure_protocol::{ClientId, Principal};
use quick_cache::sync::Cache;

use super::refused::{Refusals, Refused};
use crate::api::{Answer, Quotas, Request};

/// Publishers whose pace is remembered; who is forgotten may publish at once.
const PUBLISHERS: usize = 100_000;

/// Who has what.
#[derive(Debug)]
pub(crate) struct Gate {
    open: Arc<AtomicUsize>,
    addresses: Arc<Addresses>,
    /// When each publisher's next publication is due, in nanoseconds on the hub's clock.
    paces: Cache<Publisher, Arc<AtomicU64>>,
    pub(crate) refusals: Refusals,
}

type Addresses = Mutex<HashMap<Source, usize>>;

/// Whom an address belongs to, as far as it tells: a network of IPv6 is given to one customer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Source {
    V4(Ipv4Addr),
    V6([u16; 4]),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Publisher {
    Address(Source),
    Subject(ClientId),
}

/// What a connection counts for, for as long as it is held.
#[derive(Debug)]
pub(crate) struct Admission {
    _http: Counted,
    /// Goes with a stream to wherever that is written.
    pub(crate) address: Option<AddressPermit>,
}

#[derive(Debug)]
struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One of the connections of an address.
#[derive(Debug)]
pub(crate) struct AddressPermit {
    addresses: Arc<Addresses>,
    source: Source,
}

/// The place that a connection has itself, which one of its streams may use.
#[derive(Debug, Clone, Default)]
pub(crate) struct OwnPlace(Arc<AtomicBool>);

#[derive(Debug)]
struct OwnPlaceTaken(OwnPlace);

impl OwnPlace {
    fn take(&self) -> Option<OwnPlaceTaken> {
        (!self.0.swap(true, Ordering::Relaxed)).then(|| OwnPlaceTaken(self.clone()))
    }
}

impl Drop for OwnPlaceTaken {
    fn drop(&mut self) {
        self.0.0.store(false, Ordering::Relaxed);
    }
}

impl Held for OwnPlaceTaken {
    // A connection of several streams stays in its process.
    fn note(&self) -> Option<String> {
        None
    }
}

impl Held for AddressPermit {
    fn note(&self) -> Option<String> {
        Some(self.source.network().to_string())
    }
}

impl Drop for AddressPermit {
    fn drop(&mut self) {
        let mut addresses = lock(&self.addresses);
        if let Some(count) = addresses.get_mut(&self.source) {
            *count -= 1;
            if *count == 0 {
                addresses.remove(&self.source);
            }
        }
    }
}

fn lock(addresses: &Addresses) -> MutexGuard<'_, HashMap<Source, usize>> {
    addresses.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A proxy speaks for many, and who is on this machine could be one.
fn speaks_for_itself(quotas: &Quotas, peer: IpAddr) -> bool {
    !peer.to_canonical().is_loopback() && !quotas.trusted_proxies.contains(peer)
}

impl Source {
    fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address),
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                Self::V6([a, b, c, d])
            }
        }
    }

    /// An address of it, from which it can be told again.
    fn network(self) -> IpAddr {
        match self {
            Self::V4(address) => address.into(),
            Self::V6([a, b, c, d]) => Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into(),
        }
    }
}

impl Gate {
    pub(crate) fn new() -> Self {
        Self {
            open: Arc::default(),
            addresses: Arc::default(),
            paces: Cache::new(PUBLISHERS),
            refusals: Refusals::default(),
        }
    }

    /// Lets a connection in; `None` if there are too many, in all or of its address.
    pub(crate) fn admit(&self, quotas: &Quotas, peer: Option<IpAddr>) -> Option<Admission> {
        let one_more = |open: usize| (open < quotas.http_connections).then_some(open + 1);
        let open = self.open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more);
        if open.is_err() {
            self.refusals.count(Refused::Connections);
            return None;
        }
        let http = Counted(Arc::clone(&self.open));
        let address = match peer.filter(|peer| speaks_for_itself(quotas, *peer)) {
            Some(peer) => self.take(quotas, peer)?,
            None => None,
        };
        Some(Admission { _http: http, address })
    }

    /// Counts a stream for the address that a proxy speaks for; and, on a connection that carries several,
    /// all but the first, which goes with the place of the connection.
    pub(crate) fn admit_stream(
        &self,
        quotas: &Quotas,
        request: &Request,
        place: Option<&OwnPlace>,
    ) -> Result<Option<Box<dyn Held>>, Answer> {
        let Some(client) = quotas.trusted_proxies.client(request) else { return Ok(None) };
        if Some(client) == request.peer {
            match place {
                Some(place) if speaks_for_itself(quotas, client) => {
                    if let Some(taken) = place.take() {
                        return Ok(Some(Box::new(taken)));
                    }
                }
                _ => return Ok(None),
            }
        }
        let permit = self.take(quotas, client).ok_or_else(Answer::too_many_connections)?;
        Ok(permit.map(|permit| Box::new(permit) as Box<dyn Held>))
    }

    /// Counts a stream that was counted in the process before, however many there are.
    pub(crate) fn keep(&self, note: &str) -> Option<AddressPermit> {
        let source = Source::of(note.parse().ok()?);
        *lock(&self.addresses).entry(source).or_default() += 1;
        Some(AddressPermit { addresses: Arc::clone(&self.addresses), source })
    }

    /// Whether a publication comes too soon after others of its address.
    pub(crate) fn pace_address(
        &self,
        quotas: &Quotas,
        request: &Request,
        now: Duration,
    ) -> Result<(), Answer> {
        let rate = quotas.publish_rate_per_address;
        let Some(client) = quotas.trusted_proxies.client(request).filter(|_| rate > 0) else {
            return Ok(());
        };
        self.pace(Publisher::Address(Source::of(client)), rate, now)
    }

    /// Whether it comes too soon after others with tokens of its subject.
    pub(crate) fn pace_subject(
        &self,
        quotas: &Quotas,
        principal: &Principal,
        now: Duration,
    ) -> Result<(), Answer> {
        let rate = quotas.publish_rate_per_subject;
        match principal {
            Principal::Granted { client: Some(client), .. } if rate > 0 => {
                self.pace(Publisher::Subject(*client), rate, now)
            }
            _ => Ok(()),
        }
    }

    fn take(&self, quotas: &Quotas, address: IpAddr) -> Option<Option<AddressPermit>> {
        let most = quotas.connections_per_address;
        if most == 0 {
            return Some(None);
        }
        let source = Source::of(address);
        let mut addresses = lock(&self.addresses);
        let count = addresses.entry(source).or_default();
        if *count >= most {
            drop(addresses);
            self.refusals.count(Refused::ConnectionsPerAddress);
            return None;
        }
        *count += 1;
        Some(Some(AddressPermit { addresses: Arc::clone(&self.addresses), source }))
    }

    /// The generic cell rate algorithm: so many a second, and as many at once after a pause.
    fn pace(&self, who: Publisher, rate: usize, now: Duration) -> Result<(), Answer> {
        const SECOND: u64 = 1_000_000_000;
        let each = SECOND / (rate as u64).min(SECOND);
        let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        let fresh = || Ok::<_, std::convert::Infallible>(Arc::new(AtomicU64::new(now)));
        let Ok(due) = self.paces.get_or_insert_with(&who, fresh);
        let next = |due: u64| {
            let due = due.max(now) + each;
            (due - now <= SECOND.max(each)).then_some(due)
        };
        due.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).map(|_| ()).map_err(|due| {
            self.refusals.count(Refused::PublishRate);
            Answer::too_fast(Duration::from_nanos(due.saturating_sub(now)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Proxies;

    fn quotas() -> Quotas {
        Quotas {
            http_connections: 5,
            connections_per_address: 2,
            publish_rate_per_address: 10,
            trusted_proxies: Proxies(vec!["10.0.0.0/8".parse().expect("a network")]),
            ..Quotas::default()
        }
    }

    fn address(text: &str) -> Option<IpAddr> {
        Some(text.parse().expect("an address"))
    }

    #[test]
    fn an_address_has_so_many_connections_and_gets_them_back() {
        let (gate, quotas) = (Gate::new(), quotas());
        let admit = |text| gate.admit(&quotas, address(text));
        let held = [admit("192.0.2.1"), admit("::ffff:192.0.2.1")];
        assert!(held.iter().all(Option::is_some));
        assert!(admit("192.0.2.1").is_none(), "it has two");
        let network = [admit("2001:db8:1:2::1"), admit("2001:db8:1:2::2")];
        assert!(admit("2001:db8:1:2::3").is_none(), "one network is one customer");
        assert!(network.iter().all(Option::is_some));
        let proxies = admit("10.1.2.3");
        assert!(proxies.is_some() && admit("127.0.0.1").is_none(), "five in all");
        drop((held, network, proxies));
        assert_eq!(gate.open.load(Ordering::Relaxed), 0);
        assert!(lock(&gate.addresses).is_empty(), "nobody is remembered");
    }

    #[test]
    fn what_was_counted_before_is_counted_again() {
        let (gate, before, quotas) = (Gate::new(), Gate::new(), quotas());
        for (peer, same) in [("192.0.2.1", "192.0.2.1"), ("2001:db8:1:2::1", "2001:db8:1:2::2")] {
            let admissions =
                [before.admit(&quotas, address(peer)), before.admit(&quotas, address(peer))];
            let notes = admissions.iter().flatten().filter_map(|one| one.address.as_ref()?.note());
            let kept: Vec<_> = notes.filter_map(|note| gate.keep(&note)).collect();
            assert!(kept.len() == 2 && gate.admit(&quotas, address(same)).is_none());
            drop(kept);
            assert!(gate.admit(&quotas, address(same)).is_some());
        }
        assert!(gate.keep("nonsense").is_none());
    }

    #[test]
    fn streams_that_share_a_connection_are_counted_each() {
        let (gate, quotas) = (Gate::new(), quotas());
        let stream = |peer, place| {
            let request = Request { peer: address(peer), ..Request::default() };
            gate.admit_stream(&quotas, &request, place)
        };
        let (one, local) = (OwnPlace::default(), OwnPlace::default());
        let _connection = gate.admit(&quotas, address("192.0.2.1"));
        let again = || stream("192.0.2.1", Some(&one));
        let first = again().expect("the place of the connection").expect("taken");
        let _second = again().expect("a place of its own").expect("taken");
        assert!(again().is_err_and(|answer| answer.status == 429));
        drop(first);
        assert!(again().is_ok_and(|held| held.is_some()), "the connection still has its place");
        assert!(stream("192.0.2.1", None).is_ok_and(|held| held.is_none()), "it is its connection");
        let unbounded = stream("127.0.0.1", Some(&local));
        assert!(unbounded.is_ok_and(|held| held.is_none()), "it could be a proxy");
    }

    #[test]
    fn whoever_is_too_fast_is_told_when_to_come_back() {
        let (gate, quotas) = (Gate::new(), quotas());
        let request = Request { peer: address("192.0.2.1"), ..Request::default() };
        let publish = |now: u64| gate.pace_address(&quotas, &request, Duration::from_millis(now));
        let burst = (0..20).filter(|_| publish(0).is_ok()).count();
        assert_eq!(burst, 10, "a second's worth at once");
        let refusal = publish(50).expect_err("too soon");
        assert_eq!(refusal.status, 429);
        assert!(publish(100).is_ok() && publish(100).is_err(), "one every tenth of a second");
        assert_eq!((1000..3000).filter(|now| publish(*now).is_ok()).count(), 28);
        let other = Request { peer: address("192.0.2.2"), ..Request::default() };
        assert!(gate.pace_address(&quotas, &other, Duration::ZERO).is_ok());
    }
}
