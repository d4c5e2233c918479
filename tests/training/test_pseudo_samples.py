"""Training on what other networks say of strips: whose word enters which fold."""

import shutil

import numpy as np
import pytest

from steelseg.api import oof, pseudo, train
from steelseg.data.checks.check import load_labels
from steelseg.data.folds import read_fold_numbers
from steelseg.data.pseudo_labels import read_pseudo_labels
from steelseg.data.samples.dataset import FolderReader
from steelseg.errors import CheckpointError, ConfigError, DataError
from steelseg.run.oof_store import read_oof
from steelseg.run.run_folder import RunFolder
from steelseg.training.fold_data import open_reader, training_samples
from steelseg.training.pseudo_samples import load_pseudo_samples, with_pseudo_labels

KEEP_ALL = ("pseudo.agreement=0", "pseudo.confidence=0", "postprocess.threshold=0.51")


@pytest.fixture(scope="module")
def made(trained_run, tmp_path_factory, make_strips):
    """Give pseudo-labels of six strips, made by the trained run."""
    root = tmp_path_factory.mktemp("made")
    make_strips(root, num_train=1, num_test=6, seed=7)
    return pseudo(trained_run, KEEP_ALL, images=root / "test_images", out=root / "pseudo")


@pytest.fixture
def settings(trained_run, make_config, made):
    """Give settings that mix every second sample from the pseudo-labels."""

    def build(*overrides, labels=made):
        root = RunFolder(trained_run).load_config().data.root
        mixed = (f"train.pseudo_labels={labels}", "train.pseudo_share=0.5")
        return make_config(root, *mixed, *overrides)

    return build


def held_out_of(run, fold=0):
    return [i for i, own in read_fold_numbers(run / "folds.csv").items() if own == fold]


def samples_of(config, trained_run, fold=0):
    """The training samples and their order, and what was read beside labels."""
    labels = load_labels(config.data)
    held_out = held_out_of(trained_run, fold)
    pseudo_samples = load_pseudo_samples(config, labels, fold, held_out=held_out)
    train_ids = sorted(labels.sizes.keys() - set(held_out))
    source = open_reader(config, labels)
    dataset, order = training_samples(config, labels, train_ids, source, fold, pseudo_samples)
    return dataset, order, pseudo_samples


@pytest.mark.parametrize("mode", ["full", "crops", "precropped"])
def test_samples_are_the_strips_with_the_labels_of_their_fold(
    settings, trained_run, made, tmp_path, mode
):
    """Pixels come from the other folder and masks from fold_1/train.csv, in every mode."""
    from steelseg.api import precrop

    config = settings(
        f"data.mode={mode}", f"data.precropped_dir={tmp_path / 'store'}", "train.augmentation=none"
    )
    if mode == "precropped":
        precrop(config)
    dataset, order, _ = samples_of(config, trained_run, fold=1)
    truth = read_pseudo_labels(made, 1)
    whole = {
        (image.tobytes(), truth.labels.draw(i, box).tobytes())
        for i in truth.labels.sizes
        for box in boxes(mode)
        for image in [FolderReader(truth.images, 1).read(i, box).transpose(2, 0, 1)]
    }

    num_labelled = 4 * len(boxes(mode))
    seen = set()
    for keys in order:
        images, masks, _ = dataset[keys]
        for (_, index), image, mask in zip(keys, images.numpy(), masks.numpy(), strict=True):
            if index >= num_labelled:
                seen.add((image.tobytes(), mask.astype(bool).tobytes()))
    assert seen
    assert seen <= whole


def boxes(mode):
    from steelseg.data.crops import Box

    lefts = [(0, 96)] if mode == "full" else [(0, 48), (32, 48), (48, 48)]
    return [Box(0, left, 32, width) for left, width in lefts]


@pytest.mark.parametrize("sampling", ["all", "balanced"])
def test_the_cap_holds_in_every_batch_of_several_epochs(settings, trained_run, sampling):
    """However samples are drawn; labelled ones are as many as without."""
    config = settings(
        "data.mode=crops",
        f"train.sampling={sampling}",
        "train.batch_size_train=4",
        "train.centre_defects=1",
        "train.augmentation=[flips, defect_paste]",
    )
    dataset, order, _ = samples_of(config, trained_run)
    for order.epoch in range(3):
        batches = [[index for _, index in keys] for keys in order]
        others = [sum(index >= 12 for index in batch) for batch in batches]
        assert all(n <= len(batch) / 2 for n, batch in zip(others, batches, strict=True))
        assert sum(others) == 12
        assert sum(map(len, batches)) == 24
        for keys in order:
            assert dataset[keys][0].shape[0] == len(keys)


def test_the_same_seed_gives_the_same_batches(settings, trained_run):
    """Bit for bit, pixels and masks."""
    config = settings("train.augmentation=light")
    one, order, _ = samples_of(config, trained_run)
    other, again, _ = samples_of(config, trained_run)

    for keys, same in zip(order, again, strict=True):
        assert keys == same
        for first, second in zip(one[keys][:2], other[same][:2], strict=True):
            np.testing.assert_array_equal(first, second)


