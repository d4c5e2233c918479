import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from steelseg.config.components import LOSS_TERMS
from steelseg.config.config import Config, setting_names
from steelseg.config.load import build_config, dump_config, load_config
from steelseg.config.loss_terms import BASELINE
from steelseg.errors import ConfigError


def load(tmp_path, text, *overrides):
    path = tmp_path / "mine.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_config(path, overrides)


def faults_of(tmp_path, text, *overrides):
    """List the faults, without the line above them that names the file."""
    with pytest.raises(ConfigError) as refusal:
        load(tmp_path, text, *overrides)
    first, *lines = str(refusal.value).splitlines()
    assert re.fullmatch(
        rf"Wrong settings (in {tmp_path}/mine.yaml)?( and )?(on the command line)?:", first
    )
    return [line.removeprefix("  ") for line in lines]


def number(low, high):
    return st.floats(low, high, allow_subnormal=False)


@st.composite
def contents(draw):
    """Draw settings of many kinds: words, numbers, lists, paths, nulls."""
    classes = draw(st.integers(1, 5))
    per_class = {"min_size": classes, "max_size": classes}
    # PyYAML turns Unicode's rarer line ends into "\n"; no name has them.
    words = st.text(st.characters(exclude_categories=("C", "Zl", "Zp")), min_size=1)
    return {
        "data": {
            "root": draw(words),
            "num_classes": classes,
            "class_names": draw(st.lists(words, **per_class)),
            "img_width": draw(st.none() | st.integers(1, 10_000)),
            "mean": draw(st.just([]) | st.lists(number(-1e9, 1e9), min_size=1, max_size=1)),
        },
        "model": {"encoder_weights": draw(st.none() | words)},
        "train": {
            "learning_rate": draw(number(1e-300, 1e300)),
            "augmentation": draw(words),
            "amp": draw(st.booleans()),
        },
        "postprocess": {
            "threshold": draw(number(0, 1) | st.lists(number(0, 1), **per_class)),
            "min_size": draw(st.integers(0, 10**9) | st.lists(st.integers(0, 9), **per_class)),
        },
        "inference": {"tta": draw(st.sampled_from(["none", "hflip", "vflip", "both"]))},
    }


@pytest.mark.parametrize("text", ["", "# nothing yet\n", "{}", "train:\n  # epochs: 3\n", "data:"])
def test_what_is_left_out_keeps_its_default(tmp_path, text):
    """An empty file, or a section whose lines are all comments, is a whole run."""
    assert load(tmp_path, text) == Config()


def test_the_defaults_are_severstals():
    """Four classes on strips of 256x1600."""
    config = Config()

    assert (config.data.num_classes, config.data.img_height, config.data.img_width) == (
        4,
        256,
        1600,
    )
    assert config.data.names == ("class 1", "class 2", "class 3", "class 4")
    assert config.pos_weight == (2.0, 2.0, 1.0, 1.5)
    assert config.data.channel_mean == (0.449,)
    assert config.data.channel_std == (0.226,)


def test_defaults_follow_the_classes_and_channels():
    """Lists that are left empty fit whatever the data set has."""
    config = build_config({"data": {"num_classes": 2, "channels": 3}})

    assert config.pos_weight == (1.0, 1.0)
    assert config.data.names == ("class 1", "class 2")
    assert len(config.data.channel_mean) == len(config.data.channel_std) == 3


def test_given_lists_win_over_the_defaults():
    """A user's names and weights are not touched."""
    config = build_config(
        {
            "data": {"num_classes": 2, "class_names": ["pit", "scratch"], "mean": [0.3]},
            "train": {"pos_weight": [3, 4]},
        }
    )

    assert config.data.names == ("pit", "scratch")
    assert config.data.channel_mean == (0.3,)
    assert config.pos_weight == (3.0, 4.0)


def test_an_override_wins_over_the_file(tmp_path):
    """The last override wins over the one before it; the file keeps the rest."""
    config = load(
        tmp_path,
        "train: {epochs: 7, seed: 1}\n",
        "train.epochs=3",
        "train.epochs=4",
        "data.class_names=[a, b, c, d]",
        "postprocess.threshold=[0.5, 0.6, 0.7, 0.8]",
        "data.img_width=null",
        "data.root=/data/steel=2",
    )

    assert (config.train.epochs, config.train.seed) == (4, 1)
    assert config.data.class_names == ("a", "b", "c", "d")
    assert config.postprocess.threshold == (0.5, 0.6, 0.7, 0.8)
    assert config.data.img_width is None
    assert config.data.root == Path("/data/steel=2")


