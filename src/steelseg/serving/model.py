"""The model that is served: a `Predictor`, warmed up, and its public description."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from steelseg.inference.predictor import Predictor
from steelseg.models.device import pick_device
from steelseg.run.bundle_manifest import is_bundle, read_manifest

# The first strips take longer, because libraries prepare what they need.
_WARM_UP = 2


class Model:
    """A model in memory. It never changes; another replaces it."""

    def __init__(
        self,
        source: Path,
        overrides: Sequence[str] = (),
        *,
        folds: Sequence[int] | None = None,
    ) -> None:
        """Load a model and predict a blank strip with it.

        Args:
            source: A run folder, a bundle or a checkpoint.
            overrides: Settings to change, such as "postprocess.threshold=0.4".
            folds: Folds of the run or bundle to use; None uses every trained one.

        Raises:
            SteelsegError: as `Predictor`.
        """
        self._predictor = Predictor(source, overrides, folds=folds)
        self.probs_of = self._predictor.probs_of
        self.sha256 = self._predictor.sha256
        self.masks = self._predictor.masks
        self.class_names = self._predictor.class_names
        self.batch_size = _concurrent(self._predictor.batch_size)
        self.channels = self._predictor.config.data.channels
        self._provenance = _provenance(source)
        self._warm_up()

    def _warm_up(self) -> None:
        data = self._predictor.config.data
        size = data.img_height or data.crop_height, data.img_width or data.crop_width
        for _ in range(_WARM_UP):
            self.probs_of(np.zeros((1, *size, data.channels), np.uint8))

    def describe(self) -> dict[str, Any]:
        """Return classes, settings and provenance, of JSON types; see `schemas.ModelInfo`."""
        config = self._predictor.config
        # A model without a hard gate has no values for it.
        per_class = {name: values for name, values in asdict(self.masks).items() if values}
        return {
            "sha256": self.sha256,
            "classes": [
                {"class": k, "name": name, **{n: v[k - 1] for n, v in per_class.items()}}
                for k, name in enumerate(self.class_names, start=1)
            ],
            "pixel_mm": config.data.pixel_mm,
            "channels": self.channels,
            "inference": config.inference.model_dump(mode="json"),
            "provenance": self._provenance,
        }


def _concurrent(batch_size: int) -> int:
    """Return how many strips are computed at the same time: at most one per thread."""
    is_cpu = pick_device().type == "cpu"
    return min(batch_size, torch.get_num_threads()) if is_cpu else batch_size


def _provenance(source: Path) -> dict[str, Any]:
    """Return where a model comes from, without paths of this machine."""
    name = source.resolve().name
    if not is_bundle(source):
        return {"source": name, "kind": "run"}
    manifest = read_manifest(source)
    return {
        "source": name,
        "kind": "bundle",
        "backend": manifest.backend,
        "precision": manifest.precision,
        "steelseg": manifest.steelseg,
        **manifest.provenance,
    }