def test_networks_that_saw_a_held_out_strip_are_refused(settings, trained_run, made, tmp_path):
    """Labels of a run with other folds would let a fold learn from its own validation."""
    other = shutil.copytree(made, tmp_path / "other")
    text = (other / "folds.csv").read_text()
    swapped = text.replace(",0,", ",x,").replace(",1,", ",0,").replace(",x,", ",1,")
    (other / "folds.csv").write_text(swapped)

    with pytest.raises(ConfigError, match=r"networks of fold 0 were trained on train_.*optimistic"):
        samples_of(settings(labels=other), trained_run)
    with pytest.raises(ConfigError, match="optimistic"):
        train(settings(labels=other), tmp_path / "run")
    assert not (tmp_path / "run" / "fold_0").exists()


def test_a_strip_that_was_labelled_since_is_refused(settings, trained_run, made, tmp_path):
    """Its label may lie in the held-out fold by now."""
    old = RunFolder(trained_run).load_config().data.root
    root = shutil.copytree(old, tmp_path / "input")
    images = read_pseudo_labels(made, 0).images
    shutil.copy(images / "test_002.jpg", root / "train_images" / "new.jpg")

    config = settings(f"data.root={root}")
    labels = load_labels(config.data)
    held_out = held_out_of(trained_run)
    with pytest.raises(DataError, match=r"test_002\.jpg, which is a copy of.*new\.jpg"):
        load_pseudo_samples(config, labels, 0, held_out=[*held_out, "new.jpg"])

    (root / "train_images" / "new.jpg").write_bytes(
        (root / "train_images" / held_out[0]).read_bytes()
    )
    assert load_pseudo_samples(config, labels, 0, held_out=[*held_out, "new.jpg"])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: shutil.rmtree(folder / "fold_0"), "no pseudo-labels for fold 0"),
        (lambda folder: (folder / "index.json").unlink(), "contains no pseudo-labels"),
        (lambda folder: (folder / "index.json").write_text("{"), "index.json is damaged"),
        (lambda folder: (folder / "fold_0" / "strips.csv").write_text("a,b\n"), "is damaged"),
        (lambda folder: relabel(folder, "test_000.jpg,1,99999999 5"), "test_000"),
        (
            lambda folder: edit(folder / "index.json", '"images": "', '"images": "/no'),
            "Restore the folder",
        ),
        (lambda folder: edit(folder / "index.json", "class 1", "scratch"), "has the classes"),
        (lambda folder: edit(folder / "fold_0" / "strips.csv", ",kept,", ",unsure,"), "no strip"),
        (lambda folder: edit(folder / "fold_0" / "strips.csv", ",32,96,", ",64,48,"), "64x48"),
    ],
)
def test_what_cannot_be_used_is_refused(settings, trained_run, made, tmp_path, spoil, message):
    """In a line that says what to do."""
    folder = shutil.copytree(made, tmp_path / "pseudo")
    spoil(folder)

    with pytest.raises((ConfigError, DataError), match=f"(?i){message}"):
        samples_of(settings(labels=folder), trained_run)


def relabel(folder, row):
    (folder / "fold_0" / "train.csv").write_text(f"ImageId,ClassId,EncodedPixels\n{row}\n")


def edit(path, old, new):
    path.write_text(path.read_text().replace(old, new))


def test_a_changed_image_is_refused(settings, trained_run, made, tmp_path):
    """Its label was of other pixels."""
    images = shutil.copytree(read_pseudo_labels(made, 0).images, tmp_path / "images")
    folder = shutil.copytree(made, tmp_path / "pseudo")
    edit(folder / "index.json", str(read_pseudo_labels(made, 0).images), str(images))
    samples_of(settings(labels=folder), trained_run)
    shutil.copy(images / "test_001.jpg", images / "test_000.jpg")

    with pytest.raises(DataError, match=r"test_000\.jpg has changed"):
        samples_of(settings(labels=folder), trained_run)


def test_a_share_of_less_than_a_sample_is_refused(settings):
    """Nothing would ever be seen of the labels."""
    with pytest.raises(ConfigError, match=r"pseudo_share=0\.25 of batch_size_train=2 is less"):
        settings("train.pseudo_share=0.25")


def test_a_run_learns_from_another_and_validates_on_labels_alone(
    settings, trained_run, made, tmp_path, capsys
):
    """The whole way; a resume with other labels is refused, with the same it is not."""
    labels = shutil.copytree(made, tmp_path / "pseudo")
    config = settings(labels=labels)
    run = train(config, tmp_path / "run", folds=[0])
    assert "8 training samples" not in capsys.readouterr().out
    oof(run, folds=[0])

    held_out = {image_id for image_id, _ in read_oof(RunFolder(run).oof(0))}
    assert len(held_out) == 4
    assert all(image_id.startswith("train_") for image_id in held_out)
    log = (run / "training_log.txt").read_text()
    assert "10 training samples of 4 strips and 6 pseudo-labelled ones, 4 held out" in log
    train(config, run, folds=[0], resume=True)

    relabel(labels, "test_000.jpg,1,1 5")
    with pytest.raises(CheckpointError, match="different strips, masks or folds"):
        train(config, run, folds=[0], resume=True)


def test_labels_are_part_of_the_data(settings, trained_run):
    """And without any the fingerprint is what it was."""
    *_, pseudo_samples = samples_of(settings(), trained_run)

    assert with_pseudo_labels("data", None) == "data"
    assert with_pseudo_labels("data", pseudo_samples) != "data"
