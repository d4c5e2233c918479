"""Clients that are slow, wrong, too many, or send too much."""

import copy
import logging
import socket
import threading
import time
from contextlib import contextmanager, suppress

import cv2
import numpy as np
import pytest

HEAD = b"POST /v1/predict HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n"


@contextmanager
def connect(server, **options):
    """Open a socket to the server."""
    with socket.socket() as client:
        if size := options.get("receive_buffer"):
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)
        client.settimeout(20)
        client.connect(("127.0.0.1", server.port))
        yield client


def receive(client):
    """Everything until the server closes."""
    parts = []
    while part := client.recv(65536):
        parts.append(part)
    return b"".join(parts)


def receive_to_the_end(client):
    """Everything until the server closes or resets the connection."""
    parts = []
    with suppress(ConnectionError, TimeoutError):
        while part := client.recv(65536):
            parts.append(part)
    return b"".join(parts)


def receive_until(client, end):
    """Everything up to a text."""
    received = b""
    while end not in received:
        part = client.recv(65536)
        assert part, received
        received += part
    return received


@contextmanager
def busy(start, model, **limits):
    """Run a server with one place, which a strip holds until the block ends."""
    slow, begun, go = copy.copy(model), threading.Event(), threading.Event()

    def probs_of(images_nhwc):
        begun.set()
        assert go.wait(30)
        return model.probs_of(images_nhwc)

    slow.probs_of = probs_of
    with start(model=slow, queue=1, **limits) as server:
        replies = []
        ok, png = cv2.imencode(".png", np.zeros((32, 96), np.uint8))
        assert ok
        holder = threading.Thread(
            target=lambda: replies.append(server.ask("/v1/predict", png.tobytes()))
        )
        holder.start()
        assert begun.wait(30)
        try:
            yield server
        finally:
            go.set()
            holder.join(30)
            assert [reply.status for reply in replies] == [200]


def test_when_full_the_answer_comes_before_the_body(start, model):
    """The body of the strip is not sent at all; other paths are answered as usual."""
    with busy(start, model) as server, connect(server) as client:
        client.sendall(HEAD % 1_000_000)
        answer = receive(client)
        health = server.ask("/live")

    assert answer.startswith(b"HTTP/1.1 429 Too Many Requests\r\n")
    assert b"retry-after: 1\r\n" in answer
    assert b"connection: close\r\n" in answer.lower()
    assert health.status == 200


def test_a_client_that_keeps_sending_when_full_gets_the_answer(start, model):
    """A server that closes with unread bytes resets the connection, and the answer is lost."""
    with busy(start, model) as server:
        for _ in range(20):
            with connect(server) as client:
                client.sendall(HEAD % 2_000_000 + bytes(2_000_000))
                assert receive(client).startswith(b"HTTP/1.1 429 ")


def test_a_slow_sender_holds_no_place(start, strips):
    """With one place, a strip goes through while another body is on its way."""
    with start(queue=1) as server, connect(server) as client:
        client.sendall(HEAD % 1000 + b"a")
        reply = server.ask("/v1/predict", next(iter(strips.values())))

        assert reply.status == 200


def drip(client, beginning):
    """Send a byte at a time until the server answers or closes; gives the answer and seconds."""
    begun = time.monotonic()
    client.sendall(beginning)
    client.settimeout(0.1)
    answer = None
    with suppress(ConnectionError):
        while answer is None:
            client.sendall(b"a")
            with suppress(TimeoutError):
                answer = client.recv(65536)
        answer += receive_to_the_end(client)
    return answer or b"", time.monotonic() - begun


@pytest.mark.parametrize("beginning", [b"POST /v1/predict HTTP/1.1\r\nX: ", b"G"], ids=str)
def test_a_slow_header_closes_the_connection(start, beginning):
    """However steadily the bytes come."""
    with start(header_time=0.5) as server, connect(server) as client:
        answer, seconds = drip(client, beginning)

        assert answer == b""
        assert 0.4 < seconds < 3


def test_a_slow_header_of_a_later_request_closes_the_connection(start):
    """The deadline is that of a request, not that of an idle connection."""
    with start(header_time=0.5) as server, connect(server) as client:
        client.sendall(b"GET /live HTTP/1.1\r\nHost: a\r\n\r\n")
        receive_until(client, b"}")
        time.sleep(0.8)
        answer, seconds = drip(client, b"GET /live HTTP/1.1\r\nX: ")

        assert answer == b""
        assert 0.4 < seconds < 3


