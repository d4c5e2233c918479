import json
import shutil

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from steelseg.errors import CheckpointError
from steelseg.models.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from steelseg.training.fold_files import FoldFiles
from steelseg.training.train import train_run


@pytest.fixture(scope="module")
def trained(make_strips, make_config, tmp_path_factory):
    """Give settings and a run of three epochs whose best is not its last; tests copy it."""
    folder = tmp_path_factory.mktemp("resume")
    make_strips(folder / "input")
    config = make_config(folder / "input", "train.epochs=3")
    train_run(config, folder / "run", folds=[0])
    return config, folder / "run"


@pytest.fixture
def files(trained, tmp_path):
    """Give the files of a copy of the fold."""
    shutil.copytree(trained[1], tmp_path / "run")
    return FoldFiles(tmp_path / "run" / "fold_0")


@pytest.fixture
def resume(trained, tmp_path):
    """Give what resumes the copy."""
    return lambda **options: train_run(
        trained[0], tmp_path / "run", folds=[0], **({"resume": True} | options)
    )


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)


def change(path, **state):
    """Write a checkpoint anew, whole, with another state."""
    old = load_checkpoint(path)
    save_checkpoint(path, Checkpoint(old.model, old.optimizer, {**old.state, **state}))


def sha256(path):
    return load_checkpoint(path).sha256


def same_model(one, other):
    first, second = load_checkpoint(one).model, load_checkpoint(other).model
    return all(torch.equal(tensor, second[name]) for name, tensor in first.items())


def test_a_fold_has_a_checkpoint_before_its_first_step(trained, tmp_path):
    """So one that was begun and has none has lost it."""
    config, _ = trained
    config = config.model_copy(update={"train": config.train.model_copy(update={"epochs": 1})})
    train_run(config, tmp_path / "new", folds=[0])

    last = tmp_path / "new" / "fold_0" / "last"
    assert [path.name for path in sorted(last.iterdir())] == [
        "epoch_0000.safetensors",
        "epoch_0001.safetensors",
    ]


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (flip_a_bit, "is damaged"),
        (lambda path: path.write_bytes(b""), "is not a complete safetensors file"),
        (lambda path: change(path, fold=1), "belongs to fold 1, not to fold 0"),
        (lambda path: change(path, data="other"), "different strips, masks or folds"),
        (lambda path: change(path, config={"data": 5}), "settings that this version does not know"),
        (lambda path: change(path, epoch=2), "contains epoch 2, unlike its name"),
        (lambda path: change(path, epoch="three"), "does not match the settings stored with it"),
        (lambda path: change(path, groups=[]), "does not match the settings stored with it"),
        (
            lambda path: shutil.copy(path.parent.parent / "best_model.safetensors", path),
            "without its optimizer",
        ),
    ],
)
def test_what_cannot_be_gone_on_from_is_passed_over(files, resume, capsys, spoil, reason):
    """By name, for the checkpoint before it; the end is that of a whole run."""
    newest, before = files.resumable()
    best = sha256(files.best_model)
    whole = load_checkpoint(newest).model
    spoil(newest)

    resume()

    told = capsys.readouterr()
    assert reason in told.err
    assert len(told.err.splitlines()) == 1
    assert f"resuming from {before}, 2 epochs done" in told.out
    assert newest.with_name(f"{newest.name}.set_aside").exists()
    found = load_checkpoint(newest).model
    assert all(torch.equal(tensor, found[name]) for name, tensor in whole.items())
    assert sha256(files.best_model) == best


def test_nothing_left_to_go_on_from_is_an_error(files, resume):
    """Never a silent new start; nothing is changed."""
    for path in files.resumable():
        flip_a_bit(path)
    before = {path: path.read_bytes() for path in files.folder.rglob("*.safetensors")}

    with pytest.raises(CheckpointError, match=r"no checkpoint to resume from\. .* is damaged"):
        resume()

    assert {path: path.read_bytes() for path in files.folder.rglob("*.safetensors")} == before


