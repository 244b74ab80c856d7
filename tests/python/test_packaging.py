"""What operators are handed: the hub understands each configuration, and the parts fit together."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from support import servers

PACKAGING = servers.ROOT / "packaging"


def of_kubernetes() -> str:
    """The file that the manifests hold."""
    text = (PACKAGING / "kubernetes/mercure-hub.yaml").read_text()
    found = re.search(r"^  hub\.toml: \|\n((?:    .*\n)+)", text, re.MULTILINE)
    assert found is not None
    return re.sub(r"^    ", "", found[1], flags=re.MULTILINE)


FILES = {
    "debian": lambda: (PACKAGING / "debian/hub.toml").read_text(),
    "container": lambda: (PACKAGING / "container/hub.toml").read_text(),
    "kubernetes": of_kubernetes,
}


@pytest.mark.parametrize("name", FILES)
def test_the_hub_understands_the_configuration(tmp_path: Path, name: str):
    keys = tmp_path / "keys"
    keys.mkdir()
    for role in ("publisher", "subscriber", "publisher.key", "subscriber.key"):
        (keys / role).write_text("k" * 32)
    text = re.sub(r"file:///etc/mercure-hub/(keys/)?", f"file://{keys}/", FILES[name]())
    file = tmp_path / "hub.toml"
    file.write_text(text)
    env = {**os.environ, "MERCURE_PUBLISHER_JWT_KEY": "k" * 32} if name == "container" else None
    command = [servers.HUB, "check-config", "--config", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 0, done.stderr


def test_kubernetes_waits_for_streams_to_end():
    text, file = (PACKAGING / "kubernetes/mercure-hub.yaml").read_text(), of_kubernetes()
    grace = int(re.findall(r"terminationGracePeriodSeconds: (\d+)", text)[0])
    drain = sum(int(seconds) for seconds in re.findall(r'drain(?:_delay)? = "(\d+)s"', file))
    assert grace >= drain + 10 + 15, "requests, and saying goodbye to the log"
    for port in ("5500", "5501"):
        assert f"containerPort: {port}" in text
        assert f":{port}" in file
