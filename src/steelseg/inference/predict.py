"""The prediction stage: a folder of images becomes submission.csv.

Reads  checkpoints, data.root/test_images and sample_submission.csv, or any folder
Writes OUTPUT_DIR/submission.csv; on request predictions.json, masks/, predictions.jsonl, overlays/

Each strip becomes RLE as soon as it is predicted, so memory stays flat.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from steelseg.data.images import list_images, read_image
from steelseg.data.mask_csv import JOINED, SEPARATE
from steelseg.data.sample_submission import read_sample
from steelseg.errors import ConfigError, DataError
from steelseg.inference.overlays import OverlayWriter
from steelseg.inference.predictor import Predictor
from steelseg.inference.writers import FILE_NAMES, OutputFormat, open_writer
from steelseg.progress import progress as show


def predict_folder(
    predictor: Predictor,
    output_dir: Path,
    *,
    images: Path | None = None,
    formats: Sequence[OutputFormat] = (),
    overlays: bool = False,
) -> list[Path]:
    """Predict every image of a folder.

    Args:
        predictor: The trained model.
        output_dir: Where the results go.
        images: The folder; None takes the test_images of the data set, in the order of
            sample_submission.csv where there is one.
        formats: coco, png or jsonl, beside csv.
        overlays: Also draw each strip with its outlines.

    Returns:
        The files and folders written.

    Raises:
        ConfigError: if no folder was given and the settings name none.
        DataError: if an image cannot be read, or the sample names one that is not there.
    """
    data = predictor.config.data
    # A bundle names no data set; what lies in the default's place is not its own.
    has_root = "root" in data.model_fields_set
    if images is None and not has_root:
        raise ConfigError("A bundle names no images. Give --images DIR, or data.root=DIR.")
    sample = data.root / "sample_submission.csv" if has_root else None
    folder = images or data.root / "test_images"
    image_ids = _order(folder, sample if images is None else None)
    chosen: list[OutputFormat] = list(dict.fromkeys(["csv", *formats]))
    with ExitStack() as stack:
        writers = [
            stack.enter_context(
                open_writer(
                    name,
                    output_dir,
                    class_names=predictor.class_names,
                    columns=_columns(predictor.config.inference.submission_form, sample),
                )
            )
            for name in chosen
        ]
        drawer = OverlayWriter(output_dir / "overlays", predictor.class_names) if overlays else None
        strips = predictor.stream(
            show(image_ids, len(image_ids), "predict"),
            lambda image_id: read_image(folder / image_id, channels=data.channels),
        )
        for image_id, image_hwc, mask_chw, probs_chw in strips:
            for add in writers:
                add(image_id, mask_chw, probs_chw)
            if drawer is not None:
                drawer.add(image_id, image_hwc, mask_chw)
    names = [FILE_NAMES[name] for name in chosen] + (["overlays"] if overlays else [])
    return [output_dir / name for name in names]


def _order(folder: Path, sample: Path | None) -> list[str]:
    """The images of a folder: first as the sample names them, then the others by name."""
    there = list_images(folder)
    if not there:
        raise DataError(f"{folder} holds no .jpg, .jpeg or .png file.")
    if sample is None or not sample.exists():
        return there
    wanted = list(read_sample(sample).lines)
    if absent := sorted(set(wanted) - set(there)):
        raise DataError(
            f"{sample} names {absent[0]}, which is not in {folder} ({len(absent)} such)."
        )
    return wanted + sorted(set(there) - set(wanted))


def _columns(form: str, sample: Path | None) -> tuple[str, ...]:
    """Columns of submission.csv, by setting or as in the sample."""
    if form == "auto":
        return read_sample(sample).form if sample and sample.exists() else JOINED
    return JOINED if form == ",".join(JOINED) else SEPARATE