def test_overrides_leave_the_content_as_it_was():
    """One dictionary may make several runs."""
    content = {"train": {"epochs": 7}, "data": None}

    build_config(content, ["train.epochs=3", "data.num_folds=2"])

    assert content == {"train": {"epochs": 7}, "data": None}


@pytest.mark.parametrize("text", ["5e-4", "5.0e-4", "0.0005", "'5e-4'"])
def test_a_learning_rate_may_be_written_as_people_write_it(tmp_path, text):
    """YAML 1.1 takes 5e-4 for a word."""
    assert load(tmp_path, f"train: {{learning_rate: {text}}}").train.learning_rate == 5e-4
    assert load(tmp_path, "", f"train.learning_rate={text}").train.learning_rate == 5e-4


@pytest.mark.parametrize(
    ("text", "tta"),
    [("true", "hflip"), ("True", "hflip"), ("no", "none"), ("both", "both"), ("none", "none")],
)
def test_tta_may_be_true_or_false(tmp_path, text, tta):
    """The baseline's TTA = True is a horizontal flip."""
    assert load(tmp_path, "", f"inference.tta={text}").inference.tta == tta


@pytest.mark.parametrize("text", ["none", "None", "null", "''"])
def test_no_encoder_weights_may_be_said_in_words(tmp_path, text):
    """YAML's own word for nothing is null."""
    assert load(tmp_path, "", f"model.encoder_weights={text}").model.encoder_weights is None


@pytest.mark.parametrize(
    ("text", "override", "place"),
    [
        ("train: {epochs: 0}", "train.seed=1", "in FILE"),
        ("train: {epochs: 3}", "train.epochs=0", "on the command line"),
        ("train: {seed: -1}", "train.epochs=0", "in FILE and on the command line"),
        ("train: {epochs: 3}", "trian.epochs=3", "on the command line"),
        ("train: {later_loss: dice}", "train.epochs=1", "in FILE and on the command line"),
    ],
)
def test_a_fault_is_told_with_the_place_it_was_made_at(tmp_path, text, override, place):
    """Nobody looks in a file for what was typed behind it; two that clash can be from both."""
    with pytest.raises(ConfigError) as refusal:
        load(tmp_path, text, override)

    first = str(refusal.value).splitlines()[0]
    assert first == f"Wrong settings {place.replace('FILE', str(tmp_path / 'mine.yaml'))}:"


def test_all_faults_come_at_once(tmp_path):
    """Each names its setting; a near name is offered."""
    text = """
data: {crop_widht: 640, num_folds: 1}
modell: {}
train: {loss: focale, epochs: 3.5, amp: maybe}
inference: {tta: diagonal}
"""

    assert sorted(faults_of(tmp_path, text)) == [
        "data.crop_widht: no such setting; did you mean data.crop_width?",
        "data.num_folds: Input should be greater than or equal to 2, got 1",
        "inference.tta: Input should be 'none', 'hflip', 'vflip' or 'both', got diagonal",
        "modell: no such setting; did you mean model?",
        "train.amp: Input should be a valid boolean, unable to interpret input, got maybe",
        "train.epochs: Input should be a valid integer, got a number with a fractional part, "
        "got 3.5",
        f"train.loss: 'focale' is not a loss; use one of {', '.join(BASELINE)}, or a sum such as "
        f"'0.5 bce + 0.5 lovasz' of {', '.join(LOSS_TERMS)}.",
    ]


@pytest.mark.parametrize(
    ("override", "fault"),
    [
        ("train.epoch=3", "train.epoch: no such setting; did you mean train.epochs?"),
        ("trian.epochs=3", "trian: no such setting; did you mean train?"),
        ("data.tile_overlap_px=3", "data.tile_overlap_px: no such setting."),
        ("xyzzy.epochs=3", "xyzzy: no such setting."),
        ("data.class_names=[a, b]", "data: class_names has 2 values, but num_classes=4."),
        ("data.mean=[0.1, 0.2]", "data: mean has 2 values, but channels=1."),
        ("data.std=[0.1, 0.2, 0.3]", "data: std has 3 values, but channels=1."),
        ("train.pos_weight=[1]", "train.pos_weight has 1 values, but data.num_classes=4."),
        (
            "postprocess.threshold=[0.5]",
            "postprocess.threshold has 1 values, but data.num_classes=4.",
        ),
        ("postprocess.min_size=[]", "postprocess.min_size has 0 values, but data.num_classes=4."),
        (
            "postprocess.min_area=[1, 2, 3, 4, 5]",
            "postprocess.min_area has 5 values, but data.num_classes=4.",
        ),
        ("data.std=[0]", "data.std: Input should be greater than 0, got 0"),
        ("train.seed=-1", "train.seed: Input should be greater than or equal to 0, got -1"),
        ("train.seed=4294967296", "train.seed: Input should be less than 4294967296, got 42949672"),
        ("data.root=", "data.root: Input is not a valid path for <class 'pathlib.Path'>, got None"),
    ],
)
def test_a_wrong_value_is_refused_with_its_setting(tmp_path, override, fault):
    """Out of range, of the wrong length, or unknown."""
    found = faults_of(tmp_path, "", override)

    assert len(found) == 1
    assert found[0].startswith(fault)


