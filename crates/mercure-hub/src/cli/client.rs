use std::io::{Read as _, Write as _};

use anyhow::{Context, bail};
use clap::{Arg, ArgAction, ArgMatches, Command};
use http::HeaderValue;
use url::Url;

use super::{Usage, variable};

/// A publication from which on the hub is asked before it is sent, in bytes.
const LARGE: usize = 64 * 1024;

fn common(command: Command) -> Command {
    command
        .arg(
            Arg::new("hub")
                .long("hub")
                .value_name("URL")
                .default_value("http://127.0.0.1:5500/.well-known/mercure")
                .help("URL of the hub [env: MERCURE_HUB_URL]"),
        )
        .arg(Arg::new("jwt").long("jwt").value_name("TOKEN").help(
            "Token to present; prefer the variable, which other users cannot see \
                       [env: MERCURE_JWT]",
        ))
}

pub(super) fn publish_command() -> Command {
    let text = |name: &'static str, help: &'static str| Arg::new(name).long(name).help(help);
    common(Command::new("publish").about("Publish an update and print its id"))
        .arg(
            Arg::new("topic")
                .long("topic")
                .short('t')
                .required(true)
                .action(ArgAction::Append)
                .help("Topic of the update; repeat it for alternate topics"),
        )
        .arg(
            Arg::new("private")
                .long("private")
                .action(ArgAction::SetTrue)
                .help("Only for subscribers with a grant"),
        )
        .arg(text("id", "Id of the event"))
        .arg(text("type", "Type of the event"))
        .arg(text("retry", "Reconnection time in milliseconds"))
        .arg(Arg::new("data").help("Payload; - reads standard input").default_value(""))
}

pub(super) fn subscribe_command() -> Command {
    common(Command::new("subscribe").about("Print the event stream of some topics"))
        .arg(
            Arg::new("topic")
                .required(true)
                .action(ArgAction::Append)
                .num_args(1..)
                .help("Topic, URI template or *"),
        )
        .arg(
            Arg::new("last-event-id")
                .long("last-event-id")
                .value_name("ID")
                .help("Resume after this event; earliest for everything the hub still has"),
        )
}

pub(super) fn publish(matches: &ArgMatches) -> anyhow::Result<()> {
    let mut data = matches.get_one::<String>("data").cloned().unwrap_or_default();
    if data == "-" {
        data.clear();
        std::io::stdin().read_to_string(&mut data).context("reading standard input")?;
    }
    let mut form = url::form_urlencoded::Serializer::new(String::new());
    for topic in matches.get_many::<String>("topic").unwrap_or_default() {
        form.append_pair("topic", topic);
    }
    form.append_pair("data", &data);
    if matches.get_flag("private") {
        form.append_pair("private", "on");
    }
    for field in ["id", "type", "retry"] {
        if let Some(value) = matches.get_one::<String>(field) {
            form.append_pair(field, value);
        }
    }
    let (url, form) = (hub(matches)?, form.finish());
    let mut request =
        agent().post(url.as_str()).header("Content-Type", "application/x-www-form-urlencoded");
    if let Some(bearer) = bearer(matches)? {
        request = request.header("Authorization", bearer);
    }
    // What the hub refuses for its size would not be seen by who is still sending it.
    if form.len() > LARGE {
        request = request.header("Expect", "100-continue");
    }
    let response = request.send(form).map_err(|error| unreachable(&url, &error))?;
    let id = checked(response)?.body_mut().read_to_string()?;
    writeln!(std::io::stdout(), "{id}")?;
    Ok(())
}

