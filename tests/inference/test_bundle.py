import hashlib
import json
import os
import shutil

import numpy as np
import pytest

from steelseg import Predictor
from steelseg.api import bundle
from steelseg.errors import CheckpointError, ConfigError
from steelseg.inference.model_source import resolve_model
from steelseg.run.bundle_manifest import MANIFEST, read_manifest, seal_of, sealed_text


@pytest.fixture(scope="module")
def whole(trained_run, tmp_path_factory):
    """Give a bundle; tests leave it as it is."""
    return bundle(trained_run, out=tmp_path_factory.mktemp("bundles") / "whole")


@pytest.fixture
def folder(whole, tmp_path):
    """Give a bundle that a test may damage."""
    shutil.copytree(whole, tmp_path / "bundle")
    return tmp_path / "bundle"


def seal(folder, **changes):
    """Change the manifest and seal it again, as someone who knows how would."""
    content = read_manifest(folder).model_dump(mode="json") | changes
    (folder / MANIFEST).write_text(sealed_text(content))


def test_a_whole_bundle_is_read(folder):
    """What the refusals below differ from by one thing."""
    assert [member.name for member in resolve_model(folder).members] == [
        str(folder / "models" / f"fold_{fold}.safetensors") for fold in (0, 1)
    ]


@pytest.mark.parametrize("name", [MANIFEST, "models/fold_0.safetensors"])
def test_a_flipped_bit_is_refused(folder, name):
    """Anywhere, in one line, before a network is made."""
    content = (folder / name).read_bytes()
    random = np.random.default_rng(0)
    for place, bit in zip(
        random.integers(0, len(content), 150), random.integers(0, 8, 150), strict=True
    ):
        damaged = bytearray(content)
        damaged[place] ^= 1 << bit
        (folder / name).write_bytes(damaged)

        with pytest.raises(CheckpointError) as caught:
            resolve_model(folder)
        assert str(folder) in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", [MANIFEST, "models/fold_0.safetensors"])
@pytest.mark.parametrize("kept", [0, 1, 100, -1])
def test_a_truncated_file_is_refused(folder, name, kept):
    """Whatever is left of it."""
    (folder / name).write_bytes((folder / name).read_bytes()[:kept])

    with pytest.raises(CheckpointError, match="is damaged"):
        resolve_model(folder)


def test_an_appended_byte_is_refused(folder):
    """JSON readers may stop before it."""
    for name in (MANIFEST, "models/fold_0.safetensors"):
        with (folder / name).open("ab") as file:
            file.write(b"\n")
        with pytest.raises(CheckpointError, match="is damaged"):
            resolve_model(folder)


def test_swapped_models_are_refused(folder):
    """Both are whole, but each stands for the other."""
    first, second = (folder / "models" / f"fold_{fold}.safetensors" for fold in (0, 1))
    first.rename(folder / "models" / "a")
    second.rename(first)
    (folder / "models" / "a").rename(second)

    with pytest.raises(CheckpointError, match=r"fold_0.safetensors is damaged: its SHA-256"):
        resolve_model(folder)


