"""``flask mercure``: tokens, publishing, the state of the companion."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, TypeVar, cast

import click
from flask import current_app
from flask.cli import AppGroup

from .companion import explain_command
from .errors import MercureError

if TYPE_CHECKING:
    from .state import MercureSSEState

_T = TypeVar("_T")

mercure_cli = AppGroup("mercure", help="Mercure hub commands.")


def _extension() -> MercureSSEState:
    return cast("MercureSSEState", current_app.extensions["mercure_sse"])


def _state() -> MercureSSEState:
    state = _extension()
    # A shell may lack the service's environment; what it asks must not change how the hub runs.
    state.obey()
    return state


@mercure_cli.command("gen-secret-key")
def gen_secret_key() -> None:
    """Make a key that is safe to sign tokens with."""
    click.echo(secrets.token_hex(32))


@mercure_cli.command("subscriber-jwt")
@click.option("--topic", "-t", "topics", multiple=True, default=["*"], help="May be repeated.")
def subscriber_jwt(topics: tuple[str, ...]) -> None:
    """Make a token that allows to read private updates; it tells nothing of its user."""
    click.echo(_run(lambda: _state().subscriber_token(topics)))


@mercure_cli.command("publisher-jwt")
@click.option("--topic", "-t", "topics", multiple=True, default=["*"], help="May be repeated.")
def publisher_jwt(topics: tuple[str, ...]) -> None:
    """Make a token that allows to publish."""
    click.echo(_run(lambda: _state().instance.create_publisher_jwt(topics)))


@mercure_cli.command("publish")
@click.option("--hub", help="URL of an external hub.")
@click.option("--jwt", help="Token to publish with on an external hub.")
@click.option("--private", is_flag=True, help="Only for subscribers with a grant.")
@click.option("--id", "event_id", help="Id of the event.")
@click.option("--type", "event_type", help="Type of the event.")
@click.option("--retry", type=int, help="Reconnection time in milliseconds.")
@click.argument("topic")
@click.argument("data", default="")
def publish(
    hub: str | None,
    jwt: str | None,
    private: bool,
    event_id: str | None,
    event_type: str | None,
    retry: int | None,
    topic: str,
    data: str,
) -> None:
    """Publish DATA to TOPIC and print the event's id."""
    state = _state()
    result = _run(
        lambda: state.instance.publish(
            topic,
            data,
            private,
            event_id,
            event_type,
            retry,
            jwt,
            hub,
            on_failure="raise",
        )
    )
    click.echo(result)


@mercure_cli.command("status")
def status() -> None:
    """Show the companion: its process, workers, subscribers and counters."""
    state = _state()
    verdict = _run(lambda: state.companion().request("GET", "/status"))
    for name, value in json.loads(verdict.body).items():
        click.echo(f"{name:18} {'-' if value is None else value}")


@mercure_cli.command("hub")
def hub() -> None:
    """Run the built-in hub in the foreground, until it is stopped.

    Workers find it and start none of their own: for containers, where the hub is a service of its
    own that shares MERCURE_RUNTIME_DIR with the application.
    """
    command = _run(_extension().companion_command)
    os.execv(command[0], command)  # noqa: S606 (our own binary)


@mercure_cli.command("tail")
@click.option("--topic", "-t", "topics", multiple=True, default=["*"], help="May be repeated.")
@click.option("--from-start", is_flag=True, help="Begin with the oldest event that is kept.")
def tail(topics: tuple[str, ...], from_start: bool) -> None:
    """Show what the built-in hub delivers, private updates included, as it happens."""
    last = "earliest" if from_start else None
    for line in _run(lambda: _state().follow(list(topics), last)):
        click.echo(line)


