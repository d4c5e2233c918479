import threading

import pytest

from steelseg.inference.prefetch import one_ahead, several_ahead


def test_items_come_in_order():
    """Whichever is made first."""
    slow = threading.Event()

    def make(source):
        if source == 0:
            assert slow.wait(10)
        if source == 1:
            slow.set()
        return -source

    assert list(several_ahead(make, range(20), count=2)) == [-source for source in range(20)]
    assert list(several_ahead(make, (), count=2)) == []


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

    items = several_ahead(make, range(9), count=count)
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

    unread = several_ahead(lambda source: source, sources(), count=count)
    unmade = several_ahead(make, iter((1, 2, 3)), count=count)

    assert [next(unread), next(unread)] == [1, 2]
    with pytest.raises(ValueError, match="damaged"):
        next(unread)
    assert next(unmade) == 1
    with pytest.raises(ValueError, match="odd"):
        next(unmade)


def test_one_ahead_keeps_the_order():
    """None is an item as any other."""
    assert list(one_ahead(iter(range(20)))) == list(range(20))
    assert list(one_ahead(iter(()))) == []
    assert list(one_ahead(iter((None, 0, None)))) == [None, 0, None]


def test_one_ahead_makes_the_next_item_alone():
    """And no more than that, so memory stays flat."""
    made = []
    second = threading.Event()

    def make():
        for item in range(4):
            made.append(item)
            if item == 1:
                second.set()
            yield item

    items = one_ahead(make())
    assert next(items) == 0
    assert second.wait(10)
    assert made == [0, 1]
    items.close()


def test_one_ahead_raises_after_the_items_before_it():
    """An error comes out where its item would have."""

    def make():
        yield 1
        raise ValueError("damaged")

    items = one_ahead(make())

    assert next(items) == 1
    with pytest.raises(ValueError, match="damaged"):
        next(items)
