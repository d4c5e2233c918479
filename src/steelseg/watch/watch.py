"""The watch stage: predict strips as they arrive in a folder, until stopped.

Reads  the folder, OUT/results.jsonl
Writes OUT/results.jsonl; on request overlays/, masks/ and deliveries to receivers

A strip is done when its line is on disk; its pictures are written before that. So a kill at any
moment loses no strip and writes no line twice. The watched folder is never changed.
"""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steelseg.errors import ConfigError, DataError, OutOfMemory
from steelseg.inference.predictor import Predictor
from steelseg.run.bundle_manifest import is_bundle
from steelseg.watch.arrivals import Arrivals
from steelseg.watch.delivery import Delivery
from steelseg.watch.mqtt import mqtt
from steelseg.watch.pieces import Joiner, Strip
from steelseg.watch.results import RESULTS, Results, refused_line, result_line
from steelseg.watch.throughput import Meter
from steelseg.watch.webhook import webhook
from steelseg.writers.exchange import write_pngs
from steelseg.writers.overlays import OverlayWriter

# Limits of the strips that are read before they are predicted, so that memory stays flat.
_MOST_STRIPS, _MOST_PIXELS = 32, 20_000_000

# Seconds between two listings of the folder; more if listing it takes long.
_PAUSE, _LONGEST_PAUSE = 0.2, 2.0

# Seconds that each receiver gets for its current line when the watch stops.
_LAST_SECONDS = 3.0


@dataclass(frozen=True)
class WatchPlan:
    """Options of a watch."""

    settle: float = 0.5
    """Seconds that a file must stay unchanged before it is read."""

    patience: float = 30.0
    """Seconds after which an unreadable file, or a strip with missing pieces, is refused."""

    pieces: str | None = None
    """A regular expression with groups `strip` and `piece`; None if every file is a strip."""

    piece_count: int | None = None
    """Number of pieces of every strip, if the names do not contain it."""

    overlays: bool = False
    """Draw each strip with the outlines of its defects."""

    masks: bool = False
    """Write a PNG for each class found on a strip."""

    webhook: str | None = None
    """URL that each line is posted to."""

    mqtt: str | None = None
    """mqtt://HOST/TOPIC that each line is published to."""


def watch_folder(
    predictor: Predictor,
    folder: Path,
    out: Path,
    plan: WatchPlan,
    *,
    is_stopped: Callable[[], bool],
) -> None:
    """Predict strips as they arrive in a folder.

    Args:
        predictor: The trained model.
        folder: Where the strips arrive.
        out: Where results go.
        plan: The options.
        is_stopped: Whether to stop; called after each strip.

    Raises:
        ConfigError: if an option is wrong, or another process writes to `out`.
        DataError: if the folder is missing, or earlier results are damaged.
    """
    _refuse_places(folder, out)
    joiner = Joiner(plan.pieces, count=plan.piece_count, patience=plan.patience)
    with ExitStack() as stack:
        senders = {}
        if plan.webhook is not None:
            senders["webhook"] = webhook(plan.webhook)
        if plan.mqtt is not None:
            senders["mqtt"] = stack.enter_context(mqtt(plan.mqtt))
        results = stack.enter_context(Results(out / RESULTS))
        deliveries = {
            name: Delivery(name, results.path, send, size=results.size)
            for name, send in senders.items()
        }
        masks = out / "masks" if plan.masks else None
        drawer = OverlayWriter(out / "overlays", predictor.class_names) if plan.overlays else None
        arrivals = Arrivals(
            folder,
            channels=predictor.config.data.channels,
            settle=plan.settle,
            patience=plan.patience,
            is_known=results.has_file,
        )
        meter = Meter()
        stack.callback(lambda: meter.close(_behind(deliveries)))
        for delivery in deliveries.values():
            delivery.start()
            stack.callback(delivery.stop, seconds=_LAST_SECONDS)
        watch = _Watch(predictor, arrivals, joiner, results, deliveries, meter, drawer, masks)
        watch.run(is_stopped)


def _refuse_places(folder: Path, out: Path) -> None:
    """Raise an error unless the folder exists and the results go elsewhere."""
    if not folder.is_dir():
        raise DataError(
            f"{folder} is not a folder. Create it, and let the camera write its files there."
        )
    watched, target = folder.resolve(), out.resolve()
    if watched in (target, target / "overlays", target / "masks"):
        raise ConfigError(f"--out {out} would put pictures into {folder}. Choose another folder.")
    if any(is_bundle(parent) for parent in (target, *target.parents)):
        raise ConfigError(f"--out {out} is in a bundle, which must not be changed. Choose another.")


