"""Starting the companion: by whichever process needs it first."""

from __future__ import annotations

import contextlib
import hashlib
import os
import selectors
import stat
import subprocess
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import HubUnavailable
from .binary import find_binary

#: Exit status by which a companion says that another one is running already.
_ALREADY_RUNNING = 3
#: How long a companion may take to start, in seconds.
_START_TIMEOUT = 10.0
#: The log of former companions is kept up to this size, in bytes.
_MAX_LOG = 1 << 20


@dataclass(frozen=True)
class CompanionOptions:
    """What identifies and configures a companion. Durations are in seconds."""

    base: str
    identity: str
    grace: float
    heartbeat: float
    history: int
    subscriptions: bool
    #: When the application was set up, on the wall clock, in milliseconds. Of two applications that
    #: want different companions, the later one is obeyed.
    since: int
    #: Whether it runs as a service: for itself, and above those that workers start.
    service: bool = False

    @property
    def directory(self) -> str:
        """The companion's own directory: applications of one user do not meet in it."""
        digest = hashlib.sha256(self.identity.encode()).hexdigest()[:16]
        return os.path.join(self.base, digest)


def prepare_directory(options: CompanionOptions) -> None:
    """Makes the companion's directory, which nobody else can read.

    :raises HubUnavailable: if it cannot be made, or belongs to somebody else.
    """
    for directory in (options.base, options.directory):
        _private_directory(directory)


def start(options: CompanionOptions, *, succeed: bool = False) -> None:
    """Starts a companion and waits until it can be reached.

    Returns as well if another process has just started one.

    :param succeed: whether it takes the place of a running one, with everything that one holds.
    :raises HubUnavailable: if it cannot be started, with the companion's own words.
    """
    prepare_directory(options)
    log = _open_log(options.directory)
    try:
        process = subprocess.Popen(
            [*command_of(options), *(["--replace"] if succeed else [])],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            cwd="/",
            # Ours, not the terminal's nor the server's: a Ctrl-C or a reload must not reach it.
            start_new_session=True,
            env={"PATH": os.environ.get("PATH", os.defpath), "RUST_BACKTRACE": "0"},
        )
    except OSError as error:
        raise HubUnavailable(f"the companion could not be started: {error}") from error
    finally:
        os.close(log)
    try:
        _await_ready(process, options.directory, patient=succeed)
    finally:
        # Whoever started it is its parent: waits for its end, so that it is no zombie after it.
        threading.Thread(target=process.wait, name="mercure-companion", daemon=True).start()


def command_of(options: CompanionOptions) -> list[str]:
    """The command that runs a companion.

    :raises HubUnavailable: if the binary is missing.
    """

    binary, settings = find_binary(), _settings(options)
    name = f"--settings={settings_name(options)}"
    return [binary, "companion", *settings, name, f"--since={options.since}"]


def settings_name(options: CompanionOptions) -> str:
    """Names the program and its settings: the same for every process that wants the same companion.

    An upgrade in place changes the binary's file, and so the name.

    :raises HubUnavailable: if the binary is missing.
    """
    try:
        file = os.stat(find_binary())
    except OSError as error:  # just being replaced
        raise HubUnavailable(f"the mercure-hub binary cannot be read: {error}") from error
    # How long it stays is for whoever starts it to say.
    wanted = _settings(replace(options, grace=0.0))
    parts = [*wanted, str(options.service), str(file.st_size), str(file.st_mtime_ns)]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _settings(options: CompanionOptions) -> list[str]:
    def milliseconds(seconds: float) -> str:
        return str(round(seconds * 1000))

    return [
        f"--directory={options.directory}",
        f"--grace={milliseconds(options.grace)}",
        f"--heartbeat={milliseconds(options.heartbeat)}",
        f"--history={options.history}",
        *(["--subscriptions"] if options.subscriptions else []),
    ]


def _await_ready(process: subprocess.Popen[bytes], directory: str, *, patient: bool) -> None:
    output = process.stdout
    if output is None:  # never: it was asked for
        return
    with output, selectors.DefaultSelector() as selector:
        selector.register(output, selectors.EVENT_READ)
        ready = selector.select(_START_TIMEOUT) and output.readline() == b"ready\n"
    if ready:
        return
    with contextlib.suppress(subprocess.TimeoutExpired):
        if process.wait(1.0) == _ALREADY_RUNNING:
            return
    if patient and process.poll() is None:
        # It may have everything already, and the other one is gone.
        raise HubUnavailable("another companion takes its time to take over")
    process.kill()
    raise HubUnavailable(f"the companion did not start: {_last_words(directory)}")


def _private_directory(directory: str) -> None:
    advice = "choose another place with MERCURE_RUNTIME_DIR"
    try:
        os.makedirs(directory, mode=0o700, exist_ok=True)
        found = os.lstat(directory)
    except OSError as error:
        raise HubUnavailable(f"cannot create {directory} ({error.strerror}); {advice}") from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise HubUnavailable(f"{directory} belongs to somebody else; {advice}")
    if found.st_mode & 0o077:
        raise HubUnavailable(
            f"{directory} is open to other users; run: chmod 700 {directory}, or {advice}"
        )


def _open_log(directory: str) -> int:
    path = os.path.join(directory, "hub.log")
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
    try:
        log = os.open(path, flags, 0o600)
        if os.fstat(log).st_size > _MAX_LOG:
            os.ftruncate(log, 0)
    except OSError as error:
        raise HubUnavailable(f"cannot write {path}: {error.strerror}") from error
    return log


def _last_words(directory: str) -> str:
    try:
        lines = Path(directory, "hub.log").read_text(errors="replace").strip().splitlines()
    except OSError:
        lines = []
    return lines[-1] if lines else "it said nothing"


def retry_until(deadline: float) -> bool:
    """Waits a moment between two attempts; false once the time is up.

    :param deadline: on the clock of :func:`time.monotonic`, in seconds.
    """
    if time.monotonic() >= deadline:
        return False
    time.sleep(0.01)
    return True
