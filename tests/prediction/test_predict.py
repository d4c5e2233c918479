import csv
import json
import os
import shutil
from unittest import mock

import cv2
import numpy as np
import pytest

from steelseg import Predictor
from steelseg.data.formats import rle
from steelseg.data.formats.mask_csv import JOINED, SEPARATE
from steelseg.errors import DataError
from steelseg.files.journal import Journal
from steelseg.prediction.predict import predict_folder


@pytest.fixture
def root(trained_run, tmp_path):
    """Give a data set that a test may change: three test strips, Kaggle's two-column sample."""
    folder = tmp_path / "data"
    shutil.copytree(trained_run.parent / "input" / "test_images", folder / "test_images")
    shutil.copy(folder / "test_images" / "test_000.jpg", folder / "test_images" / "b.jpg")
    write_sample(folder, JOINED, ["test_001.jpg", "b.jpg", "test_000.jpg"])
    return folder


def write_sample(root, columns, image_ids):
    with (root / "sample_submission.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        for image_id in image_ids:
            for class_id in (1, 2):
                cells = {"ImageId": image_id, "ClassId": class_id, "EncodedPixels": "1 1"}
                writer.writerow(cells | {"ImageId_ClassId": f"{image_id}_{class_id}"})


def make_predictor(trained_run, root, *overrides):
    """Give the run with a threshold that splits its probabilities, so that masks have pixels."""
    first = Predictor(trained_run).probs(root / "test_images" / "test_000.jpg")
    return Predictor(
        trained_run,
        [f"data.root={root}", f"postprocess.threshold={np.median(first)}", *overrides],
    )


def read(path):
    """Read header and rows of a submission."""
    with path.open(newline="") as file:
        header, *rows = csv.reader(file)
    return tuple(header), rows


@pytest.mark.parametrize("columns", [JOINED, JOINED[::-1], SEPARATE])
def test_a_submission_has_the_header_and_the_order_of_its_sample(
    trained_run, root, tmp_path, columns
):
    """And a row for every pair of image and class."""
    order = ["test_001.jpg", "b.jpg", "test_000.jpg"]
    write_sample(root, columns, order)

    predict_folder(make_predictor(trained_run, root), tmp_path / "out")

    header, rows = read(tmp_path / "out" / "submission.csv")
    cells = [dict(zip(header, row, strict=True)) for row in rows]
    pairs = [c.get("ImageId_ClassId") or f"{c['ImageId']}_{c['ClassId']}" for c in cells]
    assert header == columns
    assert pairs == [f"{image_id}_{class_id}" for image_id in order for class_id in (1, 2)]


def test_the_masks_of_a_submission_are_those_of_the_predictor(trained_run, root, tmp_path):
    """The command line and the class send strips the same way."""
    predictor = make_predictor(trained_run, root)

    written = predict_folder(predictor, tmp_path / "out")

    assert written == [tmp_path / "out" / "submission.csv"]
    _, rows = read(written[0])
    found = {name: rle.decode(text, 32, 96) for name, text in rows}
    for image_id in ("test_000.jpg", "b.jpg"):
        mask_chw = predictor(root / "test_images" / image_id)
        assert mask_chw.any()
        for class_id, mask in enumerate(mask_chw, start=1):
            np.testing.assert_array_equal(found[f"{image_id}_{class_id}"], mask)


def test_without_a_sample_all_images_are_predicted_by_name(trained_run, root, tmp_path):
    """In the first of the two forms."""
    (root / "sample_submission.csv").unlink()

    predict_folder(make_predictor(trained_run, root), tmp_path)

    header, rows = read(tmp_path / "submission.csv")
    assert header == JOINED
    assert [name for name, _ in rows][::2] == ["b.jpg_1", "test_000.jpg_1", "test_001.jpg_1"]


def test_images_that_the_sample_leaves_out_come_last(trained_run, root, tmp_path):
    """Nothing that lies in test_images is lost in silence."""
    write_sample(root, JOINED, ["test_001.jpg"])

    predict_folder(make_predictor(trained_run, root), tmp_path)

    _, rows = read(tmp_path / "submission.csv")
    assert [name for name, _ in rows][::2] == ["test_001.jpg_1", "b.jpg_1", "test_000.jpg_1"]


def test_an_image_that_the_sample_names_must_be_there(trained_run, root, tmp_path):
    """A submission without it would be refused after the upload."""
    write_sample(root, JOINED, ["test_001.jpg", "gone.jpg"])

    with pytest.raises(DataError, match=r"sample_submission.csv names gone.jpg, which is not in"):
        predict_folder(make_predictor(trained_run, root), tmp_path / "out")

    assert not (tmp_path / "out").exists()


def test_any_folder_of_images_can_be_predicted(trained_run, root, tmp_path):
    """Of many sizes, JPEG and PNG; the sample names none of them."""
    images = tmp_path / "new"
    images.mkdir()
    for name, size in (("a.png", (20, 50)), ("b.JPG", (32, 96)), ("c.jpeg", (70, 33))):
        assert cv2.imwrite(str(images / name), np.full(size, 90, np.uint8))
    (images / "notes.txt").write_text("not an image")

    predict_folder(make_predictor(trained_run, root), tmp_path / "out", images=images)

    _, rows = read(tmp_path / "out" / "submission.csv")
    assert [name for name, _ in rows][::2] == ["a.png_1", "b.JPG_1", "c.jpeg_1"]


def test_a_folder_without_images_is_refused(trained_run, root, tmp_path):
    """An empty submission would look like a clean coil."""
    (tmp_path / "empty").mkdir()

    for folder, reason in (("empty", "contains no .jpg"), ("no_such", "is not a folder")):
        with pytest.raises(DataError, match=reason):
            predict_folder(
                make_predictor(trained_run, root), tmp_path / "out", images=tmp_path / folder
            )
    assert not (tmp_path / "out").exists()


def test_formats_and_overlays_come_beside_the_submission(trained_run, root, tmp_path):
    """Each at most once, with the same masks."""
    predictor = make_predictor(trained_run, root)

    written = predict_folder(
        predictor, tmp_path / "out", formats=["coco", "png", "jsonl", "coco"], overlays=True
    )

    assert [path.name for path in written] == [
        "submission.csv",
        "predictions.json",
        "masks",
        "predictions.jsonl",
        "overlays",
    ]
    assert all(path.exists() for path in written)
    assert len(list((tmp_path / "out" / "overlays").iterdir())) == 3
    coco = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert len(coco["images"]) == 3
    assert len((tmp_path / "out" / "predictions.jsonl").read_text().splitlines()) == 3
    mask = cv2.imread(
        str(tmp_path / "out" / "masks" / "test_000.jpg_class_1.png"), cv2.IMREAD_GRAYSCALE
    )
    expected = predictor(root / "test_images" / "test_000.jpg")[0]
    np.testing.assert_array_equal(mask > 0, expected)


def predict_killed(predictor, output_dir, killed_at, **kwargs):
    """Predict until the writing of an entry of the journal is killed half-way."""
    add = Journal.add

    def add_or_die(journal, entry):
        if entry.image_id == killed_at:
            journal._file.seek(0, os.SEEK_END)
            journal._file.write(b'5f3a1c9d8b7a6f5e {"image_id": "')
            journal._file.flush()
            raise KeyboardInterrupt
        add(journal, entry)

    with mock.patch.object(Journal, "add", add_or_die), pytest.raises(KeyboardInterrupt):
        predict_folder(predictor, output_dir, **kwargs)


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.*")}


EVERYTHING = {"formats": ["coco", "png", "jsonl"], "overlays": True}


@pytest.mark.parametrize("batch_size", [1, 2])
def test_a_killed_prediction_goes_on_to_the_same_files(
    trained_run, root, tmp_path, capsys, batch_size
):
    """Only the strips that are missing are predicted; where strips hang together, their block."""
    predictor = make_predictor(trained_run, root)
    predictor.batch_size = batch_size
    predict_folder(predictor, tmp_path / "whole", **EVERYTHING)
    predict_killed(predictor, tmp_path / "killed", "test_000.jpg", **EVERYTHING)
    assert not (tmp_path / "killed" / "submission.csv").exists()

    with mock.patch.object(predictor, "stream", wraps=predictor.stream) as stream:
        predict_folder(predictor, tmp_path / "killed", **EVERYTHING)

    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")
    assert "2 of 3 images were predicted before" in capsys.readouterr().err
    assert stream.call_count == 1


def test_an_image_that_changed_since_is_predicted_again(trained_run, root, tmp_path):
    """Its old rows are not mixed with the new ones."""
    predictor = make_predictor(trained_run, root)
    predict_killed(predictor, tmp_path / "killed", "test_000.jpg")
    image = root / "test_images" / "b.jpg"
    assert cv2.imwrite(str(image), cv2.imread(str(image))[:, ::-1])
    predict_folder(predictor, tmp_path / "whole")

    predict_folder(predictor, tmp_path / "killed")

    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


def test_a_picture_that_was_removed_is_written_again(trained_run, root, tmp_path):
    """The journal speaks of files that someone may have tidied away."""
    predictor = make_predictor(trained_run, root)
    predict_killed(predictor, tmp_path, "test_000.jpg", **EVERYTHING)
    (tmp_path / "overlays" / "b.jpg.png").unlink()

    predict_folder(predictor, tmp_path, **EVERYTHING)

    assert (tmp_path / "overlays" / "b.jpg.png").exists()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"overrides": ["postprocess.threshold=0.9"]}, "settings"),
        ({"folds": [1]}, "networks"),
        ({"formats": ["jsonl"]}, "files"),
    ],
)
def test_rows_of_another_prediction_are_not_gone_on_with(
    trained_run, root, tmp_path, capsys, change, reason
):
    """Half a submission of each would look like a whole one of either."""

    def make(overrides=(), folds=(0,)):
        return Predictor(trained_run, [f"data.root={root}", *overrides], folds=folds)

    formats = {"formats": change.pop("formats", ())}
    predict_folder(make(**change), tmp_path / "whole", **formats)
    predict_killed(make(), tmp_path / "killed", "test_000.jpg")

    predict_folder(make(**change), tmp_path / "killed", **formats)

    journal = tmp_path / "killed" / "prediction.journal"
    warning = f"warning: {journal} was written with other {reason}. Prediction starts over."
    assert warning in capsys.readouterr().err
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


