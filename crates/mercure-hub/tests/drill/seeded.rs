//! The checker finds what is wrong: a run without fault, and each of its laws broken in turn.

use super::checker::{Published, Record, Subscriber};

fn published(id: &str, topic: &str, private: bool) -> Published {
    Published { id: id.to_owned(), topic: topic.to_owned(), private }
}

fn subscriber(name: &str, is_granted: bool, seen: &[&str]) -> Subscriber {
    Subscriber {
        name: name.to_owned(),
        topics: vec!["a".to_owned()],
        is_granted,
        seen: seen.iter().map(|id| (*id).to_owned()).collect(),
        gaps: Vec::new(),
    }
}

/// Two publishers, three topics' worth of events, one of them private, one of doubt.
fn sound() -> Record {
    Record {
        acknowledged: vec![
            vec![published("1", "a", false), published("2", "a", true), published("3", "b", false)],
            vec![published("4", "a", false)],
        ],
        doubtful: vec![published("5", "a", false), published("6", "a", false)],
        log: ["1", "4", "2", "5", "3"].map(str::to_owned).to_vec(),
        subscribers: vec![
            subscriber("granted", true, &["1", "4", "2", "5"]),
            subscriber("anonymous", false, &["1", "4", "5"]),
        ],
    }
}

fn finds(sign: &str, break_it: impl FnOnce(&mut Record)) {
    let mut record = sound();
    assert_eq!(record.violations(), Vec::<String>::new());
    break_it(&mut record);
    let found = record.violations();
    assert!(found.iter().any(|one| one.contains(sign)), "{sign:?} is not among {found:?}");
}

#[test]
fn every_violation_is_found() {
    finds("acknowledged and is not in the log", |record| record.log.retain(|id| id != "3"));
    finds("is in the log twice", |record| record.log.push("3".to_owned()));
    finds("stands before its predecessor", |record| record.log.swap(0, 2));
    finds("nobody sent it", |record| record.log.push("7".to_owned()));
    let who = |record: &mut Record| record.subscribers[0].seen.clone();
    finds("granted got 3 of 4", |record| record.subscribers[0].seen.retain(|id| id != "4"));
    finds("granted got 5 of 4", |record| record.subscribers[0].seen.push("5".to_owned()));
    finds("granted got 4 of 4", |record| record.subscribers[0].seen.swap(0, 1));
    finds("which is private", |record| record.subscribers[1].seen = who(record));
    finds("did not ask for", |record| record.subscribers[0].seen.insert(4, "3".to_owned()));
    finds("goes on after", |record| {
        record.subscribers[0].gaps.push("after 1, the hub goes on after 4".to_owned());
    });
}
