import pytest

from steelseg.errors import CheckpointError
from steelseg.inference.model_source import resolve_model


def test_checkpoints_are_in_the_order_given(trained_run):
    """Sums of floats depend on it."""
    files = [str(trained_run / f"fold_{fold}" / "best_model.safetensors") for fold in (1, 0)]

    assert [member.name for member in resolve_model(files).members] == files
    assert [member.name for member in resolve_model(trained_run).members] == files[::-1]


def test_a_run_has_its_own_settings_and_checkpoints_have_theirs(trained_run):
    """They are the same where nobody has touched config.yaml, and overrides come last."""
    file = trained_run / "fold_1" / "best_model.safetensors"
    of_run = resolve_model(trained_run, ["postprocess.min_size=7"], folds=[1])
    of_file = resolve_model(file, ["postprocess.min_size=7"])

    assert of_run.config == of_file.config
    assert of_run.masks == of_file.masks
    assert of_run.masks.min_size == (7, 7)
    assert [member.sha256 for member in of_run.members] == [of_file.members[0].sha256]


def test_models_with_other_masks_have_another_identity(trained_run):
    """Results, the server and the journal of a prediction name a model by it."""
    model = resolve_model(trained_run)

    for overrides in (["postprocess.threshold=0.4"], ["inference.tta=hflip"]):
        assert resolve_model(trained_run, overrides).sha256 != model.sha256
    assert resolve_model(trained_run, folds=[0]).sha256 != model.sha256
    for override in ("train.batch_size_val=1", "inference.ensemble=sequential", "data.root=x"):
        assert resolve_model(trained_run, [override]).sha256 == model.sha256


def test_the_folds_of_a_run_are_settled_too(trained_run):
    """Exports and bundles are made of them."""
    assert resolve_model(trained_run).folds == (0, 1)
    assert resolve_model(trained_run, folds=[1, 1]).folds == (1,)
    assert resolve_model(trained_run / "fold_1" / "best_model.safetensors").folds == ()


def test_no_checkpoints_at_all_are_refused():
    """A list that a script has filled with nothing."""
    with pytest.raises(CheckpointError, match="No checkpoint was given"):
        resolve_model([])


def test_a_header_that_is_no_json_is_refused(trained_run, tmp_path):
    """A flipped bit in the text is found before anything is read from it."""
    content = (trained_run / "fold_0" / "best_model.safetensors").read_bytes()
    (tmp_path / "a.safetensors").write_bytes(
        content.replace(b'\\"config\\": {', b'\\"config\\": [')
    )

    with pytest.raises(CheckpointError, match=r"a.safetensors is damaged: its header"):
        resolve_model(tmp_path / "a.safetensors")