def test_weights_of_another_network_are_refused(files, resume):
    """With the settings of this one and a right SHA-256, as only a swap by hand gives."""
    for path in files.resumable():
        old = load_checkpoint(path)
        model = dict(old.model)
        model["network.segmentation_head.0.weight"] = torch.zeros(7, 1, 3, 3)
        save_checkpoint(path, Checkpoint(model, old.optimizer, old.state))

    with pytest.raises(CheckpointError, match="does not match the settings stored with it"):
        resume()


def test_an_optimizer_of_another_network_is_refused(files, resume):
    """Torch itself would find out at the first step."""
    for path in files.resumable():
        old = load_checkpoint(path)
        optimizer = dict(old.optimizer) | {"0.exp_avg": torch.zeros(1, 2)}
        save_checkpoint(path, Checkpoint(old.model, optimizer, old.state))

    with pytest.raises(
        CheckpointError, match=r"exp_avg of shape \(1, 2\) belongs to another network"
    ):
        resume()


def test_other_masks_are_other_data(trained, files, resume, tmp_path):
    """A train.csv that changed gives a training that no whole run has."""
    config, _ = trained
    shutil.copytree(config.data.root, tmp_path / "input")
    lines = (tmp_path / "input" / "train.csv").read_text().splitlines()
    (tmp_path / "input" / "train.csv").write_text("\n".join(lines[:-1]) + "\n")
    data = config.data.model_copy(update={"root": tmp_path / "input"})

    with pytest.raises(CheckpointError, match="different strips, masks or folds"):
        train_run(
            config.model_copy(update={"data": data}), tmp_path / "run", resume=True, folds=[0]
        )


def test_going_back_sets_aside_what_lies_ahead(trained, files, resume, capsys):
    """--resume goes on from the newest, which is now the one that was named."""
    newest, before = files.resumable()

    resume(resume=False, checkpoint=before)

    assert "are set aside (1)." in capsys.readouterr().err
    assert newest.with_name(f"{newest.name}.set_aside").exists()
    assert same_model(newest, newest.with_name(f"{newest.name}.set_aside"))
    assert files.resumable() == [newest, before]


def test_a_best_model_that_is_lost_is_made_again(trained, files, resume):
    """From the checkpoint of its epoch, to the bit."""
    best_epoch = load_checkpoint(files.best_model).state["epoch"]
    digest = sha256(files.best_model)
    if best_epoch == 1:
        pytest.fail("choose data whose first epoch is not the best")
    for spoil in (lambda: files.best_model.unlink(), lambda: flip_a_bit(files.best_model)):
        spoil()

        resume()

        assert sha256(files.best_model) == digest


def test_a_damaged_best_model_without_a_copy_is_an_error(trained, files, resume):
    """Nobody must find out months later, when predicting."""
    best_epoch = load_checkpoint(files.best_model).state["epoch"]
    (files.last(best_epoch)).unlink()
    flip_a_bit(files.best_model)

    with pytest.raises(CheckpointError, match=r"is damaged.*Remove the file to determine"):
        resume()


def test_a_header_that_promises_too_much_is_refused(files, resume):
    """Eight bytes that ask for 2**60 bytes of header."""
    for path in files.resumable():
        path.write_bytes((2**60).to_bytes(8, "little") + path.read_bytes()[8:])

    with pytest.raises(CheckpointError, match="is not a complete safetensors file"):
        resume()


def test_json_that_is_too_deep_is_refused(files, resume):
    """Python's parser gives up with an error of its own."""
    for path in files.resumable():
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        deep = "[" * 100_000 + "]" * 100_000
        save_file(tensors, path, metadata={"steelseg": json.dumps({"a": 1})[:-1] + deep + "}"})

    with pytest.raises(CheckpointError, match="no checkpoint to resume from"):
        resume()
