import socket
import struct
import sys
import threading
from contextlib import contextmanager

import pytest

from steelseg.errors import ConfigError
from steelseg.watch.delivery import NotConfirmed
from steelseg.watch.mqtt import mqtt

LINE = b'{"image_id": "a.jpg"}\n'


def read_packet(file):
    """Read one packet: its first byte and its body."""
    first = file.read(1)
    if not first:
        return None, b""
    length, shift = 0, 0
    while True:
        (byte,) = file.read(1)
        length += (byte & 127) << shift
        shift += 7
        if byte < 128:
            return first[0], file.read(length)


@contextmanager
def broker(*, confirm=True):
    """Run as much of an MQTT broker as one publisher needs; gives its port and the messages."""
    messages = []
    server = socket.create_server(("127.0.0.1", 0))

    def serve(connection):
        with connection, connection.makefile("rb") as file:
            while True:
                kind, body = read_packet(file)
                if kind is None or kind >> 4 == 14:
                    return
                if kind >> 4 == 1:
                    connection.sendall(b"\x20\x02\x00\x00")
                if kind >> 4 == 3:
                    (length,) = struct.unpack_from(">H", body)
                    place = 2 + length + 2
                    messages.append((body[2 : 2 + length].decode(), kind >> 1 & 3, body[place:]))
                    if confirm:
                        connection.sendall(b"\x40\x02" + body[2 + length : place])

    def accept():
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            serve(connection)

    thread = threading.Thread(target=accept)
    thread.start()
    try:
        yield server.getsockname()[1], messages
    finally:
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        thread.join(5)


def test_a_line_is_published_and_confirmed():
    """With quality of service 1, without the line's end."""
    pytest.importorskip("paho.mqtt.client")
    with (
        broker() as (port, messages),
        mqtt(f"mqtt://127.0.0.1:{port}/line3/strips", seconds=5) as send,
    ):
        send(LINE)
        send(LINE)

    assert messages == [("line3/strips", 1, LINE.rstrip())] * 2


def test_what_is_not_confirmed_is_not_taken():
    """By a broker that is down, or takes messages and says nothing."""
    pytest.importorskip("paho.mqtt.client")
    with (
        broker(confirm=False) as (port, _),
        mqtt(f"mqtt://127.0.0.1:{port}/strips", seconds=0.2) as send,
        pytest.raises(NotConfirmed, match="does not confirm"),
    ):
        send(LINE)
    with (
        mqtt(f"mqtt://127.0.0.1:{port}/strips", seconds=1) as send,
        pytest.raises(NotConfirmed, match="does not answer"),
    ):
        send(LINE)


@pytest.mark.parametrize(
    "url", ["http://a/b", "mqtt://a", "mqtt://a/", "mqtt:///t", "mqtt://a/t/#", "mqtt://a:x/t"]
)
def test_what_is_no_url_is_refused(url):
    with pytest.raises(ConfigError, match="is not a URL such as"), mqtt(url):
        pass


def test_a_password_in_the_url_is_refused():
    with (
        pytest.raises(ConfigError, match="do not put a password into the URL"),
        mqtt("mqtt://me:hidden@a/t"),
    ):
        pass


def test_the_missing_extra_is_named(monkeypatch):
    """Nothing of it is imported before it is asked for."""
    monkeypatch.setitem(sys.modules, "paho.mqtt.client", None)

    with pytest.raises(ConfigError, match=r"pip install 'steelseg\[mqtt\]'"), mqtt("mqtt://a/t"):
        pass
