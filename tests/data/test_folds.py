from collections import Counter

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from steelseg.data.folds import assign_folds, read_folds, read_groups, write_folds
from steelseg.errors import ConfigError, DataError

class_ids = st.sets(st.integers(1, 4)).map(lambda ids: tuple(sorted(ids)))
sets_of_images = st.dictionaries(st.text("abc_.", min_size=1), class_ids, min_size=7, max_size=60)
folds_and_seeds = {"num_folds": st.integers(2, 7), "seed": st.integers(0, 5)}


@st.composite
def grouped_images(draw, same_classes=False):
    """Draw images, some of them in groups, and the first member of each one's group."""
    present = draw(sets_of_images)
    image_ids = draw(st.permutations(sorted(present)))
    groups = {}
    while image_ids:
        size = draw(st.sampled_from([1, 1, 1, 2, 3, 7]))
        together, image_ids = image_ids[:size], image_ids[size:]
        if len(together) > 1:
            groups |= dict.fromkeys(together, min(together))
        if same_classes:
            present |= dict.fromkeys(together, present[together[0]])
    return present, groups


HEADER = "image_id,fold,num_defects,group\n"
PRESENT = {f"{number:03d}.jpg": (1,) * (number % 3 == 0) for number in range(20)}


def spread(counts, num_folds):
    """How far the fullest fold is ahead of the emptiest."""
    return max(counts[fold] for fold in range(num_folds)) - min(
        counts[fold] for fold in range(num_folds)
    )


def test_images_are_dealt_like_cards():
    """Two defects first, then one, then none; a fold that lacks an image of one gets it next."""
    present = {"a": (), "b": (1,), "c": (2,), "d": (1, 2), "e": (1, 2), "f": (1, 2)}

    folds = assign_folds(present, num_folds=3, seed=0)

    assert sorted([folds["d"], folds["e"], folds["f"]]) == [0, 1, 2]
    assert sorted([folds["a"], folds["b"], folds["c"]]) == [0, 1, 2]


def test_a_rare_class_is_spread_over_the_folds():
    """Four strips of class 4, in two mixes, among many of class 3: two for each of two folds."""
    present = {f"{k:02d}": (3,) for k in range(20)}
    present |= {"a": (4,), "b": (4,), "c": (3, 4), "d": (3, 4), "e": (1, 3)}

    folds = assign_folds(present, num_folds=2, seed=0)

    assert Counter(folds[image_id] for image_id in "abcd") == {0: 2, 1: 2}


@given(present=sets_of_images, **folds_and_seeds)
def test_every_image_is_in_one_fold_and_fold_sizes_are_even(present, num_folds, seed):
    """Each image is predicted out of fold exactly once."""
    folds = assign_folds(present, num_folds=num_folds, seed=seed)

    assert list(folds) == list(present)
    assert set(folds.values()) == set(range(num_folds))
    assert spread(Counter(folds.values()), num_folds) <= 1


@given(present=sets_of_images, **folds_and_seeds)
def test_every_stratum_is_even(present, num_folds, seed):
    """So is the share of clean images, of images with one, two, ... defects."""
    folds = assign_folds(present, num_folds=num_folds, seed=seed)

    counts = {len(ids): Counter() for ids in present.values()}
    for image_id, fold in folds.items():
        counts[len(present[image_id])][fold] += 1
    for of_stratum in counts.values():
        assert spread(of_stratum, num_folds) <= 1


@given(present=sets_of_images, data=st.data(), **folds_and_seeds)
def test_the_order_of_the_images_does_not_matter(present, data, num_folds, seed):
    """Folders are listed in another order on another machine."""
    shuffled = dict(data.draw(st.permutations(list(present.items()))))

    found = assign_folds(shuffled, num_folds=num_folds, seed=seed)

    assert found == assign_folds(present, num_folds=num_folds, seed=seed)


