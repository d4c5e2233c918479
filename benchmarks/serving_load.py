"""The server under ten times the load that it can predict.

    python benchmarks/serving_load.py RUN_OR_BUNDLE --images DIR [--seconds 60] [--factor 10]

Server and clients share the machine. First one client (unloaded latency), then as many as the queue
holds (peak throughput), then an open loop: strips are sent at `factor` times the peak, each on a
connection of its own, whatever the server answers, while `/live` is requested ten times per second.
Latency counts from when a strip was due to be sent. Every mask is compared with `Predictor`'s.
Prints JSON.
"""

import argparse
import asyncio
import json
import random
import time
from collections import Counter
from pathlib import Path

from serving_client import (
    exchange,
    get,
    megabytes,
    milliseconds,
    one_by_one,
    percentile,
    post,
    predicted,
    running,
)

CALM_SECONDS, PEAK_SECONDS = 15, 15
PLACES = 3


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path, metavar="RUN_OR_BUNDLE")
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--strips", type=int, default=24)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--factor", type=float, default=10)
    args = parser.parse_args()
    names = sorted(path.name for path in args.images.iterdir())[: args.strips]
    expected = predicted(args.source, args.images, names)
    requests = [(name, post("/v1/predict", (args.images / name).read_bytes())) for name in names]
    with running(args.source, "--queue", str(PLACES)) as (port, process):
        result = asyncio.run(measure(args, port, process, requests, expected))
    print(json.dumps(result, indent=1))


async def measure(args, port, process, requests, expected):
    """Run all phases, in order."""
    await one_by_one(port, requests, clients=1, seconds=3)
    calm, _ = await one_by_one(port, requests, clients=1, seconds=CALM_SECONDS)
    busy, peak = await one_by_one(port, requests, clients=PLACES, seconds=PEAK_SECONDS)
    before = megabytes(process)
    probes, stop = [], asyncio.Event()
    prober = asyncio.create_task(probe(port, probes, stop))
    flood, useful = await open_loop(port, requests, rate=args.factor * peak, seconds=args.seconds)
    recovery, over = await recover(port, requests[0][1], calm)
    stop.set()
    await prober
    after = megabytes(process)
    good = [reply.seconds for _, reply in flood if reply.status == 200]
    calm_ms = milliseconds([reply.seconds for _, reply in calm])
    flood_ms = milliseconds(good)
    everything = [*calm, *busy, *flood]
    return {
        "unloaded_ms": calm_ms,
        "peak_strips_a_second": round(peak, 2),
        "overload": {
            "offered_a_second": round(len(flood) / args.seconds, 1),
            "seconds": args.seconds,
            "statuses": dict(sorted(Counter(reply.status for _, reply in flood).items())),
            "useful_a_second": round(useful, 2),
            "useful_of_peak": round(useful / peak, 3),
            "accepted_ms": flood_ms,
            "p99_over_unloaded_p99": round(flood_ms["p99"] / calm_ms["p99"], 2),
            "refused_ms": milliseconds([r.seconds for _, r in flood if r.status == 429]),
            "live_ms": milliseconds(probes),
        },
        "masks": {
            "checked": sum(reply.status == 200 for _, reply in everything),
            "wrong": sum(is_wrong(name, reply, expected) for name, reply in everything),
        },
        "memory_mb": {
            "before": round(before),
            "after": round(after),
            "grown": round(after - before),
        },
        "seconds_to_recover": round(recovery, 2),
        "statuses_while_recovering": dict(Counter(over)),
    }


def is_wrong(name, reply, expected):
    """Return whether an accepted strip got other masks than `Predictor` gives."""
    if reply.status != 200:
        return False
    return [c["rle"] for c in json.loads(reply.body)["classes"]] != expected[name]


async def open_loop(port, requests, *, rate, seconds):
    """Send at a rate, at random times; return replies, and accepted strips per second."""
    chance, tasks = random.Random(0), []
    begun = due = time.perf_counter()
    while due - begun < seconds:
        name, request = requests[len(tasks) % len(requests)]
        await asyncio.sleep(max(due - time.perf_counter(), 0))
        tasks.append((name, asyncio.create_task(exchange(port, request, since=due))))
        due += chance.expovariate(rate)
    ended = time.perf_counter()
    in_time = sum(task.done() and task.result().status == 200 for _, task in tasks)
    replies = [(name, await task) for name, task in tasks]
    return replies, in_time / (ended - begun)


async def probe(port, seconds, stop):
    """Request /live ten times per second."""
    while not stop.is_set():
        reply = await exchange(port, get("/live"))
        seconds.append(reply.seconds if reply.status == 200 else 60)
        await asyncio.sleep(0.1)


async def recover(port, request, calm):
    """Return the seconds until five strips in a row are as fast as nine of ten before the load."""
    usual = percentile([reply.seconds for _, reply in calm], 0.9)
    begun, first, statuses = time.perf_counter(), None, []
    quick = 0
    while quick < 5 and time.perf_counter() - begun < 30:
        sent = time.perf_counter()
        reply = await exchange(port, request)
        statuses.append(reply.status)
        is_usual = reply.status == 200 and reply.seconds <= 1.2 * usual
        first = (first if quick else sent) if is_usual else None
        quick = quick + 1 if is_usual else 0
    return (first or time.perf_counter()) - begun, statuses


if __name__ == "__main__":
    main()
