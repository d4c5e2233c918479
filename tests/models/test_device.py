"""Where the network runs, and in which precision."""

import torch

from steelseg.models.device import autocast, half_type

CPU = torch.device("cpu")


def test_a_processor_computes_in_bfloat16_or_not_at_all_in_half():
    """float16 has no fast convolution on a processor; the answer stays the same."""
    first = half_type(CPU)

    assert first in (torch.bfloat16, None)
    assert half_type(CPU) == first


def test_autocast_changes_the_type_of_a_product_only_where_it_is_asked_for():
    x = torch.ones(2, 2)

    with autocast(CPU, torch.bfloat16):
        assert (x @ x).dtype == torch.bfloat16
    with autocast(CPU, None):
        assert (x @ x).dtype == torch.float32
