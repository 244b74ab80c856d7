use std::io::Write as _;
use std::time::Duration;

use clap::ArgMatches;
use mercure_hub::auth::{Keys, Roles, Trust};
use mercure_hub::config::Config;
use mercure_hub::logging::{self, LevelHandle};
use mercure_hub::tls::Certificates;
use mercure_hub::{Listeners, Predecessor, Server, Upgraded, upgrade};
use mercure_protocol::Protocol;

use super::manager;
use super::signals::{Signal, Signals};
use super::{Told, layers, raise_open_files, runtime};

/// Runs the hub until it is told to stop.
pub(super) fn serve(matches: &ArgMatches) -> anyhow::Result<()> {
    let config = Config::parse(&layers(matches)?)?;
    let is_json = config.log_json;
    let level = logging::init(is_json, &config.log_level);
    tell_advice(&config);
    check_open_files(&config);
    // Before another file may be at its place. Where there is no /proc, by the name it was called by.
    let name = || std::env::args_os().next().unwrap_or_default().into();
    let program = std::env::current_exe().unwrap_or_else(|_| name());
    let runtime = runtime()?;
    let served = runtime.block_on(async {
        let mut signals = Signals::new()?;
        let Some(mut server) = start(config, &mut signals).await? else { return Ok(()) };
        manager::tell(&[manager::State::Ready]);
        loop {
            match signals.next().await {
                Signal::Reload => {
                    manager::tell_reloading();
                    reload(matches, &mut server, &level);
                    manager::tell(&[manager::State::Ready]);
                }
                // Whatever is at this one's path now.
                Signal::Upgrade => {
                    let mut asked = None;
                    let stopped = async { asked = Some(signals.hurry().await) };
                    match (upgrade(server, &program, stopped).await?, asked) {
                        (Upgraded::Not(same, _), Some(asked)) => {
                            return stop(*same, &mut signals, asked).await;
                        }
                        (Upgraded::Not(same, error), None) => {
                            tracing::error!("this program goes on: {error:#}");
                            server = *same;
                        }
                        (Upgraded::To(process), _) => return leave_to(process, signals).await,
                    }
                }
                asked @ (Signal::Terminate | Signal::Interrupt) => {
                    return stop(server, &mut signals, asked).await;
                }
            }
        }
    });
    // A thread that still waits, as for a name server, holds nobody up for long; the last traces leave.
    runtime.shutdown_timeout(Duration::from_secs(4));
    match served {
        // Programs read this log, and nothing that is written beside it.
        Err(error) if is_json => {
            tracing::error!("{error:#}");
            Err(Told.into())
        }
        served => served,
    }
}

/// Ends in the orderly way; at once for whoever waits at a terminal.
async fn stop(server: Server, signals: &mut Signals, asked: Signal) -> anyhow::Result<()> {
    manager::tell(&[manager::State::Stopping]);
    let mut is_at_once = asked == Signal::Interrupt;
    let hurry = async || {
        if !std::mem::take(&mut is_at_once) {
            signals.hurry().await;
        }
    };
    server.stop(hurry).await
}

/// Ends, since another process serves.
async fn leave_to(process: u32, signals: Signals) -> anyhow::Result<()> {
    tracing::info!(process, "another process serves now");
    manager::tell(&[manager::State::MainPid(process), manager::State::Ready]);
    signals.pass_on(process).await;
    Ok(())
}

/// Serves at its own listeners, or in the place of the program that has started this one. `None` if it is told
/// to stop before the log is there.
async fn start(config: Config, signals: &mut Signals) -> anyhow::Result<Option<Server>> {
    tell_of_pages(&config);
    if let Some(predecessor) = Predecessor::find()? {
        let server = predecessor.succeed(config).await?;
        tracing::info!("serving in the place of the program before");
        return Ok(Some(server));
    }
    let (path, listeners) = (config.hub_path.clone(), Listeners::bind(&config).await?);
    for address in listeners.addresses() {
        tracing::info!(address, path, "listening");
    }
    for address in listeners.redirect_addresses() {
        tracing::info!(address, "listening, and sending everybody on to HTTPS");
    }
    tokio::select! {
        started = Server::start(config, listeners) => started.map(Some),
        _ = signals.hurry() => {
            tracing::info!("stopped before the log was there");
            Ok(None)
        }
    }
}

/// As many connections as this user may open are fewer than the configuration allows, at times.
fn check_open_files(config: &Config) {
    let most = raise_open_files();
    if (config.max_connections as u64).saturating_add(config.quotas.http_connections as u64) > most
    {
        tracing::warn!(
            "this process may open {most} files, so fewer connections than max_connections and \
             max_http_connections allow: raise it (LimitNOFILE= of the unit, ulimit -n)"
        );
    }
}

/// What is valid, and most likely not wanted.
fn tell_advice(config: &Config) {
    for line in &config.advice {
        tracing::warn!("{line}");
    }
}

/// Where people can look at the hub, and what that may mean.
fn tell_of_pages(config: &Config) {
    let url = format!("{}/ui/", config.hub_url.as_str());
    if config.playground.is_some() {
        tracing::warn!(
            url,
            "this is a playground: whoever reaches it may read and publish everything"
        );
    } else if config.debugger {
        tracing::info!(url, "the debugger is on");
    }
}

/// Takes a changed configuration. One that is broken changes nothing.
fn reload(matches: &ArgMatches, server: &mut Server, level: &LevelHandle) {
    let read = layers(matches).and_then(|layers| Ok(Config::parse(&layers)?));
    let result = read.and_then(|config| {
        tell_advice(&config);
        let name = config.log_level.clone();
        let later = server.reload(config).map_err(anyhow::Error::msg)?;
        level.set(&name);
        Ok(later)
    });
    match result {
        Ok(later) if later.is_empty() => tracing::info!("the configuration was reloaded"),
        Ok(later) => tracing::warn!(
            "the configuration was reloaded, but these settings take effect after a restart only: {}",
            later.join(", ")
        ),
        Err(error) => tracing::error!("the old configuration is kept: {error:#}"),
    }
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
         protocol             {}\n\
         publisher keys       {}\n\
         subscriber keys      {}\n\
         anonymous            {}\n\
         1.0 token issuers    {}\n\
         1.0 token audience   {}\n\
         origins (CORS)       {}\n\
         transport            {}\n\
         TLS                  {}\n",
        config.hub_url.as_str(),
        match policy.protocol {
            Protocol::Both => "both",
            Protocol::V1 => "1.0",
            Protocol::V0 => "0.x",
        },
        sources(&policy.trust, |roles| roles.publisher.as_ref()),
        sources(&policy.trust, |roles| roles.subscriber.as_ref()),
        policy.anonymous,
        list(&issuers(&policy.trust)),
        policy.resource_identifier,
        list(&policy.origins.allowed),
        config.transport.split_once("://").map_or("", |(scheme, _)| scheme),
        match &config.certificates {
            None => "no".to_owned(),
            Some(Certificates::Files(files)) => {
                format!("certificate from files, until {}", files.expiry())
            }
            Some(Certificates::Acme(acme)) => {
                format!("certificate for {} from {}", acme.domains.join(" "), acme.directory)
            }
        },
    )?;
    for line in &config.advice {
        writeln!(std::io::stdout(), "advice: {line}")?;
    }
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
