"""One reader that stops reading: the others and the publisher notice nothing."""

from __future__ import annotations

import statistics
import time
from pathlib import Path

import pytest

from conftest import HUB_PATH, companions
from support import servers
from support.sse import Crowd, Stream

PAYLOAD = "x" * 4096
#: More than the kernel buffers for one connection.
EVENTS = 3000


def resident(pid: int) -> int:
    """Memory of a process in bytes."""
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    line = next(line for line in status if line.startswith("VmRSS"))
    return int(line.split()[1]) * 1024


@pytest.mark.timeout(600)
def test_one_stalled_reader_among_a_hundred(start, runtime_dir):
    server = start(servers.gunicorn, "-w", "2")
    healthy = [Stream.open(server.port, f"{HUB_PATH}?topic=t") for _ in range(99)]
    stalled = Stream.open(server.port, f"{HUB_PATH}?topic=t")
    crowd = Crowd(healthy)

    took = []
    for number in range(EVENTS):
        begin = time.perf_counter()
        server.publish("t", f"{number} {PAYLOAD}")
        took.append(time.perf_counter() - begin)
        if number % 50 == 49:
            crowd.wait_for(number + 1)
    expected = [f"{number} {PAYLOAD}" for number in range(EVENTS)]
    assert all(stream.data == expected for stream in healthy), "the 99 miss nothing"
    early, late = statistics.median(took[:100]), statistics.median(took[-100:])
    print(f"publishing took {early * 1e3:.2f} ms at first, {late * 1e3:.2f} ms at the end")
    assert max(took) < 5, "no publisher ever waited for the stalled reader"

    (companion,) = companions(runtime_dir)
    memory = resident(companion)
    print(
        f"the companion holds {memory / 2**20:.0f} MiB for {EVENTS * 4096 / 2**20:.0f} MiB events"
    )
    assert memory < 100 * 2**20, "the log, once; no copy for the stalled reader"

    assert stalled.wait(EVENTS, timeout=60) == expected, "it gets everything, in order"
    server.publish("t", "live")
    assert stalled.wait(EVENTS + 1)[-1] == "live"
    for stream in (*healthy, stalled):
        stream.close()


def test_a_reader_that_fell_off_the_log_is_told(start):
    """The log keeps 200 events: the stalled reader's place is gone when it reads again."""
    server = start(servers.gunicorn, FLASK_MERCURE_HUB_RECONCILIATION_LENGTH="200")
    stalled = Stream.open(server.port, f"{HUB_PATH}?topic=t")
    for number in range(EVENTS):
        server.publish("t", f"{number} {PAYLOAD}")
    stalled.wait_for_end(timeout=60)
    numbers = [int(data.split()[0]) for data in stalled.data]
    assert numbers == list(range(len(numbers))), "a prefix without a hole"
    assert len(numbers) < EVENTS
    last = stalled.events[-1].id
    again = Stream.open(server.port, f"{HUB_PATH}?topic=t", {"Last-Event-ID": last})
    assert again.header("last-event-id") == "earliest", "the gap is reported"
    kept = [int(data.split()[0]) for data in again.wait(200)]
    assert kept == list(range(EVENTS - 200, EVENTS)), "everything still retained, in order"
    for stream in (stalled, again):
        stream.close()
