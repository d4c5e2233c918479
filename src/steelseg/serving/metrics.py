"""Metrics of the server for Prometheus, at `/metrics`."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    ProcessCollector,
    disable_created_metrics,
)

# Seconds.
_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """The metrics of one server, in a registry of its own."""

    def __init__(self) -> None:
        """Register the metrics, and those of the process."""
        disable_created_metrics()  # type: ignore[no-untyped-call]
        registry = CollectorRegistry()
        self.registry = registry
        self.requests = Counter(
            "steelseg_requests", "Responses.", ["route", "status"], registry=registry
        )
        self.predict_seconds = Histogram(
            "steelseg_predict_seconds",
            "Time from the header of a request to its prediction.",
            buckets=_BUCKETS,
            registry=registry,
        )
        self.stage_seconds = Counter(
            "steelseg_stage_seconds", "Time spent in a stage.", ["stage"], registry=registry
        )
        self.batches = Counter(
            "steelseg_batches", "Batches that went through the network.", registry=registry
        )
        self.strips = Counter("steelseg_strips", "Strips in these batches.", registry=registry)
        self.queue_strips = Gauge(
            "steelseg_queue_strips", "Strips in progress or waiting.", registry=registry
        )
        self.queue_limit = Gauge(
            "steelseg_queue_limit", "Strips that may be in progress or waiting.", registry=registry
        )
        self.connections = Gauge("steelseg_connections", "Open connections.", registry=registry)
        self.model = Info("steelseg_model", "The model that answers.", registry=registry)
        ProcessCollector(registry=registry)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time of the block to a stage."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.stage_seconds.labels(name).inc(time.perf_counter() - begun)