def _behind(deliveries: dict[str, Delivery]) -> dict[str, int]:
    """Return the number of bytes that each receiver has not confirmed."""
    return {name: delivery.behind for name, delivery in deliveries.items()}


@dataclass(frozen=True)
class _Watch:
    """The steps that a strip passes through."""

    predictor: Predictor
    arrivals: Arrivals
    joiner: Joiner
    results: Results
    deliveries: dict[str, Delivery]
    meter: Meter
    drawer: OverlayWriter | None
    masks: Path | None

    def run(self, is_stopped: Callable[[], bool]) -> None:
        """Poll, predict and write until stopped."""
        while not is_stopped():
            begin = time.monotonic()
            strips = list(self._gather())
            polled = time.monotonic() - begin
            self._predict(strips, is_stopped)
            for delivery in self.deliveries.values():
                delivery.more(self.results.size)
            waiting = self.arrivals.waiting + self.joiner.waiting
            self.meter.show(waiting, _behind(self.deliveries))
            if not strips:
                time.sleep(min(max(_PAUSE, 2 * polled), _LONGEST_PAUSE))

    def _gather(self) -> Iterator[Strip]:
        """Yield some complete strips that have no line yet; refuse those that never will be."""
        pixels = count = 0
        for strip in self._arrived():
            if strip.image_hwc is None:
                self._refuse(strip, strip.reason)
            elif not self.results.has_strip(strip.image_id, strip.sha256):
                yield strip
                count += 1
                pixels += strip.image_hwc.size
            if count == _MOST_STRIPS or pixels >= _MOST_PIXELS:
                return

    def _arrived(self) -> Iterator[Strip]:
        """Yield the strips that have arrived, complete and refused ones."""
        yield from self.joiner.end(time.monotonic())
        for arrival in self.arrivals.poll():
            yield from self.joiner.add(arrival, time.monotonic())

    def _predict(self, strips: Iterable[Strip], is_stopped: Callable[[], bool]) -> None:
        """Predict strips and write their lines; refuse those that cannot be predicted."""
        # Numbered, because two strips of the same name may arrive together.
        left = {str(number): strip for number, strip in enumerate(strips)}
        count = len(left)
        try:
            for number, image_hwc, mask_chw, probs_chw in self.predictor.stream(
                list(left), lambda number: _pixels(left[number])
            ):
                self._write(left[number], image_hwc, mask_chw, probs_chw)
                del left[number]
                if is_stopped():
                    return
            return
        except (ConfigError, DataError, OutOfMemory) as error:
            # Only the text is kept: the traceback of an OutOfMemory would hold memory.
            reason = str(error)
        if count == 1:
            self._refuse(left["0"], reason)
            return
        # It is unknown which strip failed, so each is predicted alone.
        for strip in list(left.values()):
            self._predict([strip], is_stopped)
            if is_stopped():
                return

    def _write(
        self,
        strip: Strip,
        image_hwc: NDArray[np.uint8],
        mask_chw: NDArray[np.bool_],
        probs_chw: NDArray[np.float32],
    ) -> None:
        """Write all results of a strip, its line last."""
        if self.drawer is not None:
            self.drawer.add(strip.image_id, image_hwc, mask_chw)
        if self.masks is not None:
            write_pngs(self.masks, strip.image_id, mask_chw)
        lag_s = time.monotonic() - strip.seen
        self._add(
            result_line(
                strip,
                mask_chw,
                probs_chw,
                class_names=self.predictor.class_names,
                model_sha256=self.predictor.sha256,
                lag_s=lag_s,
            )
        )
        self.meter.count(lag_s=lag_s, refused=False)

    def _refuse(self, strip: Strip, reason: str) -> None:
        """Write once why a strip was not predicted."""
        if self.results.has_strip(strip.image_id, strip.sha256, reason):
            return
        print(f"warning: {strip.image_id} is refused: {reason}", file=sys.stderr, flush=True)
        lag_s = time.monotonic() - strip.seen
        self._add(refused_line(strip, reason, lag_s=lag_s))
        self.meter.count(lag_s=lag_s, refused=True)

    def _add(self, line: dict[str, Any]) -> None:
        """Append a line, and notify the deliveries."""
        self.results.add(line)
        for delivery in self.deliveries.values():
            delivery.more(self.results.size)


def _pixels(strip: Strip) -> NDArray[np.uint8]:
    """Return the pixels of a strip that was not refused."""
    assert strip.image_hwc is not None
    return strip.image_hwc