@given(images=grouped_images(), **folds_and_seeds)
def test_a_group_stays_in_one_fold(images, num_folds, seed):
    """A strip must not be held out from a model that was trained on its copy."""
    present, groups = images
    assume(len(present) - len(groups) + len(set(groups.values())) >= num_folds)

    folds = assign_folds(present, num_folds=num_folds, seed=seed, groups=groups)

    assert list(folds) == list(present)
    assert set(folds.values()) == set(range(num_folds))
    for image_id, group in groups.items():
        assert folds[image_id] == folds[group]


@given(images=grouped_images(same_classes=True), **folds_and_seeds)
def test_no_stratum_is_ahead_by_more_than_a_group(images, num_folds, seed):
    """Groups cannot be parted, so nothing evener is possible in general."""
    present, groups = images
    assume(len(present) - len(groups) + len(set(groups.values())) >= num_folds)

    folds = assign_folds(present, num_folds=num_folds, seed=seed, groups=groups)

    largest = max(Counter(groups.values()).values(), default=1)
    for num_defects in {len(ids) for ids in present.values()}:
        counts = Counter(folds[i] for i in present if len(present[i]) == num_defects)
        assert spread(counts, num_folds) <= largest


def test_single_images_level_what_groups_leave_uneven():
    """Two pairs and a group of three among 30 clean strips: eleven or so for each fold."""
    present = {f"{number:02d}": () for number in range(37)}
    groups = {"00": "00", "01": "00", "10": "10", "11": "10"} | dict.fromkeys(
        ("20", "30", "31"), "20"
    )

    folds = assign_folds(present, num_folds=4, seed=0, groups=groups)

    assert sorted(Counter(folds.values()).values()) == [9, 9, 9, 10]


@given(present=sets_of_images, **folds_and_seeds)
def test_groups_of_other_images_change_nothing(present, num_folds, seed):
    """A later stage deals some of the strips, with the groups of all."""
    folds = assign_folds(present, num_folds=num_folds, seed=seed)

    others = {"x1": "x1", "x2": "x1", min(present): "x1"}
    assert assign_folds(present, num_folds=num_folds, seed=seed, groups=others) == folds
    assert assign_folds(present, num_folds=num_folds, seed=seed, groups={}) == folds


def test_folds_without_groups_are_those_of_version_0_1():
    """Runs that were begun are comparable with later ones."""
    folds = assign_folds(PRESENT, num_folds=5, seed=0)

    assert "".join(map(str, folds.values())) == "34212220400141313304"


def test_fewer_groups_than_folds_are_refused():
    """Six images that are copies of two cannot be parted into three folds."""
    groups = {image_id: "a" if image_id in "abc" else "d" for image_id in "abcdef"}

    with pytest.raises(ConfigError, match=r"there are 6 images in 2 groups .* at most 2 folds"):
        assign_folds(dict.fromkeys("abcdef", ()), num_folds=3, seed=0, groups=groups)


def test_the_seed_decides():
    """The same seed gives the same folds, another seed others."""
    first = assign_folds(PRESENT, num_folds=5, seed=1)

    assert assign_folds(PRESENT, num_folds=5, seed=1) == first
    assert assign_folds(PRESENT, num_folds=5, seed=2) != first


def test_fewer_images_than_folds_are_refused():
    """A fold without an image validates nothing."""
    with pytest.raises(ConfigError, match=r"num_folds=5, but there are 4 .* at most 4 folds"):
        assign_folds(dict.fromkeys("abcd", ()), num_folds=5, seed=0)
    assert sorted(assign_folds(dict.fromkeys("abcd", ()), num_folds=4, seed=0).values()) == [
        *range(4)
    ]


def test_the_file_holds_image_fold_number_of_defects_and_group(tmp_path):
    """The order is the data set's; a strip alone has no group."""
    folds = {"b.jpg": 1, "a,.jpg": 0, "c.jpg": 1}
    present = {"b.jpg": (1, 3), "a,.jpg": (), "c.jpg": (3,)}

    write_folds(tmp_path / "folds.csv", folds, present, {"b.jpg": "b.jpg", "c.jpg": "b.jpg"})

    assert (tmp_path / "folds.csv").read_text() == (
        'image_id,fold,num_defects,group\nb.jpg,1,2,b.jpg\n"a,.jpg",0,0,\nc.jpg,1,1,b.jpg\n'
    )


