"""Hostile and malformed requests against the server.

    pip install schemathesis
    python benchmarks/serving_fuzz.py RUN_OR_BUNDLE [--cases 10000] [--raw 20000]

Schemathesis makes valid and invalid requests from /openapi.json and checks every response.
Then valid raw requests for every path are mutated: bits flipped, parts removed, repeated, swapped,
truncated, numbers made extreme, images damaged. Each is sent over a connection of its own, whose
client stops sending at the end; the server may close it without a response if the request was
incomplete. A small network and small strips suffice, because the server is under test. Prints JSON;
exits with 1 if any response was a 500, Schemathesis found a failure, or the server died.
"""

import argparse
import asyncio
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import cv2
import numpy as np

from serving_client import HOST, get, megabytes, post, running

TOKEN = "a token of sixteen or more"
CLIENTS = 8
# No schema can say which bytes are a JPEG, or which models exist.
UNSAYABLE = "positive_data_acceptance"

# Bodies for Schemathesis: a grey strip as PNG in three sizes, and random bytes.
HOOKS = """
import struct, zlib
import schemathesis
from hypothesis import strategies as st

def chunk(kind, content):
    crc = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", crc)

def png(height, width):
    rows = zlib.compress(b"".join(b"\\0" + bytes(range(width)) for _ in range(height)))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\\x89PNG\\r\\n\\x1a\\n" + header + chunk(b"IDAT", rows) + chunk(b"IEND", b"")

strips = st.sampled_from([png(1, 1), png(8, 24), png(32, 96)])
for name in ("image/png", "image/jpeg"):
    schemathesis.openapi.media_type(name, st.one_of(strips, st.binary(max_size=200)))
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path, metavar="RUN_OR_BUNDLE")
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--raw", type=int, default=20_000)
    parser.add_argument("--schemathesis", default="schemathesis", help="its program")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    result = {}
    with tempfile.TemporaryDirectory() as folder:
        token = Path(folder) / "token"
        token.write_text(TOKEN)
        words = ["--queue", "64", "--admin-token-file", str(token)]
        with running(args.source, *words) as (port, process):
            if args.cases:
                result["schemathesis"] = schemathesis(args, port, Path(folder))
            if args.raw:
                result["raw"] = asyncio.run(throw(args, port))
            result["memory_mb"] = round(megabytes(process))
            result["alive"] = process.poll() is None
    print(json.dumps(result, indent=1))
    accused = result.get("schemathesis", {}).get("failures", 0)
    sys.exit(bool(accused or result.get("raw", {}).get("500") or not result["alive"]))


def schemathesis(args, port, folder):
    """Run Schemathesis; return its counts."""
    begun = time.monotonic()
    (folder / "hooks.py").write_text(HOOKS)
    environment = {**os.environ, "PYTHONPATH": str(folder), "SCHEMATHESIS_HOOKS": "hooks"}
    # Two operations take data and share the cases; the others are additional.
    command = [
        args.schemathesis,
        "run",
        f"http://{HOST}:{port}/openapi.json",
        f"--max-examples={args.cases // 2 + 1}",
        f"--seed={args.seed}",
        f"--exclude-checks={UNSAYABLE}",
        "--continue-on-failure",
        "--generation-database=none",
        "--suppress-health-check=all",
        f"--header=Authorization: Bearer {TOKEN}",
    ]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=environment, cwd=folder
    )
    accusations = done.stdout.partition("= FAILURES =")[2].partition("= SUMMARY =")[0]
    cases = re.search(r"([\d,]+) generated", done.stdout)
    failures = re.search(r"(\d+) found (\d+) unique failures", done.stdout)
    return {
        "cases": int(cases[1].replace(",", "")) if cases else None,
        "failures": int(failures[2]) if failures else done.returncode,
        "seconds": round(time.monotonic() - begun),
        "accusations": accusations.splitlines()[:60],
    }


async def throw(args, port):
    """Send mutated requests from a few clients; count the statuses."""
    chance = np.random.default_rng(args.seed)
    seeds = whole_requests(chance)
    requests = (mutate(chance, seeds) for _ in range(args.raw))
    statuses, begun = Counter(), time.monotonic()

    async def client():
        for request in requests:
            statuses[await send(port, request)] += 1

    await asyncio.gather(*(client() for _ in range(CLIENTS)))
    live = await send(port, get("/live"))
    return {
        "requests": args.raw,
        "500": statuses["500"],
        "statuses": dict(sorted(statuses.items())),
        "live_afterwards": live,
        "seconds": round(time.monotonic() - begun),
    }


def whole_requests(chance):
    """Return valid requests, one of each kind."""
    strip = chance.integers(0, 256, (32, 96), np.uint8)
    bodies = [cv2.imencode(suffix, strip)[1].tobytes() for suffix in (".jpg", ".png")]
    queries = ("", "?answer=mask&class=1", "?answer=overlay", "?answer=probabilities")
    requests = [post(f"/v1/predict{query}", body) for query in queries for body in bodies]
    requests.append(post("/v1/predict?threshold=0.4&min_size=12", bodies[0]))
    chunks = b"".join(
        b"%x\r\n%b\r\n" % (len(part), part) for part in (bodies[1][:50], bodies[1][50:])
    )
    head = b"POST /v1/predict HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    requests.append(head + chunks + b"0\r\n\r\n")
    expecting = requests[0].replace(b"Host", b"Expect: 100-continue\r\nHost")
    swap = post("/v1/model", b'{"name": "a"}').replace(
        b"Host", f"Authorization: Bearer {TOKEN}\r\nHost".encode()
    )
    paths = ("/live", "/ready", "/metrics", "/v1/model", "/openapi.json", "/", "/page/main.js")
    pipelined = b"GET /live HTTP/1.1\r\nHost: a\r\n\r\n" * 3
    return [*requests, expecting, swap, *map(get, paths), pipelined]


def mutate(chance, seeds):
    """Return a valid request with one to four faults."""
    request = bytearray(seeds[chance.integers(len(seeds))])
    for _ in range(chance.integers(1, 5)):
        if request:
            request = MUTATIONS[chance.integers(len(MUTATIONS))](chance, request, seeds)
    return bytes(request)


def flip(chance, request, _seeds):
    """Flip a bit, more often in the header."""
    end = request.find(b"\r\n\r\n") if chance.random() < 0.6 else len(request)
    request[chance.integers(max(end, 1))] ^= 1 << chance.integers(8)
    return request


def cut_out(chance, request, _seeds):
    first = chance.integers(len(request))
    del request[first : first + chance.integers(1, 40)]
    return request


def cut_short(chance, request, _seeds):
    return request[: chance.integers(len(request))]


def double(chance, request, _seeds):
    first = chance.integers(len(request))
    part = request[first : first + chance.integers(1, 200)]
    return request[:first] + part * int(chance.integers(2, 30)) + request[first:]


def splice(chance, request, seeds):
    other = seeds[chance.integers(len(seeds))]
    return request[: chance.integers(len(request))] + other[chance.integers(len(other)) :]


def put_bytes(chance, request, _seeds):
    first = chance.integers(len(request))
    return request[:first] + chance.bytes(chance.integers(1, 30)) + request[first:]


def put_word(chance, request, _seeds):
    """Replace a word of the header by one that breaks some servers."""
    words = list(re.finditer(rb"[^\s:?&=]+", request[: request.find(b"\r\n\r\n")]))
    if not words:
        return request
    word = words[chance.integers(len(words))]
    return request[: word.start()] + WORDS[chance.integers(len(WORDS))] + request[word.end() :]


MUTATIONS = (flip, flip, cut_out, cut_short, double, splice, put_bytes, put_word, put_word)
WORDS = (
    b"0", b"-1", b"99999999999999999999", b"1e999", b"nan", b"inf", b"0x10", b"%00", b"%ff%fe",
    b"\r\n\r\n", b"../../etc/passwd", b"chunked", b"gzip, chunked", b"Transfer-Encoding",
    b"Content-Length", b"CONNECT", b"TRACE", b"OPTIONS", b"HTTP/1.0", b"HTTP/9.9", b"websocket",
    b"Upgrade", b"keep-alive", b"a" * 70_000, b"[::1", b"http://a/", b"*", b"100-continue",
)  # fmt: skip


async def send(port, request):
    """Return the first status, "closed" for none, "silent" for nothing in 15 seconds."""
    reader, writer = await asyncio.open_connection(HOST, port)
    try:
        async with asyncio.timeout(15):
            writer.write(request)
            writer.write_eof()
            answer = await reader.read()
    except TimeoutError:
        return "silent"
    except OSError:
        return "closed"
    finally:
        writer.close()
    statuses = re.findall(rb"(?:^|\r\n\r\n|\})HTTP/1\.1 (\d\d\d)", answer)
    final = [status.decode() for status in statuses if status != b"100"]
    return "500" if "500" in final else final[0] if final else "closed"


if __name__ == "__main__":
    main()
