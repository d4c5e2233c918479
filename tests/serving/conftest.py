"""Two ways to ask the application: without a socket, and through a real server in a thread."""

import asyncio
import http.client
import json
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import pytest
from starlette.datastructures import Headers
from starlette.testclient import TestClient

from steelseg.serving.app import create_app
from steelseg.serving.limits import Limits
from steelseg.serving.model import Model
from steelseg.serving.server import Server, listen, load_named
from steelseg.serving.service import Service

TOKEN = "a secret of the tests"


@dataclass
class Reply:
    """A response."""

    status: int
    headers: Headers
    body: bytes

    @property
    def json(self):
        return json.loads(self.body)


class InProcess:
    """The application without a server."""

    def __init__(self, service):
        app = create_app(service, admin_token=TOKEN)
        self._client = TestClient(app, raise_server_exceptions=False)

    def ask(self, path, body=None, *, method=None, headers=None):
        """Call the application."""
        method = method or ("GET" if body is None else "POST")
        headers = {"Accept-Encoding": "identity", **(headers or {})}
        # Raw bytes: the client would unpack gzip.
        with self._client.stream(method, path, content=body, headers=headers) as response:
            content = b"".join(response.iter_raw())
        return Reply(response.status_code, Headers(dict(response.headers)), content)


class Running:
    """A server that runs in a thread until it is stopped."""

    def __init__(self, model, load_model, limits):
        self._server = Server(model, limits, load_model, admin_token=TOKEN)
        listener = listen("127.0.0.1", 0)
        self.port = listener.getsockname()[1]
        run = partial(asyncio.run, self._server.run_on(listener))
        self._thread = threading.Thread(target=run)
        self._thread.start()

    def stop(self):
        """Ask it to end, as a signal does; `join` waits until it has."""
        self._server.stop()

    @property
    def is_stopping(self):
        return self._server.should_exit

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
            return Reply(response.status, Headers(dict(response.getheaders())), response.read())
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
        server = Running(model, load_model or load, Limits(**limits))
        try:
            yield server
        finally:
            if not server.is_stopping:
                server.stop()
            server.join()

    return run


@pytest.fixture(scope="module")
def server(start):
    """Give a server with the default limits; tests leave it as it is."""
    with start() as running:
        yield running


@pytest.fixture
def make_app(trained_run, model):
    """Give a function that makes an application of its own, to ask without a server."""
    services = []

    def make(model=model, **limits):
        load = partial(load_named, source=trained_run, models=None, overrides=(), folds=None)
        services.append(Service(model, limits=Limits(**limits), load_model=load))
        return InProcess(services[-1])

    yield make
    for service in services:
        service.close()


@pytest.fixture(scope="module")
def app(model, trained_run):
    """Give the application without a server; tests leave it as it is."""
    load = partial(load_named, source=trained_run, models=None, overrides=(), folds=None)
    service = Service(model, limits=Limits(), load_model=load)
    yield InProcess(service)
    service.close()


@pytest.fixture(scope="session")
def strips(trained_run):
    """Give the bytes of the strips that the run has not seen, by name."""
    folder = trained_run.parent / "input" / "test_images"
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
