import threading
import time

import pytest

from steelseg.errors import DataError
from steelseg.watch.delivery import Delivery, NotConfirmed

LINES = [b'{"n": 1}\n', b'{"n": 22}\n', b'{"n": 3}\n']


class Receiver:
    """Takes lines, or does what it was told to do with the next ones."""

    def __init__(self, *answers):
        self.taken = []
        self.answers = list(answers)
        self.tried = 0

    def __call__(self, line):
        self.tried += 1
        if self.answers and (fault := self.answers.pop(0)) is not None:
            raise fault
        self.taken.append(line)


@pytest.fixture
def results(tmp_path):
    path = tmp_path / "results.jsonl"
    path.write_bytes(b"".join(LINES))
    return path


def deliver(results, receiver, *, until, size=None):
    """Run a delivery until something holds; give it back, stopped."""
    size = len(results.read_bytes()) if size is None else size
    delivery = Delivery("webhook", results, receiver, size=size, first_wait=0.01)
    delivery.start()
    end = time.monotonic() + 10
    while not until() and time.monotonic() < end:
        delivery.more(size)
        time.sleep(0.005)
    delivery.stop(seconds=5)
    assert until()
    return delivery


def test_every_line_is_delivered_in_order_and_once(results):
    """And a second process has nothing left to deliver."""
    receiver = Receiver()
    delivery = deliver(results, receiver, until=lambda: len(receiver.taken) == 3)

    assert receiver.taken == LINES
    assert delivery.behind == 0
    again = Receiver()
    deliver(results, again, until=lambda: True)
    assert again.taken == []


def test_an_outage_costs_no_line(results, capsys):
    """A line is sent again until it is taken, and the outage is told of once."""
    receiver = Receiver(
        NotConfirmed("no answer"), NotConfirmed("no answer"), None, NotConfirmed("503")
    )
    deliver(results, receiver, until=lambda: len(receiver.taken) == 3)

    assert receiver.taken == LINES
    assert receiver.tried == 6
    assert capsys.readouterr().err.count("nothing is lost") == 2


def test_a_restart_goes_on_behind_what_was_confirmed(results):
    """What a stopped process did not deliver, the next one does."""
    refuse = [NotConfirmed("down")] * 1000
    receiver = Receiver(None, *refuse)
    deliver(results, receiver, until=lambda: receiver.tried >= 2)
    assert receiver.taken == LINES[:1]

    after = Receiver()
    deliver(results, after, until=lambda: len(after.taken) == 2)

    assert after.taken == LINES[1:]


def test_a_line_that_is_never_taken_is_set_aside(results):
    """It does not hold up the others, and is kept."""
    receiver = Receiver(None, NotConfirmed("answers 422", is_permanent=True))
    deliver(results, receiver, until=lambda: len(receiver.taken) == 2)

    assert receiver.taken == [LINES[0], LINES[2]]
    assert results.with_name("webhook.refused.jsonl").read_bytes() == LINES[1]


def test_what_is_not_on_the_disk_for_good_is_not_delivered(results):
    """A line that a power cut takes back would be known to the receiver alone."""
    receiver = Receiver()
    deliver(
        results, receiver, until=lambda: len(receiver.taken) == 2, size=len(LINES[0] + LINES[1])
    )

    assert receiver.taken == LINES[:2]


def test_stopping_does_not_wait_for_a_receiver_that_is_down(results):
    """It ends at once, in the middle of a pause between two attempts."""
    before = threading.active_count()
    delivery = Delivery("webhook", results, Receiver(*[NotConfirmed("down")] * 9), size=9)
    delivery.start()
    begin = time.monotonic()
    delivery.stop(seconds=5)

    assert time.monotonic() - begin < 1
    assert threading.active_count() == before


def test_a_fault_of_our_own_is_heard(results):
    """A dead thread would look like a receiver that has nothing to do."""
    receiver = Receiver(ZeroDivisionError("ours"))
    delivery = Delivery("webhook", results, receiver, size=9)
    delivery.start()
    while not receiver.tried:
        time.sleep(0.005)
    delivery.stop(seconds=5)

    with pytest.raises(ZeroDivisionError, match="ours"):
        delivery.more(9)


@pytest.mark.parametrize("text", ["4", "999", "-1", "x", "", "9" * 40])
def test_a_position_inside_a_line_is_refused(results, text):
    """Half a line would be delivered, and the rest never."""
    results.with_name("webhook.position").write_text(text)

    with pytest.raises(DataError, match=r"not the end of a line in results.jsonl. Remove"):
        Delivery("webhook", results, Receiver(), size=len(results.read_bytes()))
