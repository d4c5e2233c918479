"""Latency of real clients while 500 others send a byte per second.

    python benchmarks/serving_drip.py RUN_OR_BUNDLE --images DIR [--drips 500] [--seconds 40]

One client sends strips, one after the other: first without, then with the slow connections. Half
of these send their header slowly, half the body of a strip; each that the server closes is opened
again at once. Prints JSON: latency of the strips, and how long each slow connection was open.
"""

import argparse
import asyncio
import json
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

from serving_client import HOST, megabytes, milliseconds, one_by_one, percentile, post, running

BEGINNINGS = (
    b"POST /v1/predict HTTP/1.1\r\nHost: a\r\nX-Long: ",
    b"POST /v1/predict HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n\xff\xd8\xff",
)
PAUSE = 1.0


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path, metavar="RUN_OR_BUNDLE")
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--drips", type=int, default=500)
    parser.add_argument("--seconds", type=float, default=40)
    args = parser.parse_args()
    names = sorted(path.name for path in args.images.iterdir())[:24]
    requests = [(name, post("/v1/predict", (args.images / name).read_bytes())) for name in names]
    with running(args.source) as (port, process):
        print(json.dumps(asyncio.run(measure(args, port, process, requests)), indent=1))


async def measure(args, port, process, requests):
    """Measure without, then with the slow connections."""
    await one_by_one(port, requests, clients=1, seconds=3)
    alone, _ = await one_by_one(port, requests, clients=1, seconds=args.seconds)
    before = megabytes(process)
    lives, open_now = [], Counter()
    drips = [
        asyncio.create_task(drip(port, BEGINNINGS[number % 2], lives, open_now))
        for number in range(args.drips)
    ]
    await asyncio.sleep(2)
    beside, _ = await one_by_one(port, requests, clients=1, seconds=args.seconds)
    at_once, after = open_now["now"], megabytes(process)
    for task in drips:
        task.cancel()
    await asyncio.gather(*drips, return_exceptions=True)
    alone_ms, beside_ms = latency(alone), latency(beside)
    return {
        "alone": alone_ms,
        "beside_drips": beside_ms,
        "p99_over_alone": round(beside_ms["p99"] / alone_ms["p99"], 2),
        "drips": {
            "open_at_the_end": at_once,
            "cut": len(lives),
            "seconds_open": {
                "p50": round(percentile(lives, 0.5), 2),
                "max": round(max(lives), 2),
            },
        },
        "memory_grown_mb": round(after - before),
    }


def latency(replies):
    """Return statuses and milliseconds of the strips."""
    seconds = [reply.seconds for _, reply in replies if reply.status == 200]
    return {"statuses": dict(Counter(r.status for _, r in replies)), **milliseconds(seconds)}


async def drip(port, beginning, lives, open_now):
    """Send a byte per second until the server closes the connection, then open another."""
    while True:
        begun = time.perf_counter()
        reader, writer = await asyncio.open_connection(HOST, port)
        open_now["now"] += 1
        with suppress(OSError):
            writer.write(beginning)
            while True:
                with suppress(TimeoutError):
                    async with asyncio.timeout(PAUSE):
                        await reader.read(4096)
                        break
                writer.write(b"a")
        lives.append(time.perf_counter() - begun)
        open_now["now"] -= 1
        writer.close()


if __name__ == "__main__":
    main()
