use std::io::Write as _;

use clap::ArgMatches;
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
    let has = |key: bool| if key { "configured" } else { "none" };
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
         publisher key        {}\n\
         subscriber key       {}\n\
         anonymous            {}\n\
         1.0 token issuers    {}\n\
         1.0 token audience   {}\n\
         origins (CORS)       {}\n\
         transport            {}\n",
        config.hub_url.as_str(),
        policy.protocol,
        has(policy.publisher_key.is_some()),
        has(policy.subscriber_key.is_some()),
        policy.anonymous,
        list(&policy.trusted_issuers),
        policy.resource_identifier,
        list(&policy.origins.allowed),
        config.transport.split_once("://").map_or("", |(scheme, _)| scheme),
    )?;
    Ok(())
}
