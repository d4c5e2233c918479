"""The out-of-fold stage: predict every strip by the model that did not train on it.

Reads  RUN/folds.csv, RUN/fold_K/best_model.safetensors, data.root
Writes RUN/fold_K/oof_predictions.zarr
"""

from collections.abc import Sequence
from contextlib import closing

from steelseg.config.config import Config
from steelseg.data.checks.check import load_labels
from steelseg.data.folder import DataSet
from steelseg.data.folds import read_folds
from steelseg.data.formats.annotations import Labels
from steelseg.data.formats.images import read_image
from steelseg.inference.ensemble import Ensemble
from steelseg.inference.forward import batches, forward_plan, images_at_once
from steelseg.inference.members import check_settings_match, checkpoint_member
from steelseg.models.device import pick_device
from steelseg.progress import progress as show
from steelseg.run.ensemble_json import read_ensemble
from steelseg.run.kinds import refuse_combined
from steelseg.run.oof_store import describe_plan, new_store, write_npy
from steelseg.run.run_folder import RunFolder
from steelseg.scoring.postprocess import to_uint8


def oof_run(
    config: Config, run: RunFolder, *, folds: Sequence[int] | None = None, npy: bool = False
) -> None:
    """Predict the held-out strips of each fold.

    Args:
        config: The settings.
        run: A run with trained folds.
        folds: Which folds; None predicts every trained one.
        npy: Also write the baseline's oof_predictions.npy, float32, 4 bytes per pixel and class.

    Raises:
        CheckpointError: if a fold has no best model.
        ConfigError: if the run is a combined run.
        DataError: if the data set has changed.
    """
    if run.ensemble_json.exists():
        refuse_combined(run, f"Combine again: {read_ensemble(run).command(run.path)}.")
    folds = list(folds) if folds else run.trained_folds(config.data.num_folds)
    labels = load_labels(config.data)
    fold_of = read_folds(
        run.folds_csv, image_ids=list(labels.sizes), num_folds=config.data.num_folds
    )
    for fold in folds:
        image_ids = [image_id for image_id in labels.sizes if fold_of[image_id] == fold]
        _predict_fold(config, run, labels, image_ids, fold)
        if npy:
            run.say(f"fold {fold}: wrote {write_npy(run.oof(fold))}")


def _predict_fold(
    config: Config, run: RunFolder, labels: Labels, image_ids: Sequence[str], fold: int
) -> None:
    """Predict and store one fold."""
    folder, channels = DataSet(config.data.root).train_images, config.data.channels
    member = checkpoint_member(run.best_model(fold))
    check_settings_match(member, config)
    device, plan = pick_device(), forward_plan(config)
    ensemble = Ensemble([member], sequential=False, device=device)
    strips = batches(
        show(image_ids, len(image_ids), f"fold {fold} OOF"),
        lambda image_id: read_image(folder / image_id, channels=channels),
        batch_size=images_at_once(config.train.batch_size_val, device),
    )
    with new_store(
        run.oof(fold),
        image_ids=image_ids,
        sizes=[labels.sizes[image_id] for image_id in image_ids],
        num_classes=labels.num_classes,
        model_sha256=member.sha256,
        plan=describe_plan(plan.tta, plan.crop),
    ) as array:
        presence: list[list[float]] = []
        with closing(ensemble.predict_ungated(strips, plan)) as predicted:
            for index, (_, _, probs_chw, presence_c) in enumerate(predicted):
                _, height, width = probs_chw.shape
                array[index, :, :height, :width] = to_uint8(probs_chw)
                presence.append(presence_c.tolist())
        if config.model.presence_head:
            array.attrs["presence"] = presence
    run.say(f"fold {fold}: wrote {run.oof(fold)}")