def test_a_missing_file_is_named(folder):
    """A model, or the manifest."""
    (folder / "models" / "fold_1.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"fold_1.safetensors is missing"):
        resolve_model(folder)

    (folder / MANIFEST).unlink()
    with pytest.raises(CheckpointError, match=r"not a bundle either: it has no manifest.json"):
        resolve_model(folder)


@pytest.mark.parametrize("name", ["models/fold_2.safetensors", "notes.txt", "models/a/b", ".x"])
def test_a_file_that_is_not_listed_is_refused(folder, name):
    """A backend may read what lies beside its model."""
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text("more")

    with pytest.raises(CheckpointError, match=f"{name} is not part of the bundle"):
        resolve_model(folder)


def test_links_and_pipes_are_refused(folder, whole):
    """Even if what they lead to is right: it lies outside."""
    model = folder / "models" / "fold_0.safetensors"
    model.unlink()
    model.symlink_to(whole / "models" / "fold_0.safetensors")
    with pytest.raises(CheckpointError, match=r"fold_0.safetensors is not a regular file"):
        resolve_model(folder)

    model.unlink()
    os.mkfifo(model)
    with pytest.raises(CheckpointError, match=r"fold_0.safetensors is not a regular file"):
        resolve_model(folder)

    model.unlink()
    shutil.rmtree(folder / "models")
    (folder / "models").symlink_to(whole / "models")
    with pytest.raises(CheckpointError, match="models is not a regular file"):
        resolve_model(folder)

    (folder / MANIFEST).unlink()
    (folder / MANIFEST).symlink_to(whole / MANIFEST)
    with pytest.raises(CheckpointError, match=r"manifest.json is not a regular file"):
        resolve_model(folder)


@pytest.mark.parametrize(
    "name",
    ["../outside.safetensors", "/etc/hostname", "models/../../outside.safetensors", "a.onnx"],
)
def test_a_path_that_leaves_the_folder_is_refused(folder, whole, tmp_path, name):
    """Also in a manifest that is sealed as it should be."""
    shutil.copy(folder / "models" / "fold_0.safetensors", tmp_path / "outside.safetensors")
    files = read_manifest(folder).model_dump()["files"]
    outside = seal_of(tmp_path / "outside.safetensors").model_dump()
    models = [{"fold": 0, "file": name, "checkpoint_sha256": "0" * 64, "multiple": None}]

    seal(folder, models=models)
    with pytest.raises(CheckpointError, match=r"is damaged: models.0.file"):
        resolve_model(folder)
    shutil.copy(whole / MANIFEST, folder / MANIFEST)
    seal(folder, files=files | {name: outside})
    with pytest.raises(CheckpointError, match=r"is damaged: files"):
        resolve_model(folder)


def test_a_format_with_shares_needs_them(folder):
    """Format 2 is of combined runs, and older versions must not read those as plain means."""
    seal(folder, format=2)

    with pytest.raises(
        CheckpointError, match=r"is damaged: models/fold_0.safetensors has no weight"
    ):
        resolve_model(folder)


@pytest.mark.parametrize("version", [3, 0, "1", None, [1]])
def test_another_format_is_refused(folder, version):
    """By a message that says what to do."""
    seal(folder, format=version)

    with pytest.raises(CheckpointError, match=r"has format .*Bundle the run again"):
        resolve_model(folder)


@pytest.mark.parametrize(
    "text", ["", "null", "[]", "3", "{", '{"format": 1}', "[" * 100_000, '"\udcff"']
)
def test_what_is_no_manifest_is_refused(folder, text):
    """In one line."""
    (folder / MANIFEST).write_bytes(text.encode("utf-8", "surrogateescape"))

    with pytest.raises(CheckpointError, match=MANIFEST) as caught:
        resolve_model(folder)
    assert "\n" not in str(caught.value)


def test_a_manifest_says_each_thing_once(folder):
    """Of a name that comes twice, readers may take either."""
    text = (folder / MANIFEST).read_text()
    (folder / MANIFEST).write_text(text.replace('"format": 1,', '"format": 1,\n "format": 1,'))

    with pytest.raises(CheckpointError, match="its SHA-256 does not fit"):
        resolve_model(folder)


def test_a_setting_of_another_version_is_refused(folder):
    """It may matter, so it is not passed over."""
    seal(folder, config=read_manifest(folder).config | {"inference": {"magic": True}})

    with pytest.raises(ConfigError, match=r"inference.magic: no such setting"):
        resolve_model(folder)


def test_weights_of_another_network_are_refused(folder):
    """Though every file is what the manifest says."""
    config = read_manifest(folder).config
    seal(folder, config=config | {"model": {"arch": "fpn", "encoder": "tu-mobilenetv3_small_050"}})

    with pytest.raises(CheckpointError, match="weights do not match the settings"):
        Predictor(folder)


def test_weights_that_are_no_safetensors_are_refused(folder):
    """Nothing is unpickled, whatever its name."""
    model = folder / "models" / "fold_0.safetensors"
    model.write_bytes(b"\x80\x04}.")
    files = read_manifest(folder).model_dump()["files"]
    files["models/fold_0.safetensors"] = seal_of(model).model_dump()
    seal(folder, files=files)

    with pytest.raises(CheckpointError, match=r"fold_0.safetensors is not a complete safetensors"):
        Predictor(folder)


def test_a_model_replaced_while_in_use_is_refused(folder):
    """One at a time, a network is read again for every few batches."""
    predictor = Predictor(folder, ["inference.ensemble=sequential"])
    strip = np.zeros((32, 96), np.uint8)
    predictor(strip)
    (folder / "models" / "fold_1.safetensors").write_bytes(b"other")

    with pytest.raises(CheckpointError, match="was replaced while it was in use"):
        predictor(strip)


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        ("data.num_classes=3", "class_names has 2 values, but num_classes=3"),
        ("data.channels=3", "mean has 1 values"),
        ("data.std=[1]", "was trained with data.std="),
        ("model.arch=fpn", "was trained with model.arch=linknet"),
    ],
)
def test_what_the_networks_were_trained_as_cannot_be_set(folder, override, reason):
    """As of a run."""
    with pytest.raises((CheckpointError, ConfigError), match=reason):
        Predictor(folder, [override])


def test_a_manifest_is_text_that_people_can_read(folder):
    """And that other programs can check: SHA-256 over the sorted JSON without spaces."""
    content = json.loads((folder / MANIFEST).read_text())
    sha256 = content.pop("sha256")

    plain = json.dumps(content, sort_keys=True, separators=(",", ":"))
    assert sha256 == hashlib.sha256(plain.encode()).hexdigest()
