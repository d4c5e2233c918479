import pytest
import yaml

from steelseg.config import former
from steelseg.config.config import setting_names
from steelseg.config.load import load_config, load_stored_config
from steelseg.errors import ConfigError

# What commit 0c2f354 wrote to config.yaml of a run, without the sections that are as they were.
OLD = """\
train:
  epochs: 1
  encoder_rate: 1.0
  layer_decay: 1.0
  freeze_encoder_epochs: 0
  freeze_batch_norm: false
  sampling: all
  average: none
  average_epochs: 3
  ema_decay: 0.999
  loss: 0.5 focal + tversky + focal_tversky
  later_loss: null
  focal_gamma: 2.0
  tversky_alpha: 0.3
  hard_negative_weight: 3.0
  swa_rate: 0.2
  gradient_clip: 1.0
  monitor: swept_dice
inference:
  submission_form: auto
pseudo:
  views: hflip
search:
  warm_up_epochs: 0
  warm_up_trials: 1
tune:
  objective: dice
  min_recall: 0.95
  parts: 7
  thresholds: []
"""


@pytest.fixture
def stored(tmp_path):
    """Give a function that writes the old settings, with a line replaced, and gives their file."""

    def write(old="", new=""):
        path = tmp_path / "config.yaml"
        path.write_text(OLD.replace(old, new) if old else OLD)
        return path

    return write


@pytest.mark.parametrize("to_train", [False, True])
def test_stored_settings_of_an_older_version_are_read(stored, to_train):
    """Removed settings at their default are dropped, renamed ones translated."""
    config = load_stored_config(stored(), to_train=to_train)

    assert config.tune.inner_folds == 7
    assert config.train.monitor == "best_threshold_dice"
    assert (config.train.epochs, config.train.ema_decay) == (1, 0)
    assert config.train.loss == "0.5 focal + tversky + focal_tversky"


def test_a_stored_average_becomes_a_decay(stored):
    assert load_stored_config(stored("average: none", "average: ema")).train.ema_decay == 0.999
    assert load_stored_config(stored("  average: none\n", "")).train.ema_decay == 0.999


def test_stored_parameters_of_losses_become_part_of_their_text(stored):
    """So that a run with other values resumes with the same loss."""
    path = stored("focal_gamma: 2.0", "focal_gamma: 1.5")
    text = path.read_text().replace("tversky_alpha: 0.3", "tversky_alpha: 0.6")
    text = text.replace("later_loss: null", "later_loss: bce + 2 focal")
    path.write_text(text.replace("epochs: 1\n", "epochs: 2\n"))

    train = load_stored_config(path, to_train=True).train

    assert train.loss == "0.5 focal(1.5) + tversky(0.6) + focal_tversky(0.6)"
    assert train.later_loss == "bce + 2 focal(1.5)"


REMOVED = [
    ("layer_decay: 1.0", "layer_decay: 0.7", "train.layer_decay=0.7"),
    ("epochs: 0", "epochs: 2", "train.freeze_encoder_epochs=2"),
    ("swa_rate: 0.2", "swa_rate: 0.5", "train.swa_rate=0.5"),
    ("average: none", "average: soup", "train.average=soup"),
    ("average: none", "average: swa", "train.average=swa"),
    ("sampling: all", "sampling: rare", "train.sampling=rare"),
    ("average: none", "average: last", "train.average=last"),
    ("weight: 3.0", "weight: 1.0", "train.hard_negative_weight=1.0"),
]


@pytest.mark.parametrize(("old", "new", "setting"), REMOVED)
def test_a_removed_setting_matters_to_training_alone(stored, old, new, setting):
    """Prediction reads the run; training refuses it in one line that says what to do."""
    path = stored(old, new)

    config = load_stored_config(path)
    with pytest.raises(ConfigError) as refusal:
        load_stored_config(path, to_train=True)

    assert (config.train.ema_decay, config.train.sampling) == (0, "all")
    commit = "180fe94" if "last" in setting or "weight" in setting else "0c2f354"
    assert str(refusal.value) == (
        f"{path} was trained with {setting}, which was removed. "
        f"Train again without it, or use steelseg at commit {commit}."
    )


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("tune.parts=3", "tune.parts: was renamed; use tune.inner_folds."),
        ("train.layer_decay=1.0", "train.layer_decay: was removed .*; use train.encoder_rate."),
        ("train.swa_rate=0.2", "train.swa_rate: was removed .*; use train.ema_decay."),
        ("train.average=soup", r"train.average: was replaced; use train.ema_decay, 0 .*"),
        ("train.average=ema", r"train.average: was replaced; use train.ema_decay, 0 .*"),
        ("train.average_epochs=3", "train.average_epochs: was replaced; use train.ema_decay .*"),
        ("train.focal_gamma=2.0", r'train.focal_gamma: was replaced; .* as in "focal\(2.0\)".'),
        (
            "train.tversky_alpha=0.3",
            r'train.tversky_alpha: was replaced; .* "tversky\(0.3\)" or .*',
        ),
        ("train.hard_negative_weight=3", "train.hard_negative_weight: was removed because only .*"),
        ("tune.sizes=[0]", "tune.sizes: was removed .*; use postprocess.min_size for .*"),
        (
            "inference.submission_form=auto",
            "inference.submission_form: was removed .*; use a sample_submission.csv .*.",
        ),
        (
            "train.monitor=swept_dice",
            "train.monitor: swept_dice was renamed; use best_threshold_dice.",
        ),
        ("train.sampling=rare", "train.sampling: rare was removed .*; use balanced."),
        ("search.warm_up_epochs=0", "search.warm_up_epochs: was removed .*; use search.pruning=.*"),
        ("search.warm_up_trials=1", "search.warm_up_trials: was removed .*; use search.pruning=.*"),
        ("pseudo.views=hflip", "pseudo.views: was removed .*; use pseudo.agreement .*"),
    ],
)
def test_a_former_setting_is_refused_where_a_user_writes_it(tmp_path, stored, override, line):
    """In a file, on the command line, and over stored settings."""
    name, value = override.split("=")
    section, key = name.split(".")
    mine = tmp_path / "mine.yaml"
    mine.write_text(yaml.safe_dump({section: {key: yaml.safe_load(value)}}))

    with pytest.raises(ConfigError, match=f"in {mine}:\n  {line}$"):
        load_config(mine)
    mine.write_text("")
    with pytest.raises(ConfigError, match=f"on the command line:\n  {line}$"):
        load_config(mine, [override])
    with pytest.raises(ConfigError, match=f"on the command line:\n  {line}$"):
        load_stored_config(stored(), [override])


def test_a_removed_setting_that_does_not_train_never_refuses_training(stored):
    """Its stored value is dropped, whatever it was."""
    path = stored("submission_form: auto", "submission_form: ImageId,ClassId,EncodedPixels")

    assert load_stored_config(path, to_train=True) == load_stored_config(stored())


def test_no_former_name_is_a_setting_today():
    """And what stands in for a renamed one is."""
    assert not {*former.RENAMED, *former.REPLACED, *former.REMOVED} & set(setting_names())
    assert set(former.RENAMED.values()) <= set(setting_names())


def test_translation_leaves_the_stored_content_as_it_was():
    content = yaml.safe_load(OLD)

    former.translate(content)

    assert content == yaml.safe_load(OLD)
