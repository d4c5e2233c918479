"""Shared by the benchmarks of the server: start a server, and a client with little overhead."""

import asyncio
import json
import os
import re
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

HOST = "127.0.0.1"
_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)", re.IGNORECASE)


@dataclass
class Reply:
    """A response; status 0 if none was complete."""

    status: int
    seconds: float
    body: bytes = b""


@contextmanager
def running(source, *words):
    """Start `steelseg serve` on a free port; yield its port and process."""
    code = "import sys; from steelseg.cli.main import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "serve", str(source), "--port", "0", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        line = process.stdout.readline()
        try:
            yield int(line.rpartition(":")[2]), process
        finally:
            process.terminate()
            process.wait(60)


def predicted(source, images, names):
    """Return the RLE of each class that `steelseg predict` writes, by image name."""
    code = """
import sys
from pathlib import Path
from steelseg.data.formats.rle import encode
from steelseg.inference.predictor import Predictor
import json
predictor = Predictor(sys.argv[1])
print(json.dumps([[encode(mask) for mask in predictor(Path(p))] for p in sys.argv[2:]]))
"""
    paths = [str(images / name) for name in names]
    command = [sys.executable, "-c", code, str(source), *paths]
    answer = subprocess.run(command, capture_output=True, check=True, text=True).stdout
    return dict(zip(names, json.loads(answer), strict=True))


def post(path, body):
    """Return a POST request that closes its connection."""
    head = f"POST {path} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def get(path):
    return f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n".encode()


class _Exchange(asyncio.Protocol):
    """One request and its response."""

    def __init__(self, request, done):
        self._request, self._done = request, done
        self._parts, self._missing = [], None

    def connection_made(self, transport):
        self._transport = transport
        transport.write(self._request)

    def data_received(self, data):
        self._parts.append(data)
        if self._missing is None:
            head, found, rest = b"".join(self._parts).partition(b"\r\n\r\n")
            if not found:
                return
            self._missing = int(_LENGTH.search(head)[1]) - len(rest)
        else:
            self._missing -= len(data)
        if self._missing <= 0:
            self._finish()

    def connection_lost(self, _error):
        self._finish()

    def _finish(self):
        if self._done.done():
            return
        is_whole = self._missing is not None and self._missing <= 0
        self._done.set_result(b"".join(self._parts) if is_whole else b"")
        self._transport.close()


async def exchange(port, request, *, since=None, limit=60):
    """Send a request; its seconds count from `since`, or from now."""
    loop = asyncio.get_running_loop()
    begun = time.perf_counter() if since is None else since
    done = loop.create_future()
    try:
        await loop.create_connection(lambda: _Exchange(request, done), HOST, port)
        answer = await asyncio.wait_for(done, limit)
    except (OSError, TimeoutError):
        answer = b""
    seconds = time.perf_counter() - begun
    if not answer:
        return Reply(0, seconds)
    return Reply(int(answer[9:12]), seconds, answer.partition(b"\r\n\r\n")[2])


async def one_by_one(port, requests, *, clients, seconds):
    """Run clients that each wait for their response; return replies and strips per second."""
    replies, begun = [], time.perf_counter()

    async def client(number):
        while time.perf_counter() - begun < seconds:
            name, request = requests[(len(replies) + number) % len(requests)]
            replies.append((name, await exchange(port, request)))

    await asyncio.gather(*(client(number) for number in range(clients)))
    answered = sum(reply.status == 200 for _, reply in replies)
    return replies, answered / (time.perf_counter() - begun)


def percentile(values, share):
    """Return the value that a share of the values does not exceed."""
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)] if ordered else None


def milliseconds(values):
    """Return median, 99th percentile and maximum in milliseconds."""
    shares = {"p50": 0.5, "p99": 0.99, "max": 1}
    return {name: round(1000 * percentile(values, s), 1) for name, s in shares.items()}


def megabytes(process):
    """Return the resident memory of a process."""
    pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
