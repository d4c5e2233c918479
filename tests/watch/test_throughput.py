import pytest

from steelseg.watch import throughput as meter
from steelseg.watch.throughput import Meter


@pytest.fixture
def seconds(monkeypatch):
    """Give a clock that goes when it is told to."""
    now = [100.0]
    monkeypatch.setattr(meter.time, "monotonic", lambda: now[0])
    return now


def test_a_log_gets_a_line_now_and_then(seconds, capsys):
    """With the rate since the last one; none while nothing comes."""
    shown = Meter()
    for _ in range(50):
        seconds[0] += 1.0
        shown.count(lag_s=0.84, refused=False)
        shown.show(3, {"webhook": 0, "mqtt": 1200})
    for _ in range(100):
        seconds[0] += 1.0
        shown.show(0, {})
    shown.count(lag_s=0.1, refused=True)
    shown.close({})

    assert capsys.readouterr().err.splitlines() == [
        "watch: 15 strips, 1.0/s, lag 0.8 s, 3 waiting, mqtt 1,200 bytes behind",
        "watch: 30 strips, 1.0/s, lag 0.8 s, 3 waiting, mqtt 1,200 bytes behind",
        "watch: 45 strips, 1.0/s, lag 0.8 s, 3 waiting, mqtt 1,200 bytes behind",
        "watch: 50 strips, 0.3/s, lag 0.8 s",
        "watch: 50 strips, 0.3/s, lag 0.1 s, 1 refused",
    ]


def test_a_terminal_gets_a_bar(seconds, capsys, monkeypatch):
    """It says the same, in place."""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    shown = Meter()
    shown.count(lag_s=2.0, refused=False)
    seconds[0] += 1.0
    shown.show(1, {})
    shown.close({})

    assert "lag 2.0 s, 1 waiting" in capsys.readouterr().err
