"""``flask mercure``: tokens, publishing, the state of the companion."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar, cast

import click
from flask import current_app
from flask.cli import AppGroup

from .errors import MercureError

if TYPE_CHECKING:
    from .state import MercureSSEState

_T = TypeVar("_T")

mercure_cli = AppGroup("mercure", help="Mercure hub commands.")


def _state() -> MercureSSEState:
    return cast("MercureSSEState", current_app.extensions["mercure_sse"])


@mercure_cli.command("gen-secret-key")
def gen_secret_key() -> None:
    """Make a key that is safe to sign tokens with."""
    click.echo(secrets.token_hex(32))


@mercure_cli.command("subscriber-jwt")
@click.option("--topic", "-t", "topics", multiple=True, default=["*"], help="May be repeated.")
def subscriber_jwt(topics: tuple[str, ...]) -> None:
    """Make a token that allows to read private updates."""
    click.echo(_run(lambda: _state().instance.create_subscription_jwt(topics)))


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
    command = _run(_state().companion_command)
    os.execv(command[0], command)  # noqa: S606 (our own binary)


@mercure_cli.command("tail")
@click.option("--topic", "-t", "topics", multiple=True, default=["*"], help="May be repeated.")
@click.option("--from-start", is_flag=True, help="Begin with the oldest event that is kept.")
def tail(topics: tuple[str, ...], from_start: bool) -> None:
    """Show what the built-in hub delivers, private updates included, as it happens."""
    last = "earliest" if from_start else None
    for line in _run(lambda: _state().follow(list(topics), last)):
        click.echo(line)


def _run(action: Callable[[], _T]) -> _T:
    """Runs an action; what the library explains is shown without a traceback."""
    try:
        return action()
    except MercureError as error:
        raise click.ClickException(str(error)) from error
