"""Starts ``mercure-hub`` with the options that ``python -m flask_mercure_sse.server`` has had."""

from __future__ import annotations

import os
import subprocess
import sys

import click

from ..companion.binary import find_binary
from ..errors import MercureError


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=5500, show_default=True, help="Port to listen on.")
@click.option("--publisher-secret", envvar="MERCURE_PUBLISHER_JWT_KEY", help="Publishers' key.")
@click.option("--subscriber-secret", envvar="MERCURE_SUBSCRIBER_JWT_KEY", help="Subscribers' key.")
@click.option("--allow-anonymous/--no-allow-anonymous", default=True, help="Serve without token.")
@click.option("--cors-origins", default="", help="Origins of pages that may subscribe; * for all.")
@click.option("--subscriptions/--no-subscriptions", default=True, help="Tell who is subscribed.")
@click.option("--debug", is_flag=True, help="Log more.")
def main(
    host: str,
    port: int,
    publisher_secret: str | None,
    subscriber_secret: str | None,
    allow_anonymous: bool,
    cors_origins: str,
    subscriptions: bool,
    debug: bool,
) -> None:
    """Run the hub. For more than these options, run mercure-hub itself."""
    if not publisher_secret or not subscriber_secret:
        raise click.UsageError(
            "give --publisher-secret and --subscriber-secret; make one with: "
            "python -c 'import secrets; print(secrets.token_hex())'"
        )
    try:
        binary = find_binary()
    except MercureError as error:
        raise click.ClickException(str(error)) from error
    environment = {
        **os.environ,
        # Not as arguments: every user of the machine can read those.
        "MERCURE_PUBLISHER_JWT_KEY": publisher_secret,
        "MERCURE_SUBSCRIBER_JWT_KEY": subscriber_secret,
    }
    arguments = [
        *(binary, "serve"),
        f"--listen={f'[{host}]' if ':' in host else host}:{port}",
        f"--anonymous={str(allow_anonymous).lower()}",
        f"--subscriptions={str(subscriptions).lower()}",
        f"--log-level={'debug' if debug else 'info'}",
        *([f"--cors-origins={cors_origins}"] if cors_origins else []),
    ]
    # A token in a log would be a key lying about.
    if sys.stdout.isatty():
        click.echo("The token to publish with, good for a year:")
        token = [binary, "token", "--publish=*", "--expires=365d"]
        subprocess.run(token, env=environment, check=False)
    sys.stdout.flush()
    os.execve(binary, arguments, environment)  # noqa: S606 (our own binary)


if __name__ == "__main__":
    main()
