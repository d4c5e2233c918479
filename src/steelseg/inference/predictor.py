"""A trained run as one object: strips in, masks out.

    predictor = Predictor("outputs/RUN")
    mask_chw = predictor("strip.jpg")

The command line, out-of-fold prediction and this class use the same path (`inference.forward`).
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from steelseg.data.formats.images import read_image
from steelseg.errors import DataError, raising_out_of_memory
from steelseg.inference.cascade import Cascade
from steelseg.inference.ensemble import Ensemble
from steelseg.inference.forward import batches, forward_plan, images_at_once
from steelseg.inference.model_source import AnyPath, ResolvedModel, resolve_model
from steelseg.models.device import pick_device
from steelseg.run.tuned_postprocess import gate_of, mask_maker

_LESS_MEMORY = (
    "There is not enough memory to predict. Set inference.crops=true for long strips, lower "
    "train.batch_size_val, or set inference.ensemble=sequential for several networks."
)


class Predictor:
    """The mean of a run's folds, or of any checkpoints, with their post-processing.

    Post-processing comes from the settings of a run folder, else from `steelseg tune`, else it is a
    threshold of 0.5. Checkpoints contain no tuned values.
    """

    def __init__(
        self,
        source: AnyPath | Sequence[AnyPath] | ResolvedModel,
        overrides: Sequence[str] = (),
        *,
        folds: Sequence[int] | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        """Load the checkpoints.

        The attribute `sha256` identifies the model: it covers everything that a mask depends
        on, networks and settings. `identity` adds the device and the batch size. `masks` is the
        post-processing, `batch_size` the largest number of strips in one batch; with 1, the
        result of a strip does not depend on other strips, to the bit.

        Args:
            source: A run folder, a bundle, a checkpoint, or several checkpoints; or the result
                of `resolve_model`, with overrides and folds already applied.
            overrides: Settings to change, such as "postprocess.threshold=0.4".
            folds: Folds of the run or bundle to use; None uses every trained one.
            device: Where to predict; None uses a GPU if there is one.

        Raises:
            CheckpointError: if there is no checkpoint, or one cannot be used.
            ConfigError: if an override is wrong.
            DataError: if postprocess.json is damaged.
        """
        if not isinstance(source, ResolvedModel):
            source = resolve_model(source, overrides, folds=folds)
        model = source
        self.config = model.config
        where = torch.device(device) if device else pick_device()
        sequential = model.config.inference.ensemble == "sequential"
        self._networks: Ensemble | Cascade = Ensemble(
            model.members,
            sequential=sequential,
            device=where,
            gate=gate_of(model.config, model.masks),
        )
        self._plan = forward_plan(model.config)
        self.batch_size = images_at_once(
            model.config.train.batch_size_val,
            where,
            side_by_side=any(member.side_by_side for member in model.members),
        )
        if model.screener is not None:
            self._networks = Cascade(
                Ensemble([model.screener.member], sequential=False, device=where),
                self._networks,
                first_plan=forward_plan(model.screener.config),
                cut=model.screener.cut,
                batch_size=self.batch_size,
                num_classes=model.config.data.num_classes,
                by_presence=model.screener.config.model.is_classifier,
            )
        self.masks = model.masks
        self.sha256 = model.sha256
        # On a GPU the last bits depend on the strips of a batch, and so on its size.
        self.identity = {
            **model.identity,
            "device": str(where),
            "batch size": self.batch_size,
        }
        self._to_mask = mask_maker(model.masks)

    @property
    def class_names(self) -> tuple[str, ...]:
        """The name of each class, class 1 first."""
        return self.config.data.names

    def __call__(self, image: AnyPath | NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Find the defects of one strip.

        Args:
            image: An image file, or its pixels: uint8, shape (H, W) or (H, W, 3).

        Returns:
            Masks, shape (classes, H, W), bool.

        Raises:
            DataError: if the image cannot be read.
        """
        return self._to_mask(self.probs(image))

    def probs(self, image: AnyPath | NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return probabilities of one strip, shape (classes, H, W), in [0, 1]; see `__call__`."""
        # A copy, because torch does not accept flipped or read-only arrays.
        probs_chw: NDArray[np.float32] = self.probs_of(np.stack([self._load(image)]))[0]
        return probs_chw

    def probs_of(self, images_nhwc: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Predict one batch in the caller's thread.

        Args:
            images_nhwc: At most `batch_size` strips, shape (N, H, W, channels).

        Returns:
            Probabilities, shape (N, classes, H, W), in [0, 1].

        Raises:
            OutOfMemory: if the processor or the GPU has too little memory.
        """
        with raising_out_of_memory(_LESS_MEMORY):
            return self._networks.predict_now(images_nhwc, self._plan)

    def stream(
        self, image_ids: Iterable[str], read: Callable[[str], NDArray[np.uint8]]
    ) -> Iterator[tuple[str, NDArray[np.uint8], NDArray[np.bool_], NDArray[np.float32]]]:
        """Predict many strips with constant memory.

        Args:
            image_ids: Strips, in the order of the results.
            read: From image_id to image_hwc; called in threads, ahead of prediction.

        Yields:
            image_id, image_hwc, mask_chw and probs_chw of each strip.

        Raises:
            OutOfMemory: if the processor or the GPU has too little memory.
        """
        with raising_out_of_memory(_LESS_MEMORY):
            strips = batches(image_ids, read, batch_size=self.batch_size)
            for image_id, image_hwc, probs_chw in self._networks.predict(strips, self._plan):
                yield image_id, image_hwc, self._to_mask(probs_chw), probs_chw

    def _load(self, image: AnyPath | NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Read or convert one image to the channels that the networks take."""
        channels = self.config.data.channels
        if isinstance(image, str | Path):
            return read_image(Path(image), channels=channels)
        depth = image.shape[2] if image.ndim == 3 else 1
        fits = image.ndim in (2, 3) and depth in (1, 3) and image.size > 0
        if image.dtype != np.uint8 or not fits:
            raise DataError(
                f"The image is {image.dtype} of shape {image.shape}. Expected uint8 of shape "
                "(H, W) or (H, W, 3)."
            )
        image_hwc = image.reshape(*image.shape[:2], depth)
        if image_hwc.shape[2] == channels:
            return image_hwc
        if channels == 3:
            return np.repeat(image_hwc, 3, axis=2)
        return np.asarray(cv2.cvtColor(image_hwc, cv2.COLOR_RGB2GRAY), np.uint8)[..., None]
