import threading

import pytest

from steelseg.inference.ahead import one_ahead


def test_items_come_in_order():
    assert list(one_ahead(iter(range(20)))) == list(range(20))
    assert list(one_ahead(iter(()))) == []
    assert list(one_ahead(iter((None, 0, None)))) == [None, 0, None]


def test_the_next_item_is_made_while_the_present_one_is_used():
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


def test_an_error_comes_after_the_items_before_it():
    def make():
        yield 1
        raise ValueError("damaged")

    items = one_ahead(make())

    assert next(items) == 1
    with pytest.raises(ValueError, match="damaged"):
        next(items)
