"""A receiver that takes each line as an HTTP POST.

Only the URL that was given is called: a redirect is not followed, and no proxy of the environment
is asked. Any 2xx confirms a line. 400, 413 and 422 say that the line will never be taken;
everything else is tried again. `Idempotency-Key` is the SHA-256 of the line, by which a receiver
knows one that comes twice. The variable STEELSEG_WEBHOOK_TOKEN is sent as a bearer token.
"""

import hashlib
import os
import ssl
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from urllib.parse import urlsplit

from steelseg.errors import ConfigError
from steelseg.watch.delivery import NotTaken, Send

TOKEN = "STEELSEG_WEBHOOK_TOKEN"

_SECONDS = 10.0
_NEVER = (400, 413, 422)
# Of an answer that nobody reads.
_MOST_BYTES = 65536


def webhook(url: str, *, seconds: float = _SECONDS) -> Send:
    """Make what posts a line.

    Args:
        url: http:// or https://, with a host, and a path or query where there is one.
        seconds: How long the receiver may be silent.

    Raises:
        ConfigError: if the URL is none of these.
    """
    host, port, path, is_tls = _parts(url)
    token = os.environ.get(TOKEN)
    if token is not None and not (token.isascii() and token.isprintable()):
        raise ConfigError(f"{TOKEN} holds what no HTTP header can carry.")
    authorization = {} if token is None else {"Authorization": f"Bearer {token}"}

    def connect() -> HTTPConnection:
        if is_tls:
            context = ssl.create_default_context()
            return HTTPSConnection(host, port, timeout=seconds, context=context)
        return HTTPConnection(host, port, timeout=seconds)

    def send(line: bytes) -> None:
        headers = {
            "Content-Type": "application/json",
            "Idempotency-Key": hashlib.sha256(line).hexdigest(),
            **authorization,
        }
        connection = connect()
        try:
            connection.request("POST", path, body=line, headers=headers)
            response = connection.getresponse()
            response.read(_MOST_BYTES)
        except (OSError, HTTPException) as error:
            raise NotTaken(f"{host} does not answer ({error or type(error).__name__})") from None
        finally:
            connection.close()
        if 200 <= response.status < 300:
            return
        moved = (
            " and points elsewhere, which is not followed" if response.status // 100 == 3 else ""
        )
        raise NotTaken(
            f"{host} answers {response.status}{moved}", for_good=response.status in _NEVER
        )

    return send


def _parts(url: str) -> tuple[str, int | None, str, bool]:
    """Host, port, path and whether it is https, or raise ConfigError."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port, parts = None, None, urlsplit("")
    if parts.scheme not in ("http", "https") or not host or not url.isascii() or " " in url:
        raise ConfigError(f"--webhook {url!r} is not a URL such as https://mes.example/strips.")
    if parts.username is not None or parts.password is not None:
        raise ConfigError(f"--webhook: put no password into the URL, but a token into {TOKEN}.")
    query = f"?{parts.query}" if parts.query else ""
    return host, port, (parts.path or "/") + query, parts.scheme == "https"
