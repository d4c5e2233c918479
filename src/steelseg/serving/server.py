"""Run the server: uvicorn on a socket, until it is told to stop.

When told to stop, it accepts no more connections, answers the requests it has accepted, and exits.
When told twice, it exits at once.
"""

import asyncio
import gc
import logging
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import cast

import uvicorn
from pydantic import ValidationError
from starlette.exceptions import HTTPException

from steelseg.errors import ConfigError
from steelseg.serving.app import create_app
from steelseg.serving.connection import Connection
from steelseg.serving.limits import Limits
from steelseg.serving.model import Model
from steelseg.serving.schemas import ModelChoice
from steelseg.serving.service import Service

# Connections that the system keeps for a server that is busy for a moment.
_BACKLOG = 2048

_HEADER_BYTES = 16 * 1024

# One strip in the network, one before it and one after it. More would not use the cores better, and
# every client would wait longer.
_MIN_QUEUE = 3


def run_server(
    source: Path,
    overrides: Sequence[str] = (),
    *,
    folds: Sequence[int] | None = None,
    host: str = "127.0.0.1",
    port: int = 8000,
    queue: int | None = None,
    limits: Limits | None = None,
    admin_token: str | None = None,
    models: Path | None = None,
) -> None:
    """Serve a model until SIGTERM or Ctrl-C.

    Args:
        source: A run folder, a bundle or a checkpoint.
        overrides: Settings to change, also of models that are loaded later.
        folds: Folds of the run or bundle to use; None uses every trained one.
        host: Address to listen on.
        port: Port to listen on; 0 takes a free one.
        queue: Strips in progress or waiting; None takes twice those that the model computes at
            the same time, and at least 3.
        limits: The other limits on requests.
        admin_token: Secret that allows a client to change the model; None allows nobody.
        models: Folder of the models to change to; None allows only to reload `source`.

    Raises:
        SteelsegError: as `Predictor`, or if the port is not available.
    """
    model = Model(source, overrides, folds=folds)
    limits = replace(limits or Limits(), queue=queue or max(_MIN_QUEUE, 2 * model.batch_size))
    load = partial(load_named, source=source, models=models, overrides=overrides, folds=folds)
    listener = listen(host, port)
    url = f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"
    # What is loaded stays. A full collection of its 400,000 objects takes a fifth of a second,
    # in which nobody is answered.
    gc.collect()
    gc.freeze()
    server = Server(model, limits, load, admin_token=admin_token)
    print(f"serving {source} at {url}", flush=True)
    try:
        asyncio.run(server.run_on(listener))
    finally:
        gc.unfreeze()


def load_named(
    body: bytes,
    *,
    source: Path,
    models: Path | None,
    overrides: Sequence[str],
    folds: Sequence[int] | None,
) -> Model:
    """Load the model that the body of `POST /v1/model` names.

    Args:
        body: Empty reloads `source`; {"name": "NAME"} loads a folder of `models`.
        source: What the server was started with.
        models: Folder of the models to change to.
        overrides: Settings to change.
        folds: Folds to use.

    Raises:
        HTTPException: if the body names no model that may be served.
        SteelsegError: if the model cannot be used.
    """
    if not body:
        return Model(source, overrides, folds=folds)
    try:
        name = ModelChoice.model_validate_json(body).name
    except ValidationError:
        raise HTTPException(400, 'Expected no body, or JSON as {"name": "FOLDER"}.') from None
    if models is None:
        raise HTTPException(403, "This server was started without --models.")
    # Compared with the names that exist, so no text of the client becomes a path.
    found = {
        path.name: path for path in models.iterdir() if path.is_dir() and not path.is_symlink()
    }
    if name not in found:
        raise HTTPException(404, f"There is no model {name[:60]!r}.")
    return Model(found[name], overrides, folds=folds)


def listen(host: str, port: int) -> socket.socket:
    """Open a socket that listens.

    Raises:
        ConfigError: if the address is not available.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, address = found[0]
        return socket.create_server(address, family=family, backlog=_BACKLOG)
    except OSError as error:
        reason = (error.strerror or str(error)).rstrip(".")
        raise ConfigError(
            f"Cannot listen on {host} port {port}: {reason}. Choose another --port or --host."
        ) from None


class Server(uvicorn.Server):
    """uvicorn's server for one model; unlike uvicorn, it ends with exit code 0 after a signal."""

    def __init__(
        self,
        model: Model,
        limits: Limits,
        load_model: Callable[[bytes], Model],
        *,
        admin_token: str | None,
    ) -> None:
        """Configure uvicorn; the arguments are those of `Service` and `create_app`."""
        self._service = Service(model, limits=limits, load_model=load_model)
        super().__init__(
            uvicorn.Config(
                create_app(self._service, admin_token=admin_token),
                http=cast("type[asyncio.Protocol]", partial(Connection, limits=limits)),
                ws="none",
                lifespan="off",
                log_config=None,
                log_level="error",
                access_log=False,
                server_header=False,
                proxy_headers=False,
                backlog=_BACKLOG,
                h11_max_incomplete_event_size=_HEADER_BYTES,
                timeout_keep_alive=limits.idle_time,
                timeout_graceful_shutdown=limits.drain_time,
            )
        )
        connections = self.server_state.connections
        self._service.metrics.connections.set_function(lambda: len(connections))

    async def run_on(self, listener: socket.socket) -> None:
        """Serve until `stop` is called or the process gets SIGTERM or SIGINT."""
        try:
            await self.serve(sockets=[listener])
        finally:
            self._service.close()

    def stop(self) -> None:
        """Stop once the accepted requests are answered; called again, stop at once."""
        if self.should_exit:
            self.force_exit = True
            # It would log each request that is cancelled now.
            logging.getLogger("uvicorn.error").disabled = True
        self.should_exit = True

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop on a signal; uvicorn would raise the signal again at the end."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                asyncio.get_running_loop().add_signal_handler(number, self.stop)
        yield
