"""Deliver each line as an MQTT message; needs the extra `mqtt`.

Messages are published with quality of service 1, so the broker confirms each. User and password
come from STEELSEG_MQTT_USER and STEELSEG_MQTT_PASSWORD; mqtts:// uses TLS.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from steelseg.errors import ConfigError
from steelseg.watch.delivery import NotConfirmed, Send, split_url

_SECONDS = 10.0
_PORTS = {"mqtt": 1883, "mqtts": 8883}


@contextmanager
def mqtt(url: str, *, seconds: float = _SECONDS) -> Iterator[Send]:
    """Publish lines over a connection that opens with the first line and closes with the block.

    Args:
        url: mqtt://HOST[:PORT]/TOPIC or mqtts://HOST[:PORT]/TOPIC.
        seconds: Seconds that the broker has to confirm a message.

    Yields:
        A function that publishes a line.

    Raises:
        ConfigError: if it is not such a URL, or paho-mqtt is not installed.
    """
    example = "mqtt://broker.example/line3/strips"
    secret = "STEELSEG_MQTT_USER and STEELSEG_MQTT_PASSWORD"
    parts = split_url(url, option="--mqtt", schemes=_PORTS, example=example, secret=secret)
    host, topic = str(parts.hostname), parts.path[1:]
    # + and # are wildcards in topics, ? begins the query of a URL.
    if not topic or set("+#?") & set(url):
        raise ConfigError(f"--mqtt {url!r} is not a URL such as {example}.")
    paho = _need()
    held: list[Any] = []

    def connect() -> Any:
        client = paho.Client(paho.CallbackAPIVersion.VERSION2)
        client.connect_timeout = seconds
        if user := os.environ.get("STEELSEG_MQTT_USER"):
            client.username_pw_set(user, os.environ.get("STEELSEG_MQTT_PASSWORD"))
        if parts.scheme == "mqtts":
            client.tls_set()
        client.connect(host, parts.port or _PORTS[parts.scheme])
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
            raise NotConfirmed(f"{host} does not answer ({error})") from None
        if not is_taken:
            _close(held)
            raise NotConfirmed(f"{host} does not confirm a message within {seconds:.0f} s")

    try:
        yield send
    finally:
        _close(held)


def _close(held: list[Any]) -> None:
    """Close the connection, so that the next message opens a new one."""
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
