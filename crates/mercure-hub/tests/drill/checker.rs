//! Whether what everybody saw can be true. Told everything, trusts nothing.

use std::collections::{HashMap, HashSet};

use super::client::Seen;

/// What a publisher has noted.
#[derive(Debug, Clone)]
pub struct Published {
    pub id: String,
    pub topic: String,
    pub private: bool,
}

/// What a subscriber has noted.
#[derive(Debug, Clone)]
pub struct Subscriber {
    pub name: String,
    pub topics: Vec<String>,
    /// Whether it may read private updates.
    pub is_granted: bool,
    pub seen: Vec<String>,
    /// What the hub has told it of gaps.
    pub gaps: Vec<String>,
}

/// Everything that is known of a run.
#[derive(Debug, Default)]
pub struct Record {
    /// Of each publisher, what was acknowledged, in order.
    pub acknowledged: Vec<Vec<Published>>,
    /// What was sent and not acknowledged: it may be in the log, or not.
    pub doubtful: Vec<Published>,
    /// The log, from its beginning to its end.
    pub log: Vec<String>,
    pub subscribers: Vec<Subscriber>,
}

impl Record {
    /// Everything that is wrong.
    pub fn violations(&self) -> Vec<String> {
        let mut found = self.of_the_log();
        let known: HashMap<&str, &Published> = self
            .acknowledged
            .iter()
            .flatten()
            .chain(&self.doubtful)
            .map(|published| (published.id.as_str(), published))
            .collect();
        for subscriber in &self.subscribers {
            found.extend(self.of_subscriber(subscriber, &known));
        }
        found
    }

    fn of_the_log(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut places = HashMap::new();
        for (place, id) in self.log.iter().enumerate() {
            if places.insert(id.as_str(), place).is_some() {
                found.push(format!("{id} is in the log twice"));
            }
        }
        for publisher in &self.acknowledged {
            let mut before = None;
            for published in publisher {
                let Some(place) = places.get(published.id.as_str()).copied() else {
                    found.push(format!("{} was acknowledged and is not in the log", published.id));
                    continue;
                };
                if before.is_some_and(|before| before > place) {
                    found.push(format!("{} stands before its predecessor", published.id));
                }
                before = Some(place);
            }
        }
        let sent = self.acknowledged.iter().flatten().chain(&self.doubtful);
        let sent: HashSet<&str> = sent.map(|published| published.id.as_str()).collect();
        let strange = self.log.iter().filter(|id| !sent.contains(id.as_str()));
        found.extend(strange.map(|id| format!("{id} is in the log, and nobody sent it")));
        found
    }

    fn of_subscriber(&self, who: &Subscriber, known: &HashMap<&str, &Published>) -> Vec<String> {
        let name = &who.name;
        let mut found: Vec<_> = who.gaps.iter().map(|gap| format!("{name}: {gap}")).collect();
        let is_for = |published: &Published| {
            who.topics.contains(&published.topic) && (who.is_granted || !published.private)
        };
        for id in &who.seen {
            match known.get(id.as_str()) {
                Some(published) if published.private && !who.is_granted => {
                    found.push(format!("{name} got {id}, which is private"));
                }
                Some(published) if !is_for(published) => {
                    found.push(format!("{name} got {id}, which it did not ask for"));
                }
                _ => {}
            }
        }
        let due = self.log.iter().filter(|id| known.get(id.as_str()).is_some_and(|p| is_for(p)));
        let due: Vec<&String> = due.collect();
        if who.seen.iter().ne(due.iter().copied()) {
            let at = who.seen.iter().zip(&due).take_while(|(seen, due)| seen == *due).count();
            found.push(format!(
                "{name} got {} of {} events; the first that differs is number {at}: {:?} instead of {:?}",
                who.seen.len(),
                due.len(),
                who.seen.get(at),
                due.get(at),
            ));
        }
        found
    }
}

/// The ids of a log, without those of events that tell of subscriptions.
pub fn ids(log: &[Seen]) -> Vec<String> {
    let own =
        log.iter().filter(|seen| !seen.data.starts_with('{') && !seen.id.starts_with("last-"));
    own.map(|seen| seen.id.clone()).collect()
}
