"""Deliver each line as an HTTP POST.

Only the given URL is called: redirects are not followed, and proxies in the environment are
ignored. Any 2xx status confirms a line. 400, 413 and 422 reject it for good; after anything else it
is sent again. `Idempotency-Key` is the SHA-256 of the line, by which a receiver can recognise a
duplicate. STEELSEG_WEBHOOK_TOKEN is sent as a bearer token.
"""

import hashlib
import os
import ssl
from http.client import HTTPConnection, HTTPException, HTTPSConnection

from steelseg.errors import ConfigError
from steelseg.watch.delivery import NotConfirmed, Send, split_url

TOKEN = "STEELSEG_WEBHOOK_TOKEN"

_SECONDS = 10.0
_NEVER = (400, 413, 422)
# Bytes read of the body of an answer, which is ignored.
_MOST_BYTES = 65536


def webhook(url: str, *, seconds: float = _SECONDS) -> Send:
    """Return a function that posts a line.

    Args:
        url: An http:// or https:// URL, with or without path and query.
        seconds: Timeout of the connection, and of each read.

    Raises:
        ConfigError: if it is not such a URL.
    """
    example = "https://mes.example/strips"
    parts = split_url(
        url, option="--webhook", schemes=("http", "https"), example=example, secret=TOKEN
    )
    if not url.isascii() or " " in url:
        raise ConfigError(f"--webhook {url!r} is not a URL such as {example}.")
    host, path = (
        str(parts.hostname),
        (parts.path or "/") + (f"?{parts.query}" if parts.query else ""),
    )
    token = os.environ.get(TOKEN)
    if token is not None and not (token.isascii() and token.isprintable()):
        raise ConfigError(f"{TOKEN} has characters that an HTTP header cannot contain.")
    authorization = {} if token is None else {"Authorization": f"Bearer {token}"}

    def connect() -> HTTPConnection:
        if parts.scheme == "https":
            context = ssl.create_default_context()
            return HTTPSConnection(host, parts.port, timeout=seconds, context=context)
        return HTTPConnection(host, parts.port, timeout=seconds)

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
            raise NotConfirmed(
                f"{host} does not answer ({error or type(error).__name__})"
            ) from None
        finally:
            connection.close()
        if 200 <= response.status < 300:
            return
        moved = " with a redirect, which is not followed" if response.status // 100 == 3 else ""
        raise NotConfirmed(
            f"{host} answers {response.status}{moved}", is_permanent=response.status in _NEVER
        )

    return send
