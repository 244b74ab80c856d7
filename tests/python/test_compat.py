"""The compatibility suite can fail: on the release whose defects it looks for, it does."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from support.servers import ROOT

PEER = ROOT / ".venv/peers"
KNOWN = ROOT / "tests/compat/fails-on-0.4.1.txt"


@pytest.mark.timeout(600)
def test_the_suite_finds_the_defects_of_0_4_1():
    lines = KNOWN.read_text().splitlines()
    known = {line.partition("  #")[0] for line in lines if line and not line.startswith("#")}
    assert (PEER / "flask_mercure_sse").is_dir(), "run `make test-python`, which installs it"
    # What hangs there is ended after a while; it fails whenever that is.
    options = ["-q", "--timeout=8", "-p", "no:cacheprovider", "-W", "ignore", "--tb=no", "-rf"]
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "tests/compat", *options],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(PEER)},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    failed = set(re.findall(r"^FAILED tests/compat/(\S+)", run.stdout, re.MULTILINE))
    assert known <= failed, f"not found any more: {known - failed}"
    passed = re.search(r"(\d+) passed", run.stdout)
    assert passed is not None, run.stdout
    assert int(passed[1]) >= 10, "much of what is documented works there"