def test_settings_that_no_mask_depends_on_do_not_restart_a_prediction(
    trained_run, root, tmp_path, capsys
):
    """The journal is of the same model, by the identity that results and the server name."""

    def make(*overrides):
        return Predictor(trained_run, [f"data.root={root}", *overrides])

    predict_killed(make(), tmp_path, "test_000.jpg")

    predict_folder(make("train.epochs=7", "data.pixel_mm=0.5"), tmp_path)

    assert "starts over" not in capsys.readouterr().err


def test_an_image_that_cannot_be_read_leaves_no_submission(trained_run, root, tmp_path):
    """Half a submission looks like a whole one. Once the image is mended, the rest follows."""
    image = root / "test_images" / "test_000.jpg"
    content = image.read_bytes()
    image.write_bytes(content[:-200])
    predictor = Predictor(trained_run, [f"data.root={root}"])

    with pytest.raises(DataError, match=r"test_000.jpg: the image is truncated"):
        predict_folder(predictor, tmp_path / "out", formats=["coco", "jsonl"])

    assert [path.name for path in (tmp_path / "out").iterdir()] == ["prediction.journal"]
    image.write_bytes(content)
    predict_folder(predictor, tmp_path / "out", formats=["coco", "jsonl"])
    assert len(contents(tmp_path / "out")) == 3
