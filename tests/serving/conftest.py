"""A real server in a thread on a free port, and a client that needs nothing but a socket."""

import asyncio
import http.client
import json
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial

import pytest

from steelseg.serving.messages import Limits
from steelseg.serving.model import Model
from steelseg.serving.server import load_named, serve

TOKEN = "a secret of the tests"


@dataclass
class Reply:
    """What came back."""

    status: int
    headers: dict
    body: bytes

    @property
    def json(self):
        return json.loads(self.body)


class Server:
    """A server that runs in a thread until it is stopped."""

    def __init__(self, model, load_model, limits):
        self.model = model
        self._started = threading.Event()
        self._limits = limits
        self._load_model = load_model
        self._error = None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))
        self._thread.start()
        assert self._started.wait(30)

    async def _serve(self):
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        try:
            await serve(
                self.model,
                host="127.0.0.1",
                port=0,
                limits=self._limits,
                load_model=self._load_model,
                admin_token=TOKEN,
                started=self._take_address,
                stop=self._stop,
            )
        finally:
            self._started.set()

    def _take_address(self, url):
        self.port = int(url.rpartition(":")[2])
        self._started.set()

    def stop(self):
        """Ask it to end, if it has not; `join` waits until it has."""
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._stop.set)

    def join(self):
        self._thread.join(30)
        assert not self._thread.is_alive()

    def ask(self, path, body=None, *, method=None, headers=None):
        """Send one request on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            words = method or ("GET" if body is None else "POST")
            connection.request(words, path, body=body, headers=headers or {})
            response = connection.getresponse()
            return Reply(response.status, dict(response.getheaders()), response.read())
        finally:
            connection.close()


@pytest.fixture(scope="session")
def model(trained_run):
    """Give the model of the run, with a threshold that its masks have two sides of."""
    return Model(trained_run, ["postprocess.threshold=0.5"])


@pytest.fixture(scope="session")
def start(trained_run, model):
    """Give a context manager that runs a server with some limits."""

    @contextmanager
    def run(load_model=None, models=None, model=model, **limits):
        load = partial(load_named, source=trained_run, models=models, overrides=(), folds=None)
        server = Server(model, load_model or load, Limits(**limits))
        try:
            yield server
        finally:
            server.stop()
            server.join()

    return run


@pytest.fixture(scope="module")
def server(start):
    """Give a server with the default limits; tests leave it as it is."""
    with start() as running:
        yield running


@pytest.fixture(scope="session")
def strips(trained_run):
    """Give the bytes of the strips that the run has not seen, by name."""
    folder = trained_run.parent / "input" / "test_images"
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
