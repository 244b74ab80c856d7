"""The pages of docs/production, with real engines."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

from support import neighbours, servers
from test_docs import block, environment, read_until, shell


def settings(port: int) -> dict[str, str]:
    env = environment(port)
    del env["MERCURE_HUB_URL"]
    return {**env, "MERCURE_PUBLISHER_JWT_KEY": "k" * 32, "MERCURE_OPS_LISTEN": "none"}


def accepts(script: str, folder: Path) -> None:
    """A hub that is started so has a log that works."""
    port = servers.free_port()
    env = settings(port)
    with shell(
        script.replace("mercure-hub serve", "exec mercure-hub serve"), env, cwd=folder
    ) as hub:
        read_until(hub.stderr, "listening")
        publish = (
            "MERCURE_JWT=$(mercure-hub token --publish '*') mercure-hub publish --topic t hello"
        )
        env["MERCURE_HUB_URL"] = f"http://127.0.0.1:{port}/.well-known/mercure"
        done = run(publish, env, folder)
        assert done.startswith("urn:uuid:")


def run(script: str, env: dict[str, str], folder: Path) -> str:
    done = subprocess.run(
        ["bash", "-euc", script], env=env, cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_choosing_and_looking_after_it(tmp_path):
    page = "docs/production/choosing.md"
    accepts(block(page, 0), tmp_path)
    assert block("README.md", 5) == block("docs/production/sqlite.md", 0)
    env = settings(servers.free_port())
    said = run(block(page, 1), env, tmp_path).splitlines()
    assert re.fullmatch(r"1\turn:uuid:\S+\tpublic\t\d+ B\tt", said[0])
    assert said[1].startswith(
        "1 events, in order and without a hole; 0 repeat an id; the newest is urn"
    )
    run(block(page, 2), env, tmp_path)
    line = json.loads((tmp_path / "log.jsonl").read_text())
    assert line["topics"] == ["t"]
    assert "data: hello" in line["event"].splitlines()
    again = "mercure-hub history export --transport sqlite://other.db"
    assert json.loads(run(again, env, tmp_path)) == line
    trim = "mercure-hub history trim --transport sqlite://other.db --keep 0; " + again
    assert run(trim, env, tmp_path) == ""


def test_an_import_loses_nothing_and_takes_nothing_strange(tmp_path):
    env = settings(servers.free_port())

    def fails(line: object, words: str) -> None:
        (tmp_path / "log.jsonl").write_text(json.dumps(line) + "\n")
        script = "mercure-hub history import --transport sqlite://new.db < log.jsonl"
        done = subprocess.run(
            ["bash", "-euc", script], env=env, cwd=tmp_path, capture_output=True, text=True
        )
        assert done.returncode == 1
        assert words in done.stderr, done.stderr

    good = {"position": 1, "id": "a", "topics": ["t"], "event": "id: a\ndata: x\n\n"}
    fails({**good, "event": "id: a\ndata: x"}, "line 1: the event does not end")
    fails({**good, "event": "id: a\ndata: x\n\ndata: y\n\n"}, "the event is more than one")
    fails({**good, "event": "id: b\ndata: x\n\n"}, "does not bear its id")
    fails({**good, "topics": ["a\nb"]}, "the topics are not valid")
    fails({**good, "secret": True}, "unknown field")
    memory = "mercure-hub history list || echo $?"
    assert run(memory, env, tmp_path) == "2\n"


def test_sqlite(tmp_path):
    (tmp_path / "var").mkdir()
    script = block("docs/production/sqlite.md", 0)
    accepts(script.replace("/var/lib/mercure", str(tmp_path / "var")), tmp_path)
    assert {"hub.db", "hub.db.lock"} <= {path.name for path in (tmp_path / "var").iterdir()}


def test_redis(tmp_path):
    port = servers.free_port()
    script, config = block("docs/production/redis.md", 0), block("docs/production/redis.md", 1)
    (tmp_path / "redis.conf").write_text(f"{config}\nbind 127.0.0.1\nport {port}\ndir {tmp_path}\n")
    command = [neighbours.tool("redis-server"), str(tmp_path / "redis.conf")]
    with neighbours.running(command, port, tmp_path / "redis.log"):
        accepts(script.replace("6379", str(port)), tmp_path)


def test_postgresql(tmp_path):
    sql, script = (
        block("docs/production/postgresql.md", 0),
        block("docs/production/postgresql.md", 1),
    )
    with neighbours.postgresql(tmp_path / "postgresql") as (port, tools):
        psql = [str(tools / "psql"), "-h", "127.0.0.1", "-p", str(port), "-U", "owner", "postgres"]
        subprocess.run(psql, input=sql, text=True, check=True, capture_output=True)
        script = script.replace("5432", str(port)).replace("localhost", "127.0.0.1")
        accepts(script, tmp_path)


def test_nats(tmp_path):
    port = servers.free_port()
    config, script = block("docs/production/nats.md", 0), block("docs/production/nats.md", 1)
    (tmp_path / "nats.conf").write_text(f'{config}\nlisten: "127.0.0.1:{port}"\n')
    command = [neighbours.tool("nats-server"), "-c", str(tmp_path / "nats.conf")]
    with neighbours.running(command, port, tmp_path / "nats.log"):
        accepts(script.replace("4222", str(port)), tmp_path)
