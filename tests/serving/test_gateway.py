"""Limits on request bodies, called as an ASGI server calls them."""

import asyncio
import json

import pytest
from fastapi import FastAPI, Request

from steelseg.serving.gateway import Gateway
from steelseg.serving.limits import Limits


@pytest.fixture
def counted():
    """Give the list that the gateway of `make` counts in."""
    return []


@pytest.fixture
def make(counted):
    """Give a function that wraps an application with two routes; only /read reads its body."""
    app = FastAPI()

    @app.post("/read")
    async def read(request: Request) -> int:
        return len(await request.body())

    @app.post("/ignore")
    async def ignore() -> str:
        return "ignored"

    def wrap(**limits):
        return Gateway(
            app,
            limits=Limits(**limits),
            headers=lambda: {"X-Model": "a hash"},
            count=lambda path, status: counted.append((path, status)),
        )

    return wrap


def post(gateway, path, parts, *, length=None):
    """Send a request in parts; return status, headers, body, and how many parts were taken.

    Those taken before the response began, and in all.

    After the parts nothing follows: the client is slow.
    """
    left = [{"type": "http.request", "body": part, "more_body": True} for part in parts]
    if length is not None and sum(map(len, parts)) == length:
        left[-1]["more_body"] = False
    headers = [(b"transfer-encoding", b"chunked")]
    if length is not None:
        headers = [(b"content-length", str(length).encode())]
    sent, taken = [], []

    async def receive():
        if not left:
            await asyncio.sleep(60)
        return left.pop(0)

    async def send(message):
        sent.append(message)
        taken.append(len(parts) - len(left))

    async def run():
        scope = {"type": "http", "method": "POST", "path": path, "query_string": b""}
        await gateway({**scope, "headers": headers, "root_path": ""}, receive, send)

    asyncio.run(run())
    start, *bodies = sent
    headers = {name.decode().lower(): value.decode() for name, value in start["headers"]}
    body = b"".join(message.get("body", b"") for message in bodies)
    assert not bodies[-1].get("more_body")
    return start["status"], headers, json.loads(body), (taken[0], taken[-1])


def test_a_body_within_the_limits_is_read(make, counted):
    """In any number of parts; the connection stays open."""
    status, headers, body, _ = post(make(max_bytes=10), "/read", [b"12345", b"67890"], length=10)

    assert (status, body) == (200, 10)
    assert headers["x-model"] == "a hash"
    assert "connection" not in headers
    assert counted == [("/read", 200)]


def test_a_long_body_is_refused_before_it_is_read(make):
    """If its length is known."""
    gateway = make(max_bytes=9, linger_time=0)
    status, headers, body, taken = post(gateway, "/read", [b"12345"], length=10)

    assert status == 413
    assert "at most 9 bytes" in body["detail"]
    assert headers["connection"] == "close"
    assert taken[0] == 0


def test_a_long_body_is_refused_while_it_is_read(make):
    """If its length is not known."""
    status, *_ = post(make(max_bytes=9, linger_time=0), "/read", [b"12345", b"67890"])

    assert status == 413


def test_a_slow_body_is_refused(make):
    """After `body_time`, which counts all its parts."""
    status, _, body, _ = post(make(body_time=0.1, linger_time=0), "/read", [b"1"], length=10)

    assert status == 408
    assert "0.1 s" in body["detail"]


def test_a_body_that_nobody_reads_is_discarded_after_the_response(make):
    """A close with unread bytes would reset the connection, and the client lose the response."""
    parts = [b"12345"] * 100
    status, headers, body, taken = post(make(linger_time=0.1), "/ignore", parts, length=1000)

    assert (status, body) == (200, "ignored")
    assert headers["connection"] == "close"
    assert taken == (0, 100)


def test_memory_of_bodies_is_released_after_each_request(make):
    """Whether it was read or refused."""
    gateway = make(max_body_bytes=15, linger_time=0)
    for _ in range(3):
        assert post(gateway, "/read", [b"1234567890"], length=10)[0] == 200
        assert post(gateway, "/read", [b"12345", b"12345678901"], length=16)[0] == 503
