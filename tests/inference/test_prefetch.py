import threading

import pytest

from steelseg.inference.prefetch import prefetch


def test_items_come_in_order():
    """Whichever is made first."""
    slow = threading.Event()

    def make(source):
        if source == 0:
            assert slow.wait(10)
        if source == 1:
            slow.set()
        return -source

    assert list(prefetch(make, range(20), threads=2)) == [-source for source in range(20)]
    assert list(prefetch(make, (), threads=2)) == []


@pytest.mark.parametrize("count", [1, 2])
def test_so_many_items_are_made_while_the_present_one_is_used(count):
    """And no more than that, so memory stays flat."""
    made = set()
    last = threading.Event()

    def make(source):
        made.add(source)
        if source == count:
            last.set()
        return source

    items = prefetch(make, range(9), threads=count)
    assert next(items) == 0
    assert last.wait(10)
    assert made == set(range(count + 1))
    items.close()


@pytest.mark.parametrize("count", [1, 2])
def test_an_error_comes_after_the_items_before_it(count):
    """Of a source that cannot be read, and of an item that cannot be made."""

    def sources():
        yield 1
        yield 2
        raise ValueError("damaged")

    def make(source):
        if source == 2:
            raise ValueError("odd")
        return source

    unread = prefetch(lambda source: source, sources(), threads=count)
    unmade = prefetch(make, iter((1, 2, 3)), threads=count)

    assert [next(unread), next(unread)] == [1, 2]
    with pytest.raises(ValueError, match="damaged"):
        next(unread)
    assert next(unmade) == 1
    with pytest.raises(ValueError, match="odd"):
        next(unmade)


def test_more_items_than_threads_may_wait():
    """Decoded images wait for a network that takes several at once."""
    made = []
    last = threading.Event()

    def make(source):
        made.append(source)
        if source == 3:
            last.set()
        return source

    items = prefetch(make, range(9), threads=1, ahead=3)
    assert next(items) == 0
    assert last.wait(10)
    assert made == [0, 1, 2, 3]
    items.close()


def test_closing_drops_what_waits_for_a_thread():
    """Leaving an epoch early need not make the batches that nobody will use."""
    made = []
    started, finish = threading.Event(), threading.Event()

    def make(source):
        made.append(source)
        if source == 1:
            started.set()
            assert finish.wait(10)
        return source

    items = prefetch(make, range(9), threads=1, ahead=4)
    assert next(items) == 0
    assert started.wait(10)
    threading.Timer(0.05, finish.set).start()
    items.close()

    assert made == [0, 1]