@pytest.mark.parametrize(
    "override",
    [
        "train.learning_rate=.inf",
        "train.learning_rate=.nan",
        "train.weight_decay=.inf",
        "data.mean=[.nan]",
        "data.std=[.inf]",
    ],
)
def test_numbers_are_finite(tmp_path, override):
    """A mean of nan passes every comparison and ends in a loss of nan, hours later."""
    assert "Input should be a finite number" in faults_of(tmp_path, "", override)[0]


@pytest.mark.parametrize(
    "override",
    [
        "train.epochs=yes",
        "train.learning_rate=true",
        "data.num_classes=on",
        "postprocess.threshold=true",
        "postprocess.min_size=[1, 2, 3, no]",
        "train.augmentation=off",
        "train.scheduler=no",
    ],
)
def test_true_and_false_are_no_numbers_and_no_words(tmp_path, override):
    """Pydantic takes true for 1: `train.epochs=yes` would train one epoch."""
    name = override.partition("=")[0]

    assert faults_of(tmp_path, "", override) == [
        f"{name}: true and false are not allowed here (in YAML also yes, no, on and off)."
    ]


def test_crops_must_cover_the_image(tmp_path):
    """Refused before training rather than at the first gap."""
    assert faults_of(tmp_path, "data: {mode: crops, crop_stride: 600}") == [
        "data: crop_stride=600 > crop_width=512 leaves pixels that no crop covers; "
        "use a stride of at most 512."
    ]
    assert faults_of(tmp_path, "data: {mode: precropped, crop_height: 300}") == [
        "data: crop_height=300 is larger than img_height=256; use at most 256, or mode=full."
    ]
    load(tmp_path, "data: {mode: full, crop_stride: 600, crop_height: 300}")
    load(tmp_path, "data: {mode: crops, crop_height: 300, img_height: null, crop_stride: 300}")


@pytest.mark.parametrize("arch", ["pspnet", "deeplabv3", "deeplabv3plus"])
def test_pooling_architectures_need_two_samples_a_step(tmp_path, arch):
    """Batch normalisation of one pooled value fails in the first step."""
    (fault,) = faults_of(tmp_path, f"model: {{arch: {arch}}}", "train.batch_size_train=1")

    assert fault.startswith(f"model.arch={arch} normalises")
    load(tmp_path, "model: {arch: unet}", "train.batch_size_train=1")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("train: [1", "is not YAML: .*line 1"),
        ("train: {epochs: 3}\ntrain: {amp: false}\n", "is not YAML: 'train' is duplicated"),
        ("train:\n  epochs: 3\n  epochs: 4\n", "'epochs' is duplicated .* line 3"),
        ("data: {root: 2024-13-45}", "is not YAML: month must be in 1..12"),
        ("data: *unknown", "is not YAML: found undefined alias"),
        ("a: 1\n---\nb: 2\n", "is not YAML: expected a single document"),
        ("!!python/object/apply:os.getcwd []", "is not YAML: could not determine a constructor"),
        ("data: {a\x00: 1}", "is not YAML: unacceptable character"),
        (b"\xff\xfe\x00", "cannot be read: 'utf-8' codec can't decode"),
        ("- data\n", "must contain sections such as `data:` and `train:`"),
        ("5", "must contain sections"),
        ("1: 2", "1: Keys should be strings"),
        ("data: {1: 2}", "data.1: Keys should be strings"),
        ("data: 5", "data: Input should be a valid dictionary"),
        ("data: &a {root: *a}", "its aliases expand to more than 100000 values"),
    ],
)
def test_a_file_that_is_no_configuration_is_refused(tmp_path, text, fault):
    """With the file's name, and never with a traceback."""
    with pytest.raises(ConfigError, match=rf"(?s)mine\.yaml.*{fault}"):
        load(tmp_path, text)


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    """The path is the user's to mend."""
    with pytest.raises(ConfigError, match=r"none\.yaml cannot be read: No such file or directory"):
        load_config(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load_config(tmp_path)


@pytest.mark.parametrize(
    "override", ["train.epochs", "epochs=3", "train.=3", "=3", "", ".epochs=3"]
)
def test_an_override_without_section_name_and_value_is_refused(tmp_path, override):
    """Settings are `section.name=value`, never flags of their own."""
    with pytest.raises(ConfigError, match=r"have the form section\.name=value|: no such setting"):
        load(tmp_path, "", override)


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        ("train.epochs=[1", "expected ',' or ']'"),
        ("data.root=2024-13-45", "month must be in 1..12"),
        ("train.epochs=" + "9" * 5000, "4300 digits"),
        ("data={a: 1, a: 2}", "not have the form"),
        ("train.epochs={a: 1, a: 2}", "'a' is duplicated"),
    ],
)
def test_an_override_that_cannot_be_read_is_refused(tmp_path, override, reason):
    """One line, with the override cut to a readable length."""
    with pytest.raises(ConfigError) as refusal:
        load(tmp_path, "", override)

    assert reason in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert len(str(refusal.value)) < 300


