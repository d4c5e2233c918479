from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from steelseg.export.choose_strips import choose_strips

CLASSES = st.lists(st.integers(1, 4), unique=True, max_size=3)
STRIPS = st.dictionaries(st.text(min_size=1, max_size=3), CLASSES, max_size=30)


def test_rare_classes_and_clean_strips_get_their_share():
    """Of 1000 strips with a class and two with another, ten hold both of those."""
    present = {f"clean_{k}": () for k in range(500)} | {f"one_{k}": (1,) for k in range(1000)}
    present |= {"rare_0": (2,), "rare_1": (2,)}

    chosen = choose_strips(present, 10, seed=0)

    kinds = Counter(image_id.partition("_")[0] for image_id in chosen)
    assert kinds == {"clean": 4, "one": 4, "rare": 2}


@given(STRIPS, st.integers(1, 40), st.randoms(use_true_random=False))
def test_the_choice_depends_on_the_strips_alone(present, count, random):
    """Not on the order of a folder; no strip twice, and as many as there can be."""
    chosen = choose_strips(present, count, seed=3)
    shuffled = list(present.items())
    random.shuffle(shuffled)

    assert chosen == choose_strips(dict(shuffled), count, seed=3)
    assert len(set(chosen)) == len(chosen) == min(count, len(present))
    assert set(chosen) <= present.keys()
