"""The command that serves a model over HTTP: serve."""

import argparse

from steelseg.cli.arguments import Commands, add_command, add_fold, add_model, integer, path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path


def add_serve(commands: Commands) -> None:
    """Add `steelseg serve`."""
    parser = add_command(commands, _run_serve, "serve predictions over HTTP, with a web page")
    add_model(parser, "source")
    add_fold(parser)
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on; default %(default)s"
    )
    parser.add_argument(
        "--port",
        type=integer(0, 65535),
        default=8000,
        help="port to listen on; default %(default)s; 0 takes a free one",
    )
    parser.add_argument(
        "--queue",
        type=integer(1),
        metavar="N",
        help="maximum number of strips in progress or waiting; further requests are rejected; "
        "default 3, or more if more are computed concurrently",
    )
    parser.add_argument(
        "--max-pixels",
        type=integer(1),
        metavar="N",
        help="largest image in pixels; default 8,000,000",
    )
    parser.add_argument(
        "--max-bytes",
        type=integer(1),
        metavar="N",
        help="largest file in bytes; default 33,554,432",
    )
    parser.add_argument(
        "--admin-token-file",
        type=path,
        metavar="FILE",
        help="a file with a secret token; clients that send it may change the model",
    )
    parser.add_argument(
        "--models",
        type=path,
        metavar="DIR",
        help="a folder of runs and bundles to switch to; default only reload RUN",
    )


def _run_serve(args: argparse.Namespace) -> int | None:
    """Serve predictions over HTTP until SIGTERM or Ctrl-C, with a web page at /.

    POST /v1/predict takes the bytes of an image file and returns its defects. /openapi.json lists
    the other paths. When stopped, it completes the accepted requests and exits with 0.

    Reads  RUN/fold_K/best_model.safetensors, or the bundle

    Example: steelseg serve outputs/first
             steelseg serve bundle --host 0.0.0.0 --port 8080 data.pixel_mm=0.4
             curl --data-binary @strip.jpg http://127.0.0.1:8000/v1/predict
    """
    from steelseg.api import serve

    chosen = {"max_pixels": args.max_pixels, "max_bytes": args.max_bytes}
    serve(
        args.source,
        args.settings,
        folds=args.fold,
        host=args.host,
        port=args.port,
        queue=args.queue,
        admin_token=_read_token(args.admin_token_file),
        models=args.models,
        **{name: value for name, value in chosen.items() if value is not None},
    )
    return None


def _read_token(file: "Path | None") -> str | None:
    """Read the token from a file; return None without a file."""
    from steelseg.errors import ConfigError

    if file is None:
        return None
    try:
        token = file.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        token = ""
    if len(token) < 16 or not token.isprintable():
        raise ConfigError(f"{file} must contain a token of at least 16 printable ASCII characters.")
    return token


COMMANDS = (add_serve,)
