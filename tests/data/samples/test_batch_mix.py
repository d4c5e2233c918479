import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steelseg.config.train import max_samples
from steelseg.data.samples.batch_mix import ExtraSamples, plan_batches
from steelseg.data.samples.dataset import EpochBatches


def test_batches_without_others_are_what_they_were():
    """Ten samples in batches of four, and no last batch of one."""
    assert plan_batches(10, None, batch_size=4) == [(4, 0), (4, 0), (2, 0)]
    assert plan_batches(9, None, batch_size=4) == [(4, 0), (4, 0)]
    assert plan_batches(2, None, batch_size=1) == [(1, 0), (1, 0)]


def test_others_come_on_top():
    """A quarter of eight is two; the epoch is longer by what comes on top."""
    assert plan_batches(12, ExtraSamples(100, 0.25), batch_size=8) == [(6, 2), (6, 2)]


def test_few_others_are_spread_evenly():
    """Three among four batches: no batch gets two of them."""
    assert [other for _, other in plan_batches(29, ExtraSamples(3, 0.5), batch_size=8)] == [
        0,
        1,
        1,
        1,
    ]


def test_a_share_is_counted_in_whole_samples():
    """0.29 of 100 is 29, though floating point says 28.999999999999996."""
    assert max_samples(0.29, 100) == 29
    assert max_samples(0.3, 8) == 2


@given(
    st.integers(1, 60), st.integers(0, 60), st.integers(1, 9), st.floats(0.01, 0.99), st.integers(0)
)
def test_no_batch_of_any_epoch_has_more_than_the_share(num_samples, others, size, share, epoch):
    """And every labelled sample comes once, every other at most once."""
    order = EpochBatches(num_samples, size, seed=3, extra=ExtraSamples(others, share))
    order.epoch = epoch % 1000

    batches = [[index for _, index in batch] for batch in order]
    assert [len(batch) for batch in batches] == [sum(b) for b in order._batches]
    for batch in batches:
        assert sum(index >= num_samples for index in batch) <= share * len(batch) + 1e-6
    seen = [index for batch in batches for index in batch]
    assert len(seen) == len(set(seen))
    left_out = set(range(num_samples)) - set(seen)
    assert len(left_out) <= 1  # A last batch of one sits out.
    assert max(seen) < num_samples + others


def batches_of(seed=3, epoch=1, begin=0, **chances):
    order = EpochBatches(20, 4, seed=seed, extra=ExtraSamples(9, 0.25, **chances))
    order.epoch, order.begin = epoch, begin
    return list(order)


def test_the_same_seed_gives_the_same_batches():
    """And an epoch that is begun in its middle goes on as it would have."""
    assert batches_of() == batches_of()
    assert batches_of(begin=3) == batches_of()[3:]
    assert batches_of(epoch=2) != [[(2, i) for _, i in batch] for batch in batches_of()]
    assert batches_of(seed=4) != batches_of()


def test_labelled_samples_come_in_the_order_that_they_have_alone():
    """What is learnt from labels does not hang on what is mixed in."""
    alone = [key for batch in EpochBatches(20, 4, seed=3) for key in batch]

    assert [key for batch in batches_of() for key in batch if key[1] < 20] == alone


def test_others_are_drawn_by_their_chances():
    """Only the third of them has any."""
    chances = np.zeros(9)
    chances[2] = 1

    others = {i for batch in batches_of(chances=chances) for _, i in batch if i >= 20}
    assert others == {22}


@pytest.mark.parametrize("share", [0.25, 0.5])
def test_others_change_from_epoch_to_epoch(share):
    """An epoch has no room for all, so each takes other ones."""
    order = EpochBatches(20, 4, seed=3, extra=ExtraSamples(40, share))
    seen = []
    for order.epoch in range(2):
        seen.append({i for batch in order for _, i in batch if i >= 20})

    assert seen[0] != seen[1]