def test_an_override_into_something_that_is_no_section_is_refused(tmp_path):
    """`train: 5` has no settings in it."""
    with pytest.raises(ConfigError, match="'train' must be a section that contains settings"):
        load(tmp_path, "train: 5", "train.epochs=3")


def test_only_what_takes_any_depth_takes_one():
    """A pyramid's own steps up stand for a depth."""
    assert build_config({"model": {"arch": "linknet"}}, ["model.encoder_depth=4"])

    with pytest.raises(
        ConfigError, match=r"encoder_depth=4 is for arch=unet, .*; fpn has a fixed depth"
    ):
        build_config({"model": {"arch": "fpn"}}, ["model.encoder_depth=4"])


def test_a_classifier_settles_what_leaves_no_choice():
    """Its settings hold the answers, so that whoever reads them need not know."""
    config = build_config({"model": {"arch": "classifier"}})

    assert config.model.presence_head
    assert config.train.monitor == "presence"
    assert build_config(config.model_dump()) == config


@pytest.mark.parametrize(
    ("override", "fault"),
    [
        ("model.presence_head=false", "cannot have presence_head=false"),
        ("train.monitor=dice", "train.monitor=dice scores masks"),
        ("inference.gate=soft", "inference.gate=soft applies presence to masks"),
        ("train.presence_weight=0", "without a loss"),
    ],
)
def test_a_classifier_takes_no_settings_that_contradict_it(override, fault):
    with pytest.raises(ConfigError, match=fault):
        build_config({"model": {"arch": "classifier"}}, [override])


def test_presence_is_monitored_where_there_is_a_head():
    build_config({}, ["train.monitor=presence", "model.presence_head=true"])
    with pytest.raises(ConfigError, match="but the network does not have one"):
        build_config({}, ["train.monitor=presence"])


def test_a_configuration_is_read_only():
    """A run is what its config.yaml says."""
    with pytest.raises(ValidationError, match="frozen"):
        Config().train.epochs = 3


@given(contents())
def test_what_is_written_is_read_back(tmp_path_factory, content):
    """config.yaml of a run folder makes the same run again."""
    config = build_config(content)
    path = tmp_path_factory.getbasetemp() / "config.yaml"
    path.write_text(dump_config(config), encoding="utf-8", newline="")

    assert load_config(path) == config


def test_a_dump_names_every_setting():
    """So a run folder tells all, also what was left at its default."""
    dumped = yaml.safe_load(dump_config(Config()))
    written = [f"{section}.{name}" for section, group in dumped.items() for name in group]

    assert written == list(setting_names())


def test_every_setting_is_named():
    """The table in the documentation is held against this list."""
    names = list(setting_names())

    assert len(names) == len(set(names))
    assert {name.partition(".")[0] for name in names} == set(Config.model_fields)
    assert {"data.root", "train.seed", "postprocess.min_size", "inference.tta"} <= set(names)


def test_every_setting_is_explained():
    """One string under each field: unit, meaning, who sets it."""
    for section in Config.model_fields.values():
        for name, field in section.default.__class__.model_fields.items():
            assert field.description, name
