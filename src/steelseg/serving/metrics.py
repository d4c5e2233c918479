"""Counters of the server in the text format of Prometheus."""

import os
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

# Seconds, as Prometheus' own clients have them.
_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """What was counted since the start; threads may count at once."""

    def __init__(self) -> None:
        """Begin at nought."""
        self._lock = threading.Lock()
        self._requests: Counter[tuple[str, int]] = Counter()
        self._stages: defaultdict[str, float] = defaultdict(float)
        self._latency: Counter[float] = Counter()
        self._latency_sum = 0.0
        self._batches = 0
        self._strips = 0
        self._gauges: dict[str, tuple[str, Callable[[], float]]] = {}

    def gauge(self, name: str, meaning: str, read: Callable[[], float]) -> None:
        """Show a number that is read when it is asked for."""
        self._gauges[name] = meaning, read

    def count_request(self, route: str, status: int) -> None:
        """Count an answer."""
        with self._lock:
            self._requests[route, status] += 1

    def count_batch(self, strips: int) -> None:
        """Count what went through the networks together."""
        with self._lock:
            self._batches += 1
            self._strips += strips

    def count_latency(self, seconds: float) -> None:
        """Count a prediction, from its first byte to its answer."""
        with self._lock:
            self._latency_sum += seconds
            self._latency[next((b for b in _BUCKETS if seconds <= b), float("inf"))] += 1

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time of the block to a stage."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            seconds = time.perf_counter() - begun
            with self._lock:
                self._stages[name] += seconds

    def text(self, sha256: str) -> str:
        """Everything, as Prometheus reads it."""
        with self._lock:
            return "".join(f"{line}\n" for line in self._lines(sha256))

    def _lines(self, sha256: str) -> Iterator[str]:
        yield from _head("steelseg_requests_total", "counter", "Answers by route and status.")
        for (route, status), count in sorted(self._requests.items()):
            yield f'steelseg_requests_total{{route="{route}",status="{status}"}} {count}'
        yield from _head("steelseg_predict_seconds", "histogram", "Accepted strips, whole time.")
        total = 0
        for bound in _BUCKETS:
            total += self._latency[bound]
            yield f'steelseg_predict_seconds_bucket{{le="{bound:g}"}} {total}'
        total += self._latency[float("inf")]
        yield f'steelseg_predict_seconds_bucket{{le="+Inf"}} {total}'
        yield f"steelseg_predict_seconds_sum {self._latency_sum:.6f}"
        yield f"steelseg_predict_seconds_count {total}"
        yield from _head("steelseg_stage_seconds_total", "counter", "Time by stage.")
        for stage, seconds in sorted(self._stages.items()):
            yield f'steelseg_stage_seconds_total{{stage="{stage}"}} {seconds:.6f}'
        yield from _number("steelseg_batches_total", "counter", "Batches.", self._batches)
        yield from _number("steelseg_strips_total", "counter", "Strips in batches.", self._strips)
        for name, (meaning, read) in self._gauges.items():
            yield from _number(f"steelseg_{name}", "gauge", meaning, read())
        yield from _head("steelseg_model_info", "gauge", "The model that answers.")
        yield f'steelseg_model_info{{sha256="{sha256}"}} 1'
        yield from _number(
            "process_resident_memory_bytes", "gauge", "Memory of the process.", resident_bytes()
        )


def _head(name: str, kind: str, meaning: str) -> Iterator[str]:
    yield f"# HELP {name} {meaning}"
    yield f"# TYPE {name} {kind}"


def _number(name: str, kind: str, meaning: str, value: float) -> Iterator[str]:
    yield from _head(name, kind, meaning)
    yield f"{name} {value:.15g}"


def resident_bytes() -> int:
    """Memory of this process; 0 where the system does not say it in /proc."""
    statm = Path("/proc/self/statm")
    if not statm.exists():
        return 0
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
