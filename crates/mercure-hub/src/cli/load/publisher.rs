//! Publications at a rate. Each publisher counts its own, so that their order is known.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::JoinSet;

use super::Plan;
use super::tally::Tally;

/// How long a publication may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Publishes everything, or up to the first that fails.
pub(super) async fn publish_all(plan: Arc<Plan>, tally: Arc<Tally>) {
    let mut publishers = JoinSet::new();
    for publisher in 0..plan.publishers {
        let (plan, tally) = (Arc::clone(&plan), Arc::clone(&tally));
        publishers.spawn_blocking(move || publish(&plan, &tally, publisher));
    }
    while publishers.join_next().await.is_some() {}
    tally.all_published();
}

/// Every so-manieth of the publications, on a connection that is kept.
fn publish(plan: &Plan, tally: &Tally, publisher: u16) {
    let config = ureq::Agent::config_builder().timeout_global(Some(PATIENCE));
    let agent: ureq::Agent = config.http_status_as_error(false).build().into();
    let begin = tally.elapsed();
    let mine = (u64::from(publisher)..plan.publications()).step_by(plan.publishers.into());
    for (at, place) in mine.enumerate() {
        let due = begin + Duration::from_secs_f64(place as f64 / f64::from(plan.rate));
        Handle::current().block_on(tokio::time::sleep(due.saturating_sub(tally.elapsed())));
        if tally.has_failed() {
            return;
        }
        let mut data = format!("{publisher} {} {} ", at + 1, tally.elapsed().as_nanos());
        data.extend(std::iter::repeat_n('x', plan.size.saturating_sub(data.len())));
        match send(&agent, plan, &data) {
            Ok(()) => tally.published(),
            Err(reason) => return tally.fail(reason),
        }
    }
}

fn send(agent: &ureq::Agent, plan: &Plan, data: &str) -> Result<(), String> {
    let mut form = url::form_urlencoded::Serializer::new(String::new());
    form.append_pair("topic", &plan.target.topic).append_pair("data", data);
    let mut request = agent
        .post(plan.target.url.as_str())
        .header("Content-Type", "application/x-www-form-urlencoded");
    if let Some(token) = &plan.token {
        request = request.header("Authorization", format!("Bearer {token}"));
    }
    let mut answer = request
        .send(form.finish())
        .map_err(|error| format!("a publication was not answered: {error}"))?;
    // To the end, so that the connection can be used again.
    let said = answer.body_mut().read_to_string().unwrap_or_default();
    match answer.status().as_u16() {
        200 => Ok(()),
        401 | 403 => {
            Err("a publication was refused: give a token that may publish to the topic (--jwt)"
                .to_owned())
        }
        status => Err(format!("a publication was answered {status}: {}", said.trim())),
    }
}
