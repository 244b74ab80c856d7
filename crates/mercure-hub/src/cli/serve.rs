use std::io::Write as _;

use clap::ArgMatches;
use mercure_hub::auth::{Keys, Roles, Trust};
use mercure_hub::config::Config;
use mercure_hub::{Listeners, logging};

use super::{layers, run};

/// Runs the hub until it is told to stop.
pub(super) fn serve(matches: &ArgMatches) -> anyhow::Result<()> {
    let config = Config::parse(&layers(matches)?)?;
    logging::init(config.log_json, &config.log_level);
    run(async |stop| {
        let listeners = Listeners::bind(&config).await?;
        for address in listeners.addresses() {
            tracing::info!(address, path = config.hub_path, "listening");
        }
        mercure_hub::serve(&config, listeners, stop).await
    })
}

/// Says whether the configuration is valid, and what it amounts to.
pub(super) fn check_config(matches: &ArgMatches) -> anyhow::Result<()> {
    let config = Config::parse(&layers(matches)?)?;
    let policy = &config.policy;
    let listen = config.listen.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    let list = |items: &[String]| match items {
        [] => "none".to_owned(),
        items => items.join(" "),
    };
    write!(
        std::io::stdout(),
        "The configuration is valid.\n\
         listens on           {listen}\n\
         hub URL              {}\n\
         protocol             {:?}\n\
         publisher keys       {}\n\
         subscriber keys      {}\n\
         anonymous            {}\n\
         1.0 token issuers    {}\n\
         1.0 token audience   {}\n\
         origins (CORS)       {}\n\
         transport            {}\n",
        config.hub_url.as_str(),
        policy.protocol,
        sources(&policy.trust, |roles| roles.publisher.as_ref()),
        sources(&policy.trust, |roles| roles.subscriber.as_ref()),
        policy.anonymous,
        list(&issuers(&policy.trust)),
        policy.resource_identifier,
        list(&policy.origins.allowed),
        config.transport.split_once("://").map_or("", |(scheme, _)| scheme),
    )?;
    Ok(())
}

/// Where the keys of a role come from; never what they are.
fn sources(trust: &Trust, of: impl Fn(&Roles) -> Option<&Keys>) -> String {
    let own = trust.issuers.iter().map(|issuer| &issuer.roles);
    let all = std::iter::once(&trust.shared).chain(own).filter_map(of);
    let names: Vec<_> = all
        .map(|keys| match keys {
            Keys::Fixed(_) => "configured".to_owned(),
            Keys::Fetched(keys) => format!("fetched from {}", keys.source()),
        })
        .collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

fn issuers(trust: &Trust) -> Vec<String> {
    let own = trust.issuers.iter().map(|issuer| issuer.id.clone());
    trust.trusted.iter().cloned().chain(own).collect()
}
