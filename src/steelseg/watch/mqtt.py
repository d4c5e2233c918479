"""A receiver that takes each line as an MQTT message: the extra `mqtt`.

Messages are published with quality of service 1: the broker confirms each. User and password come
from STEELSEG_MQTT_USER and STEELSEG_MQTT_PASSWORD; mqtts:// speaks TLS.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any
from urllib.parse import urlsplit

from steelseg.errors import ConfigError
from steelseg.watch.delivery import NotTaken, Send

_SECONDS = 10.0
_PORTS = {"mqtt": 1883, "mqtts": 8883}


@contextmanager
def mqtt(url: str, *, seconds: float = _SECONDS) -> Iterator[Send]:
    """Publish lines; the connection is made with the first one and ends with the `with` block.

    Args:
        url: mqtt://HOST[:PORT]/TOPIC or mqtts://HOST[:PORT]/TOPIC.
        seconds: How long the broker may take to confirm.

    Yields:
        What publishes a line.

    Raises:
        ConfigError: if the URL is none of these, or paho-mqtt is not installed.
    """
    scheme, host, port, topic = _parts(url)
    paho = _need()
    held: list[Any] = []

    def connect() -> Any:
        client = paho.Client(paho.CallbackAPIVersion.VERSION2)
        client.connect_timeout = seconds
        if user := os.environ.get("STEELSEG_MQTT_USER"):
            client.username_pw_set(user, os.environ.get("STEELSEG_MQTT_PASSWORD"))
        if scheme == "mqtts":
            client.tls_set()
        client.connect(host, port)
        client.loop_start()
        return client

    def send(line: bytes) -> None:
        try:
            if not held:
                held.append(connect())
            message = held[0].publish(topic, line.rstrip(b"\n"), qos=1)
            message.wait_for_publish(seconds)
            is_taken = message.is_published()
        except (OSError, RuntimeError, ValueError) as error:
            _close(held)
            raise NotTaken(f"{host} does not answer ({error})") from None
        if not is_taken:
            _close(held)
            raise NotTaken(f"{host} does not confirm a message within {seconds:.0f} s")

    try:
        yield send
    finally:
        _close(held)


def _close(held: list[Any]) -> None:
    """End a connection, so that the next message makes a new one."""
    if held:
        client = held.pop()
        client.disconnect()
        client.loop_stop()


def _need() -> Any:
    """Import paho-mqtt, or raise ConfigError."""
    try:
        return import_module("paho.mqtt.client")
    except ModuleNotFoundError:
        raise ConfigError(
            "--mqtt needs paho-mqtt, which is not installed: pip install 'steelseg[mqtt]'."
        ) from None


def _parts(url: str) -> tuple[str, str, int, str]:
    """Scheme, host, port and topic, or raise ConfigError."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port, parts = None, None, urlsplit("")
    topic = parts.path[1:]
    if parts.scheme not in _PORTS or not host or not topic or set("+#?") & set(url):
        raise ConfigError(
            f"--mqtt {url!r} is not a URL such as mqtt://broker.example/line3/strips."
        )
    if parts.username is not None or parts.password is not None:
        raise ConfigError(
            "--mqtt: put no password into the URL, but into STEELSEG_MQTT_USER and "
            "STEELSEG_MQTT_PASSWORD."
        )
    return parts.scheme, host, port or _PORTS[parts.scheme], topic
