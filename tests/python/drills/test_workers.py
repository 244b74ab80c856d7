"""Several workers are one hub: nothing is lost, nothing repeated, nobody waits."""

from __future__ import annotations

import os
import random
import signal
import threading
from concurrent.futures import ThreadPoolExecutor

from conftest import HUB_PATH, companions, status_of
from support import load, servers
from support.sse import Crowd, Stream

LONG = os.environ.get("MERCURE_DRILL") == "long"


def publish_all(server, numbers, threads: int) -> threading.Thread:
    """Publishes from several clients at once, so that every worker takes part."""
    shares = [numbers[at::threads] for at in range(threads)]

    def publish(share):
        for number in share:
            server.publish("t", str(number))

    def run():
        workers = [threading.Thread(target=publish, args=(share,)) for share in shares]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def workers_of(server) -> set[str]:
    """Workers that answer while others are busy."""
    with ThreadPoolExecutor(8) as pool:
        answers = pool.map(lambda _: server.request("GET", "/ping?hold=0.3")[1], range(8))
        return set(answers)


def test_four_workers_are_one_hub(start, runtime_dir):
    """200 subscribers, 1,000 events through random workers."""
    server = start(servers.gunicorn, "-w", "4", FLASK_MERCURE_COMPANION_GRACE="1")
    crowd = load.open_crowd(server, 200)
    events = list(range(1000))
    random.shuffle(events)
    publisher = publish_all(server, events, threads=8)
    crowd.wait_for(1000, timeout=90)
    publisher.join()
    first = crowd.streams[0].data
    assert sorted(map(int, first)) == list(range(1000)), "everything, once"
    assert all(stream.data == first for stream in crowd.streams), "one order for all"
    assert len(workers_of(server)) > 1, "the requests did reach several workers"

    running = companions(runtime_dir)
    assert len(running) == 1
    server.stop()
    # The companion stays for its grace period, then ends and takes the streams with it.
    servers.wait_until(lambda: not companions(runtime_dir), what="a process was left behind")
    crowd.wait(lambda: all(stream.ended for stream in crowd.streams))
    crowd.close()


def test_ordinary_requests_do_not_feel_the_streams(start):
    """p95 of a plain route while events are published at a steady pace: without subscribers, then
    with 200, in turns. A sync worker held by a stream would make it time out."""
    server = start(servers.gunicorn, "-w", "4")
    seconds, rounds = (5.0, 5) if LONG else (1.5, 3)
    quiet, busy = load.compare(server, seconds, rounds)
    print(f"p95 of /ping: {quiet * 1e3:.2f} ms without subscribers, "
          f"{busy * 1e3:.2f} ms with 200: {busy / quiet:.2f} x")  # fmt: skip
    if LONG:
        assert busy / quiet <= 2
    # The short form runs beside other work: it only has to show that no worker is held.
    assert busy < 1


def test_recycled_workers_drop_no_stream(start):
    """max_requests below the number of subscribers: servers that keep streams in their workers
    never come to rest then."""
    server = start(servers.gunicorn, "-w", "2", "--max-requests", "30")
    crowd = load.open_crowd(server, 60)
    for number in range(200):
        server.publish("t", str(number))
    crowd.wait_for(200)
    assert all(stream.data == [str(n) for n in range(200)] for stream in crowd.streams)
    assert not any(stream.ended for stream in crowd.streams)
    assert server.log.count("Booting worker") > 4, "workers were recycled"
    crowd.close()


def test_a_graceful_reload_drops_no_stream(start):
    server = start(servers.gunicorn, "-w", "2")
    crowd = load.open_crowd(server, 20)
    server.publish("t", "before")
    booted = server.log.count("Booting worker")
    server.signal(signal.SIGHUP)
    servers.wait_until(lambda: server.log.count("Booting worker") >= booted + 2)
    server.publish("t", "after")
    crowd.wait_for(2)
    assert all(stream.data == ["before", "after"] for stream in crowd.streams)
    crowd.close()


def test_a_killed_companion_is_replaced_and_the_gap_is_told(start, runtime_dir):
    server = start(servers.gunicorn, "-w", "2")
    stream = Stream.open(server.port, f"{HUB_PATH}?topic=t")
    server.publish("t", "1")
    stream.wait(1)
    last = stream.events[-1].id
    (companion,) = companions(runtime_dir)
    os.kill(companion, signal.SIGKILL)
    stream.wait_for_end()
    server.publish("t", "2")
    again = Stream.open(server.port, f"{HUB_PATH}?topic=t", {"Last-Event-ID": last})
    assert again.header("last-event-id") == "earliest", "something may be missing"
    assert again.header("mercure-last-event-id") == "earliest"
    assert again.wait(1) == ["2"], "what the new companion has is not lost"
    server.publish("t", "3")
    assert again.wait(2) == ["2", "3"]
    assert status_of(server)["pid"] != companion
    again.close()


def test_a_killed_worker_takes_no_stream_along(start):
    server = start(servers.gunicorn, "-w", "2")
    crowd = load.open_crowd(server, 20)
    server.publish("t", "1")
    for _ in range(3):
        worker = int(server.request("GET", "/ping")[1].split()[1])
        os.kill(worker, signal.SIGKILL)
        servers.wait_until(lambda pid=worker: not servers.is_alive(pid))
    servers.wait_until(lambda: server.request("GET", "/ping")[0] == 200)
    server.publish("t", "2")
    crowd.wait_for(2)
    assert all(stream.data == ["1", "2"] for stream in crowd.streams)
    crowd.close()


def test_the_first_requests_may_come_all_at_once(start, runtime_dir):
    """Every worker and thread finds no companion: one is started, and all agree on it."""
    server = start(servers.gunicorn, "-w", "4", "-k", "gthread", "--threads", "8")
    streams: list[Stream] = []

    def subscribe():
        streams.append(Stream.open(server.port, f"{HUB_PATH}?topic=t"))

    threads = [threading.Thread(target=subscribe) for _ in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [stream.status for stream in streams] == [200] * 32
    assert len(companions(runtime_dir)) == 1
    server.publish("t", "1")
    crowd = Crowd(streams)
    crowd.wait_for(1)
    crowd.close()