pub(super) fn subscribe(matches: &ArgMatches) -> anyhow::Result<()> {
    let url = hub(matches)?;
    let mut target = url.clone();
    for topic in matches.get_many::<String>("topic").unwrap_or_default() {
        target.query_pairs_mut().append_pair("topic", topic);
    }
    let mut request = agent().get(target.as_str()).header("Accept", "text/event-stream");
    if let Some(bearer) = bearer(matches)? {
        request = request.header("Authorization", bearer);
    }
    if let Some(id) = matches.get_one::<String>("last-event-id") {
        request = request.header("Last-Event-ID", header("--last-event-id", id)?);
    }
    let response = checked(request.call().map_err(|error| unreachable(&url, &error))?)?;
    let kind = response.headers().get("Content-Type").and_then(|kind| kind.to_str().ok());
    if !kind.is_some_and(|kind| kind.starts_with("text/event-stream")) {
        let kind = kind.unwrap_or("of no type");
        bail!("what answers at {} is no hub: {kind}, not text/event-stream", place(&url));
    }
    let mut stream = response.into_body().into_reader();
    let mut out = std::io::stdout();
    let mut chunk = [0; 16 * 1024];
    loop {
        match stream.read(&mut chunk).context("the stream broke")? {
            0 => return Ok(()),
            count => {
                out.write_all(&chunk[..count])?;
                out.flush()?;
            }
        }
    }
}

fn agent() -> ureq::Agent {
    // A refusal's body says what is wrong, so a status is not an error of the library's.
    ureq::Agent::config_builder().http_status_as_error(false).build().into()
}

/// The flag if given, else the variable, else the flag's default.
fn setting(matches: &ArgMatches, flag: &str, name: &str) -> anyhow::Result<Option<String>> {
    use clap::parser::ValueSource::CommandLine;
    let value = matches.get_one::<String>(flag).cloned();
    if matches.value_source(flag) == Some(CommandLine) {
        return Ok(value);
    }
    Ok(variable(name)?.or(value))
}

fn hub(matches: &ArgMatches) -> anyhow::Result<Url> {
    let text = setting(matches, "hub", "MERCURE_HUB_URL")?.unwrap_or_default();
    let url = Url::parse(&text).map_err(|error| Usage(format!("--hub: {error}")))?;
    if !matches!(url.scheme(), "http" | "https") {
        bail!(Usage("--hub: must begin with http:// or https://".to_owned()));
    }
    if !url.username().is_empty() || url.password().is_some() {
        let advice = "--hub: a hub takes no name and password; give it a token with --jwt";
        bail!(Usage(advice.to_owned()));
    }
    Ok(url)
}

fn bearer(matches: &ArgMatches) -> anyhow::Result<Option<HeaderValue>> {
    let token = setting(matches, "jwt", "MERCURE_JWT")?;
    Ok(token.map(|token| header("--jwt", &format!("Bearer {token}"))).transpose()?)
}

/// A value as a header can hold it; what it is may be a secret.
fn header(flag: &str, text: &str) -> Result<HeaderValue, Usage> {
    let error = |_| Usage(format!("{flag}: holds a character that a header cannot hold"));
    HeaderValue::from_str(text).map_err(error)
}

/// The URL without its query, which may hold a token.
fn place(url: &Url) -> Url {
    let mut place = url.clone();
    place.set_query(None);
    place
}

fn unreachable(url: &Url, error: &ureq::Error) -> anyhow::Error {
    let place = place(url);
    anyhow::anyhow!("cannot reach the hub at {place}: {error}; is it running? (mercure-hub serve)")
}

fn checked(mut response: http::Response<ureq::Body>) -> anyhow::Result<http::Response<ureq::Body>> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let reason = response.body_mut().read_to_string().unwrap_or_default();
    let advice = match status.as_u16() {
        401 => "; give a valid token with --jwt (mercure-hub token makes one)",
        403 => "; the token must grant every topic of the update",
        _ => "",
    };
    bail!("the hub answered {status}: {}{advice}", reason.trim())
}

/// TLS as the system trusts it (also by SSL_CERT_FILE), for what speaks to a hub without the library.
pub(super) fn trusting() -> Result<rustls::ClientConfig, rustls::Error> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider);
    let config = config.with_safe_default_protocol_versions()?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}
