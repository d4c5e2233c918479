import pytest

from steelseg.config.config import Config
from steelseg.config.load import build_config
from steelseg.errors import ConfigError
from steelseg.search.space import apply, count, has_same_folds, read_space


def with_space(space, **sections):
    return build_config({"search": {"space": space}, **sections})


def fault_of(space):
    with pytest.raises(ConfigError) as refusal:
        read_space(with_space(space))
    first, *lines = str(refusal.value).splitlines()
    assert first == "Wrong settings to search:"
    return [line.removeprefix("  search.space: ") for line in lines]


@pytest.mark.parametrize(
    ("space", "line"),
    [
        (
            {"train.learning_rat": [1]},
            "train.learning_rat: no such setting; did you mean train.learning_rate?",
        ),
        ({"model": [1]}, "model: no such setting; did you mean model.arch?"),
        (
            {"train.epochs": [1, 0]},
            "train.epochs: Input should be greater than or equal to 1, got 0",
        ),
        (
            {"train.epochs": {"low": 1.5, "high": 3}},
            "train.epochs: Input should be a valid integer, got a number with a fractional part, "
            "got 1.5",
        ),
        ({"train.loss": ["dice", "dise"]}, "train.loss: 'dise' is not a loss; use one of bce"),
        (
            {"model.presence_head": {"low": 0, "high": 1}},
            "model.presence_head does not take a range of numbers; give a list of values.",
        ),
        ({"train.epochs": [3, 3.0]}, "train.epochs: 3 is duplicated."),
        ({"train.monitor": ["dice", "best_threshold_dice"]}, "train.monitor selects the score"),
        (
            {"tune.min_recall": [0.5, 0.9]},
            "tune.min_recall does not affect the score of a training",
        ),
        ({"search.trials": [1, 2]}, "search.trials configures the search itself."),
    ],
)
def test_what_does_not_fit_its_setting_is_refused(space, line):
    """Before the first trial, by the setting's own rules."""
    (fault,) = fault_of(space)

    assert fault.startswith(line)


def test_all_faults_come_at_once():
    """A line each, so that a space is mended in one go."""
    space = {"train.epoch": [1], "train.epochs": [0, -1], "model.arch": ["unet", "unet3"]}

    assert [line.partition(":")[0] for line in fault_of(space)] == [
        "train.epoch",
        "train.epochs",
        "train.epochs",
        "model.arch",
    ]


def test_an_empty_space_says_what_to_write():
    """The default is one."""
    with pytest.raises(
        ConfigError, match=r"search\.space is empty\. Name settings with the values"
    ):
        read_space(Config())


def test_numbers_are_of_the_kind_that_the_setting_takes():
    """Both ends are written as whole numbers, the weight decay is none."""
    epochs, decay = read_space(
        with_space(
            {"train.epochs": {"low": 1, "high": 3}, "train.weight_decay": {"low": 0, "high": 1}}
        )
    )

    assert (epochs.is_whole, decay.is_whole) == (True, False)
    assert (count((epochs,)), count((epochs, decay))) == (3, None)


def test_a_value_may_contradict_another_setting():
    """Another trial may change that one; this trial alone cannot be built."""
    config = with_space({"train.later_loss": [None, "dice"], "train.later_loss_epoch": [2, 999]})
    space = read_space(config)

    good = apply(config, space, {"train.later_loss": "null", "train.later_loss_epoch": "999"})
    with pytest.raises(ConfigError, match=r"^train: later_loss_epoch=999 is after .*\.$"):
        apply(config, space, {"train.later_loss": "dice", "train.later_loss_epoch": "999"})

    assert (good.train.later_loss, good.train.later_loss_epoch) == (None, 999)
    assert count(space) == 4


def test_a_trial_has_all_other_settings_of_the_search():
    """Lists and nulls come back from their labels; the search itself is no part of a run."""
    config = with_space(
        {"data.mean": [[], [0.3]], "train.later_loss": [None, "dice"]}, train={"epochs": 7}
    )

    trial = apply(config, read_space(config), {"data.mean": "[0.3]", "train.later_loss": "null"})

    expected = build_config({"data": {"mean": [0.3]}, "train": {"epochs": 7}})
    assert trial == expected


def test_trials_share_folds_unless_they_deal_them():
    """Scores on other strips cannot be compared as well."""
    assert has_same_folds(read_space(with_space({"train.epochs": [1, 2]})))
    assert not has_same_folds(read_space(with_space({"train.seed": [1, 2]})))