@mercure_cli.command("explain")
@click.option("--token", envvar="MERCURE_JWT", help="Token to judge; prefer MERCURE_JWT.")
@click.option("--topic", "-t", "topics", multiple=True, help="Topic of an update; repeatable.")
@click.option("--private", is_flag=True, help="The update is private.")
@click.option("--query", help="What a subscriber asks for: 'topic=/books/{id}'.")
def explain(token: str | None, topics: tuple[str, ...], private: bool, query: str | None) -> None:
    """Say why a token, a topic or a subscription is refused, or would never match.

    Judges with the application's keys, by the code of the hub itself, and names the rules of the
    application that are asked about each topic. The exit status is 1 if something is refused.
    """
    rules = _state().instance.rules_deciding(topics)
    for topic in topics:
        said = ", ".join(rules[topic]) or "none; private updates need a token or the session"
        click.echo(f"rules asked about {topic}: {said}")
        if private and rules[topic]:
            click.echo(
                "  whether they allow it depends on the session; below, the token alone counts"
            )
    command, environment = _run(lambda: explain_command(_state().settings))
    asked = [f"--topic={topic}" for topic in topics]
    asked += ["--private"] if private else []
    asked += [f"--query={query}"] if query else []
    # The token as well: what stands in arguments is seen by every user of the machine.
    environment |= {"MERCURE_JWT": token} if token else {}
    raise SystemExit(subprocess.run([*command, *asked], env=environment, check=False).returncode)


def _place(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    host, colon, port = (value or "").rpartition(":")
    if value is not None and not (host and colon and port.isdecimal() and 0 < int(port) < 65536):
        raise click.BadParameter("must be HOST:PORT, as in 127.0.0.1:8000")
    return value


@mercure_cli.command("doctor")
@click.argument("url")
@click.option("--page", default="/", show_default=True, help="A page that needs no login.")
@click.option("--topic", "-t", "topics", multiple=True, help="A topic in use. May be repeated.")
@click.option(
    "--idle",
    default=20.0,
    type=click.FloatRange(0, 86400),
    show_default=True,
    help="Seconds to watch a silent stream.",
)
@click.option(
    "--timeout",
    default=5.0,
    type=click.FloatRange(0.1, 600),
    show_default=True,
    help="Seconds for each answer.",
)
@click.option(
    "--connect",
    metavar="HOST:PORT",
    callback=_place,
    help="Connect there instead of to the host of the public addresses.",
)
def doctor(
    url: str, page: str, topics: tuple[str, ...], idle: float, timeout: float, connect: str | None
) -> None:
    """Look at the application through its public URL and name what is wrong.

    Subscribes and publishes as a browser and the application would, to a topic that nobody else
    uses, and finds proxies that buffer, compress or cut streams, cookies and origins that browsers
    refuse, tokens that the hub refuses, workers that streams hold, and hubs that know nothing of
    each other. The exit status is 1 if there is a fault.
    """
    from .doctor import Case, Options, examine, origin_of

    options = Options(url, page, topics, idle, timeout, connect)
    state, say = _state(), partial(click.secho, dim=True, err=True)

    def see() -> Case:
        origin_of(url)
        with current_app.test_request_context(base_url=url.partition("?")[0].partition("#")[0]):
            path = state.instance.hub_base_url()
        case = Case(state, options, path, say)
        examine(case)
        return case

    case = _run(see)
    for finding in case.findings:
        color = {"ok": "green", "note": "blue", "warning": "yellow", "fault": "red"}[finding.level]
        click.secho(f"{finding.level:8}", fg=color, nl=False)
        click.echo(f"{finding.cause:16} {finding.text}")
        if finding.fix:
            click.echo(f"{'':24} fix: {finding.fix}")
    faults = sum(finding.level == "fault" for finding in case.findings)
    if faults:
        raise click.ClickException(f"{faults} fault{'s' if faults > 1 else ''} found")


def _run(action: Callable[[], _T]) -> _T:
    """Runs an action; what the library explains is shown without a traceback."""
    try:
        return action()
    except MercureError as error:
        raise click.ClickException(str(error)) from error
