//! The framing, read back by an event-stream parser that is not ours.

use eventsource_stream::Eventsource;
use futures_executor::block_on;
use futures_util::{StreamExt, stream};
use mercure_protocol::{EventId, HubUrl, Limits, Publication, Update, frame};
use proptest::prelude::*;

fn parse(bytes: &[u8]) -> Vec<eventsource_stream::Event> {
    let chunks = stream::iter([Ok::<_, std::convert::Infallible>(bytes.to_vec())]);
    block_on(chunks.eventsource().map(|event| event.expect("well-formed")).collect())
}

proptest! {
    /// Whatever a publisher sends is refused or arrives as exactly one event with exactly the
    /// values sent, line breaks in `data` normalized.
    #[test]
    fn one_update_is_one_event(
        data in "(?s).{0,80}|[\r\n:ideatvnr ]{0,80}",
        id in "[^\u{0}]{0,12}",
        kind in "[^\u{0}]{0,12}",
        retry in proptest::option::of(0_u64..1_000_000),
    ) {
        // The independent parser mistakes a leading byte-order mark in a value for the stream's own.
        prop_assume!(!data.contains('\u{feff}'));
        let hub = HubUrl::parse("http://localhost/.well-known/mercure").expect("hub URL");
        let limits = Limits::default();
        let retry = retry.map(|ms| ms.to_string());
        let raw = Publication {
            topics: vec!["t"],
            data: &data,
            private: false,
            id: Some(&id),
            kind: Some(&kind),
            retry: retry.as_deref(),
        };
        let Ok(update) = Update::new(&raw, &hub, &limits) else { return Ok(()) };
        let event_id = update.id().cloned().unwrap_or_else(|| EventId::from_random([7; 16]));
        let framed = frame(&update, &event_id);

        let events = parse(&[&framed[..], &framed[..]].concat());
        prop_assert_eq!(events.len(), 2);
        for event in events {
            prop_assert_eq!(&event.data, &data.replace("\r\n", "\n").replace('\r', "\n"));
            prop_assert_eq!(&event.id, event_id.as_str());
            let expected = if kind.is_empty() { "message" } else { kind.as_str() };
            prop_assert_eq!(&event.event, expected);
            prop_assert_eq!(event.retry.map(|d| d.as_millis().to_string()), retry.clone());
        }
    }
}
