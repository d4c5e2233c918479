"""The server: a socket, its connections, and an end without a request lost.

Told to stop, it takes no more connections and lets no more strips in, answers what it has
accepted, and ends. Told twice, it ends at once.
"""

import asyncio
import gc
import json
import signal
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from steelseg.errors import ConfigError
from steelseg.serving.app import App
from steelseg.serving.connection import Connection, Held
from steelseg.serving.messages import Limits, Refusal
from steelseg.serving.model import Model

# Connections that the system keeps for a server that is busy for a moment.
_BACKLOG = 2048

# One strip in the network, one before it and one behind it. More would keep no core busier, and
# everybody waiting longer.
_FEWEST_PLACES = 3


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
        overrides: Settings to change; they hold for models that take over too.
        folds: Folds of the run or bundle to use; None uses every trained one.
        host: Address to listen on.
        port: Port to listen on; 0 takes a free one.
        queue: Strips that are predicted or wait for it; None takes twice those that the model
            computes at the same time, and 3 at least.
        limits: What else a client may ask for.
        admin_token: Who knows it may change the model; None lets nobody.
        models: Folder of the models that may take over; None lets `source` be read again alone.

    Raises:
        SteelsegError: as `Predictor`, or if the port cannot be had.
    """
    model = Model(source, overrides, folds=folds)
    places = queue or max(_FEWEST_PLACES, 2 * model.batch_size)
    # What is loaded stays. A full collection walks its 400,000 objects for a fifth of a second,
    # in which nobody is answered.
    gc.collect()
    gc.freeze()
    load = partial(load_named, source=source, models=models, overrides=overrides, folds=folds)
    try:
        asyncio.run(
            _until_signal(
                partial(
                    serve,
                    model,
                    host=host,
                    port=port,
                    limits=replace(limits or Limits(), queue=places),
                    load_model=load,
                    admin_token=admin_token,
                    started=lambda url: print(f"serving {source} at {url}", flush=True),
                )
            )
        )
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
    """Load what the body of `POST /v1/model` names.

    Args:
        body: Empty reads `source` again; {"name": "NAME"} reads a folder of `models`.
        source: What the server was started with.
        models: Folder of the models that may take over.
        overrides: Settings to change.
        folds: Folds to use.

    Raises:
        Refusal: if the body names no model that may be served.
        SteelsegError: if the model cannot be used.
    """
    if not body:
        return Model(source, overrides, folds=folds)
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        content = None
    name = content.get("name") if isinstance(content, dict) and len(content) == 1 else None
    if not isinstance(name, str):
        raise Refusal(400, 'Expected no body, or JSON as {"name": "FOLDER"}.')
    if models is None:
        raise Refusal(403, "This server was started without --models.")
    # One of the names that are there, so no text of the client becomes a path.
    held = {path.name: path for path in models.iterdir() if path.is_dir() and not path.is_symlink()}
    if name not in held:
        raise Refusal(404, f"There is no model {name[:60]!r}.")
    return Model(held[name], overrides, folds=folds)


async def _until_signal(run: Callable[..., Coroutine[None, None, None]]) -> None:
    """Run a server, and stop it when the process is asked to end."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    server = asyncio.create_task(run(stop=stop))

    def ask() -> None:
        if stop.is_set():
            server.cancel()
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ask)
    await server


async def serve(
    model: Model,
    *,
    host: str,
    port: int,
    limits: Limits,
    load_model: Callable[[bytes], Model],
    admin_token: str | None,
    started: Callable[[str], None],
    stop: asyncio.Event,
) -> None:
    """Serve until `stop` is set and what was accepted is answered.

    Args:
        model: What answers first.
        host: Address to listen on.
        port: Port to listen on; 0 takes a free one.
        limits: What a client may ask for.
        load_model: Loads what the body of `POST /v1/model` names.
        admin_token: Who knows it may change the model; None lets nobody.
        started: Told the address once it can be reached.
        stop: Ends the server.

    Raises:
        ConfigError: if the address cannot be had.
    """
    app = App(model, limits=limits, load_model=load_model, admin_token=admin_token)
    clients: dict[asyncio.Task[None], Connection] = {}
    held = Held(limits.held_bytes)

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(clients) >= limits.max_connections:
            writer.transport.abort()
            return
        task = asyncio.current_task()
        assert task is not None
        connection = Connection(
            reader,
            writer,
            app.answer,
            limits=limits,
            held=held,
            stamp=app.stamp,
            count=app.count,
        )
        clients[task] = connection
        try:
            await connection.serve()
        finally:
            del clients[task]

    app.metrics.gauge("connections", "Connections that are open.", lambda: len(clients))
    try:
        server = await asyncio.start_server(accept, host, port, backlog=_BACKLOG)
    except OSError as error:
        app.stop()
        reason = (error.strerror or str(error)).rstrip(".")
        raise ConfigError(
            f"Cannot listen on {host} port {port}: {reason}. Give another --port or --host."
        ) from None
    address = server.sockets[0].getsockname()
    started(f"http://{host if ':' not in host else f'[{host}]'}:{address[1]}")
    try:
        await stop.wait()
        server.close()
        app.drain()
        for connection in clients.values():
            connection.stop()
        if clients:
            await asyncio.wait(list(clients), timeout=limits.drain_time)
    finally:
        server.close()
        for task in clients:
            task.cancel()
        await asyncio.gather(*clients, return_exceptions=True)
        app.stop()