def test_what_is_written_is_read_back(tmp_path):
    """Every later stage works on the same folds."""
    groups = dict.fromkeys(("003.jpg", "004.jpg", "019.jpg"), "003.jpg")
    folds = assign_folds(PRESENT, num_folds=5, seed=0, groups=groups)

    write_folds(tmp_path / "folds.csv", folds, PRESENT, groups)

    assert read_folds(tmp_path / "folds.csv", image_ids=list(PRESENT), num_folds=5) == folds
    assert read_groups(tmp_path / "folds.csv") == groups


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "is damaged. Expected columns image_id,fold,num_defects,group"),
        ("image_id,fold,num_defects\na,0,0\nb,1,0\n", "is damaged"),
        ("fold,num_defects,group,image_id\n0,0,,a\n1,0,,b\n0\n", "is damaged"),
        (f"{HEADER}a,0,0\nb,1,0,\n", "is damaged"),
        (f"{HEADER}a,zero,0,\nb,1,0,\n", "is damaged"),
        (f"{HEADER}a,,0,\nb,1,0,\n", "is damaged"),
        (f'{HEADER}a,0,0,\n"b,1,0,\n', "is damaged"),
        (f"{HEADER}a,0,0,\nb,1,0,\na,1,0,\n", "has several rows for an image"),
        (f"{HEADER}a,0,0,\n", r"does not match .*: b is in only one .*\(1 in total\)"),
        (f"{HEADER}a,0,0,\nb,1,0,\nc,1,0,\n", "does not match the data set: c is"),
        (f"{HEADER}a,0,0,\nb,2,0,\n", "has the folds 0, 2, but .*num_folds=2"),
        (f"{HEADER}a,0,0,\nb,0,0,\n", "has the folds 0, but data.num_folds=2"),
        (f"{HEADER}a,0,0,\nb,-1,0,\n", "has the folds -1, 0"),
        (f"{HEADER}a,0,0,a\nb,1,0,a\n", "puts b into fold 1, but its group a is not in that fold"),
        (f"{HEADER}a,0,0,\nb,1,0,c\n", "puts b into fold 1, but its group c is not in that fold"),
    ],
)
def test_folds_that_do_not_fit_are_refused(tmp_path, text, fault):
    """An image of the wrong fold would be validated by a model that was trained on it."""
    (tmp_path / "folds.csv").write_text(text)

    with pytest.raises(DataError, match=rf"folds\.csv .*{fault}"):
        read_folds(tmp_path / "folds.csv", image_ids=["a", "b"], num_folds=2)


def test_another_number_of_folds_is_refused(tmp_path):
    """With three folds on file and five in the settings, two models would validate nothing."""
    folds = assign_folds(PRESENT, num_folds=3, seed=0)
    write_folds(tmp_path / "folds.csv", folds, PRESENT)

    for num_folds in (2, 5):
        with pytest.raises(DataError, match=f"has the folds 0, 1, 2, .*num_folds={num_folds}"):
            read_folds(tmp_path / "folds.csv", image_ids=list(PRESENT), num_folds=num_folds)


def test_a_missing_file_and_other_bytes_are_refused(tmp_path):
    """Neither is a traceback."""
    (tmp_path / "folds.csv").write_bytes(b"\xff\xfe\x00")

    with pytest.raises(DataError, match="is damaged"):
        read_folds(tmp_path / "folds.csv", image_ids=["a", "b"], num_folds=2)
    with pytest.raises(DataError, match="cannot be read: No such file"):
        read_folds(tmp_path / "none.csv", image_ids=["a", "b"], num_folds=2)