def test_a_slow_body_is_refused(start):
    """However steadily the bytes come; the client reads why."""
    with start(body_time=0.5, linger_time=0.2) as server, connect(server) as client:
        answer, seconds = drip(client, HEAD % 100_000)

        assert answer.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
        assert b"too slowly" in answer
        assert 0.4 < seconds < 3


def test_a_client_that_stops_sending_is_cut(start):
    """In the body, and before it has sent anything."""
    with start(header_time=0.3, body_time=0.3, linger_time=0.1) as server:
        with connect(server) as client:
            client.sendall(HEAD % 1000 + b"a")
            assert receive(client).startswith(b"HTTP/1.1 408 ")
        with connect(server) as silent:
            assert receive_to_the_end(silent) == b""


def test_a_client_that_does_not_read_is_cut(start, model):
    """Its response is dropped, and its place is free."""
    large = copy.copy(model)
    large.probs_of = lambda images_nhwc: np.zeros((1, 2, *images_nhwc.shape[1:3]), np.float32)
    strip = cv2.imencode(".png", np.zeros((2600, 3000), np.uint8))[1].tobytes()
    request = HEAD.replace(b"predict", b"predict?answer=probabilities") % len(strip) + strip
    with start(model=large, write_time=0.5, queue=1) as server:
        with connect(server, receive_buffer=4096) as client:
            client.sendall(request)
            receive_until(client, b"HTTP/1.1 200")
            time.sleep(1.5)
            assert len(receive(client)) < 2 * 2600 * 3000
        assert b"steelseg_connections 1.0\n" in server.ask("/metrics").body


def test_a_long_body_is_refused_by_its_header(start):
    """Nothing of it is read."""
    with start(max_bytes=1000) as server, connect(server) as client:
        client.sendall(HEAD % 1001)
        answer = receive(client)

    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"at most 1000 bytes" in answer


