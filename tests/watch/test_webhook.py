import socket
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from steelseg.errors import ConfigError
from steelseg.watch.delivery import NotConfirmed
from steelseg.watch.webhook import TOKEN, webhook

LINE = b'{"image_id": "a.jpg"}\n'


@contextmanager
def receiver(status=200, headers=()):
    """Run a web server that answers every POST alike; gives its URL and what it got."""
    got = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            got.append((self.path, dict(self.headers), body))
            self.send_response(status)
            for name, value in headers:
                self.send_header(name, value)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", got
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_line_is_posted_as_it_is(monkeypatch):
    """With a key by which a receiver knows a line that comes twice, and the token."""
    monkeypatch.setenv(TOKEN, "secret")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with receiver() as (url, got):
        send = webhook(url + "/strips?line=3")
        send(LINE)
        send(LINE)

    (path, headers, body), (_, again, _) = got
    assert (path, body) == ("/strips?line=3", LINE)
    assert headers["Content-Type"] == "application/json"
    assert headers["Authorization"] == "Bearer secret"
    assert headers["Idempotency-Key"] == again["Idempotency-Key"]


@pytest.mark.parametrize(("status", "is_permanent"), [(500, False), (404, False), (422, True)])
def test_what_is_not_confirmed_is_not_taken(status, is_permanent):
    with (
        receiver(status) as (url, _),
        pytest.raises(NotConfirmed, match=f"answers {status}") as fault,
    ):
        webhook(url)(LINE)
    assert fault.value.is_permanent is is_permanent


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_not_followed(status):
    """Results, and the token, go to the host that was named and to no other."""
    with (
        receiver() as (elsewhere, stolen),
        receiver(status, [("Location", elsewhere)]) as (url, got),
        pytest.raises(NotConfirmed, match="which is not followed"),
    ):
        webhook(url)(LINE)
    assert len(got) == 1
    assert stolen == []


def test_a_host_that_is_down_or_silent_is_not_waited_for():
    """The line is tried again later, by who called."""
    with receiver() as (url, _):
        pass
    with pytest.raises(NotConfirmed, match="does not answer"):
        webhook(url)(LINE)

    with socket.create_server(("127.0.0.1", 0)) as silent:
        send = webhook(f"http://127.0.0.1:{silent.getsockname()[1]}", seconds=0.1)
        with pytest.raises(NotConfirmed, match="does not answer"):
            send(LINE)


@pytest.mark.parametrize(
    "url",
    [
        "ftp://a/b",
        "mes.example",
        "http://",
        "http://a:99999/",
        "http://a b/",
        "http://[",
        "file:///x",
    ],
)
def test_what_is_no_url_is_refused(url):
    with pytest.raises(ConfigError, match="is not a URL such as"):
        webhook(url)


def test_a_password_in_the_url_is_refused():
    """Every user of the machine sees the words of a command line."""
    with pytest.raises(ConfigError, match="do not put a password into the URL") as fault:
        webhook("https://me:hidden@mes.example/")
    assert "hidden" not in str(fault.value)
