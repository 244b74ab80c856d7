"""How an application answers while it has subscribers."""

from __future__ import annotations

import statistics
import threading
import time

from .servers import Server
from .sse import Crowd, Stream

HUB_PATH = "/.well-known/mercure"


def open_crowd(server: Server, count: int) -> Crowd:
    return Crowd([Stream.open(server.port, f"{HUB_PATH}?topic=t") for _ in range(count)])


def percentile_95(samples: list[float]) -> float:
    return statistics.quantiles(samples, n=20)[-1]


def ping_times(server, seconds: float) -> list[float]:
    samples, end = [], time.monotonic() + seconds
    while time.monotonic() < end:
        begin = time.perf_counter()
        assert server.request("GET", "/ping")[0] == 200
        samples.append(time.perf_counter() - begin)
        time.sleep(0.005)
    return samples


def publish_steadily(server, stop: threading.Event, rate: float) -> None:
    number = 0
    while not stop.wait(1 / rate):
        server.publish("t", str(number))
        number += 1


def read_on(crowd: Crowd, stop: threading.Event) -> None:
    if crowd.streams:
        crowd.wait(stop.is_set)


def compare(server: Server, seconds: float, rounds: int, rate: float = 50.0) -> tuple[float, float]:
    """The 95th percentile of a plain route's answers, in seconds, while events are published:
    without subscribers, and with 200; the median of several rounds that take turns.

    :param rate: events per second, each of them for every subscriber.
    """
    quiet: list[float] = []
    busy: list[float] = []
    for _ in range(rounds):
        for subscribers, results in ((0, quiet), (200, busy)):
            crowd = open_crowd(server, subscribers)
            stop = threading.Event()
            threads = [
                threading.Thread(target=publish_steadily, args=(server, stop, rate)),
                threading.Thread(target=read_on, args=(crowd, stop)),
            ]
            for thread in threads:
                thread.start()
            results.append(percentile_95(ping_times(server, seconds)))
            stop.set()
            for thread in threads:
                thread.join()
            crowd.close()
    return statistics.median(quiet), statistics.median(busy)