def test_a_long_body_without_a_length_is_refused_while_it_comes(start):
    """Chunks need not say how many there will be."""
    chunk = b"200\r\n" + bytes(512) + b"\r\n"
    with start(max_bytes=1000) as server, connect(server) as client:
        client.sendall(
            b"POST /v1/predict HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        client.sendall(chunk + chunk)

        assert receive(client).startswith(b"HTTP/1.1 413 ")


def test_all_bodies_together_are_limited(start):
    """A thousand clients cannot fill the memory."""
    with start(max_body_bytes=1000, linger_time=0.1) as server:
        with connect(server) as first, connect(server) as second:
            first.sendall(HEAD % 2000 + bytes(900))
            time.sleep(0.2)
            second.sendall(HEAD % 2000 + bytes(900))
            assert receive(second).startswith(b"HTTP/1.1 503 ")
        assert server.ask("/v1/predict", b"GIF89a").status == 415


def test_a_body_in_chunks_is_read(server, strips):
    """Clients send it so if they do not know its length."""
    content = next(iter(strips.values()))
    reply = server.ask("/v1/predict", iter([content[:100], content[100:]]))

    assert reply.json["classes"] == server.ask("/v1/predict", content).json["classes"]


def test_a_client_that_asks_first_is_told_to_send(server, strips):
    """Clients such as curl wait for this before it sends a long body."""
    content = next(iter(strips.values()))
    head = (HEAD % len(content)).replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n")
    with connect(server) as client:
        client.sendall(head)
        assert receive_until(client, b"\r\n\r\n").startswith(b"HTTP/1.1 100 ")
        client.sendall(content)
        assert receive_until(client, b"\r\n\r\n").startswith(b"HTTP/1.1 200 OK\r\n")


def test_requests_follow_each_other_on_one_connection(server):
    """Even if they are sent before the first is answered."""
    with connect(server) as client:
        client.sendall(b"GET /live HTTP/1.1\r\nHost: a\r\n\r\n" * 3)
        client.sendall(b"GET /ready HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        answer = receive(client)

    assert answer.count(b"HTTP/1.1 200 OK") == 4
    assert answer.endswith(b'{"ready":true}')


def test_time_between_requests_is_not_taken_from_the_next(start):
    """A connection that was idle for longer than a request may take gives it its whole time."""
    with start(header_time=0.3, body_time=0.3) as server, connect(server) as client:
        client.sendall(b"GET /live HTTP/1.1\r\nHost: a\r\n\r\n")
        receive_until(client, b"}")
        time.sleep(0.6)
        client.sendall(HEAD % 4 + b"no")
        time.sleep(0.1)
        client.sendall(b"ne")
        assert receive_until(client, b"}").startswith(b"HTTP/1.1 415 ")


@pytest.mark.parametrize(
    "sent",
    [
        b"nonsense\r\n\r\n",
        b"GET /live HTTP/1.1\r\n\r\n",
        b"GET /live\x00 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST /v1/predict HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        b"POST /v1/predict HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 2\r\n\r\n",
        b"GET /live HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 20_000,
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(20),
    ],
    ids=lambda value: str(value)[:40],
)
def test_malformed_http_is_answered_with_400(server, sent):
    """By uvicorn, which closes the connection."""
    with connect(server) as client:
        client.sendall(sent)
        assert receive(client).startswith(b"HTTP/1.1 400 Bad Request\r\n")


def test_malformed_chunks_end_the_request(server, caplog):
    """The server has not failed, so nothing is logged."""
    chunked = b"POST /v1/predict HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    with connect(server) as client:
        client.sendall(chunked + b"5\r\n12345\r\n")
        time.sleep(0.1)
        client.sendall(b"no chunk\r\n")
        assert receive(client).startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert server.ask("/live").status == 200
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (HEAD % 5 + b"12345", 415),
        (b"POST /v1/predict HTTP/1.1\r\nHost: a\r\n\r\n", 415),
        (b"GET http://[/ HTTP/1.1\r\nHost: a\r\n\r\n", 404),
        (b"GET /live HTTP/1.0\r\n\r\n", 200),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_client_that_only_stops_sending_is_answered(server, model, sent, status):
    """Some clients close their side of the connection at the end of the request."""
    with connect(server) as client:
        client.sendall(sent)
        client.shutdown(socket.SHUT_WR)
        answer = receive(client)

    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert b"x-model: " + model.sha256.encode() in answer


def test_clients_that_leave_early_leave_nothing(start):
    """With half a header, half a body, and a response that nobody waits for."""
    with start() as server:
        for sent in (b"", b"GET /li", HEAD % 100, HEAD % 5 + b"12345"):
            with connect(server) as client:
                client.sendall(sent)
        deadline = time.monotonic() + 5
        while b"steelseg_connections 1.0\n" not in server.ask("/metrics").body:
            assert time.monotonic() < deadline
        assert server.ask("/live").status == 200


def test_more_connections_than_allowed_are_closed(start):
    """Those that are open stay."""
    with start(max_connections=2) as server, connect(server) as first, connect(server) as second:
        time.sleep(0.1)
        with connect(server) as third:
            assert receive_to_the_end(third) == b""
        for client in (first, second):
            client.sendall(b"GET /live HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            assert receive(client).startswith(b"HTTP/1.1 200 ")


def test_stopping_loses_nothing_that_was_accepted(start, model):
    """The strip in progress is answered; idle connections are closed."""
    with busy(start, model) as server, connect(server) as idle:
        idle.sendall(b"GET /live HTTP/1.1\r\nHost: a\r\n\r\n")
        receive_until(idle, b"}")
        server.stop()
        assert receive(idle) == b""
        with pytest.raises(ConnectionError), connect(server):
            pass


def test_stopping_twice_does_not_wait(start, monkeypatch, caplog):
    """Not even for a request whose body still arrives."""
    monkeypatch.setattr(logging.getLogger("uvicorn.error"), "disabled", False)
    with start(body_time=60) as server, connect(server) as client:
        client.sendall(HEAD % 1000 + b"a")
        time.sleep(0.2)
        begun = time.monotonic()
        server.stop()
        server.stop()
        server.join()
        assert time.monotonic() - begun < 5
    assert caplog.text == ""


def test_a_request_that_takes_too_long_to_stop_is_dropped(start):
    """The server ends after `drain_time`."""
    with start(body_time=60, drain_time=1) as server, connect(server) as client:
        client.sendall(HEAD % 1000 + b"a")
        time.sleep(0.2)
        begun = time.monotonic()
        server.stop()
        server.join()
        assert 0.9 < time.monotonic() - begun < 5
        assert b" 200 " not in receive_to_the_end(client)
