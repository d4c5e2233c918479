"""The watching stage: strips of a folder are predicted as they come, until somebody stops it.

Reads  the folder, OUT/results.jsonl
Writes OUT/results.jsonl; on request overlays/, masks/ and what is delivered to receivers

A strip counts as done when its line is on the disk; pictures are written before that. So a kill
at any moment loses no strip and writes no line twice. The folder itself is left as it is.
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
from steelseg.watch.result_line import refused_line, result_line
from steelseg.watch.results import RESULTS, Results
from steelseg.watch.throughput import Meter
from steelseg.watch.webhook import webhook
from steelseg.writers.exchange import write_pngs
from steelseg.writers.overlays import OverlayWriter

# Strips that are read before they are predicted, so that memory stays flat.
_MOST_STRIPS, _MOST_PIXELS = 32, 20_000_000

# Seconds between two looks at the folder; more where listing it takes long.
_PAUSE, _LONGEST_PAUSE = 0.2, 2.0

# Seconds that each receiver gets for the line at hand when all ends.
_LAST_SECONDS = 3.0


@dataclass(frozen=True)
class WatchPlan:
    """What is taken for a strip, and where its results go."""

    settle: float = 0.5
    """Seconds that a file must stand still before it is read."""

    patience: float = 30.0
    """Seconds after which a file that cannot be read, or a strip that lacks pieces, is refused."""

    pieces: str | None = None
    """A regular expression with groups `strip` and `piece`; None: every file is a strip."""

    piece_count: int | None = None
    """Pieces of every strip, where their names do not say it."""

    overlays: bool = False
    """Draw each strip with its outlines."""

    masks: bool = False
    """Write a PNG for each class that a strip shows."""

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
    """Predict strips as they come into a folder.

    Args:
        predictor: The trained model.
        folder: Where the strips come.
        out: Where results go.
        plan: What is taken for a strip, and where its results go.
        is_stopped: Whether to end; asked after each strip.

    Raises:
        ConfigError: if the plan is wrong, or another process writes there.
        DataError: if the folder is not there, or earlier results are damaged.
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
        line = _Line(predictor, arrivals, joiner, results, deliveries, meter, drawer, masks)
        line.run(is_stopped)


def _refuse_places(folder: Path, out: Path) -> None:
    """Raise unless there is a folder to watch, and results go elsewhere."""
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder. The camera's files should come there.")
    watched, place = folder.resolve(), out.resolve()
    if watched in (place, place / "overlays", place / "masks"):
        raise ConfigError(f"--out {out} would put pictures into {folder}. Choose another folder.")
    if any(is_bundle(parent) for parent in (place, *place.parents)):
        raise ConfigError(f"--out {out} is in a bundle, which stays as it is. Choose another.")


def _behind(deliveries: dict[str, Delivery]) -> dict[str, int]:
    """Bytes that each receiver has not confirmed."""
    return {name: delivery.behind for name, delivery in deliveries.items()}


@dataclass(frozen=True)
class _Line:
    """Everything that a strip passes."""

    predictor: Predictor
    arrivals: Arrivals
    joiner: Joiner
    results: Results
    deliveries: dict[str, Delivery]
    meter: Meter
    drawer: OverlayWriter | None
    masks: Path | None

    def run(self, is_stopped: Callable[[], bool]) -> None:
        """Look, predict and write, again and again."""
        while not is_stopped():
            begin = time.monotonic()
            strips = list(self._gather())
            looked = time.monotonic() - begin
            self._predict(strips, is_stopped)
            for delivery in self.deliveries.values():
                delivery.more(self.results.size)
            waiting = self.arrivals.waiting + self.joiner.waiting
            self.meter.show(waiting, _behind(self.deliveries))
            if not strips:
                time.sleep(min(max(_PAUSE, 2 * looked), _LONGEST_PAUSE))

    def _gather(self) -> Iterator[Strip]:
        """Yield some strips that are whole and have no line yet; refuse what never will be."""
        pixels = count = 0
        for strip in self._come():
            if strip.image_hwc is None:
                self._refuse(strip, strip.reason)
            elif not self.results.has_strip(strip.image_id, strip.sha256):
                yield strip
                count += 1
                pixels += strip.image_hwc.size
            if count == _MOST_STRIPS or pixels >= _MOST_PIXELS:
                return

    def _come(self) -> Iterator[Strip]:
        """Yield what has come, whole strips and refused ones."""
        yield from self.joiner.end(time.monotonic())
        for arrival in self.arrivals.poll():
            yield from self.joiner.add(arrival, time.monotonic())

    def _predict(self, strips: Iterable[Strip], is_stopped: Callable[[], bool]) -> None:
        """Predict strips and write their lines; those that no network takes are refused."""
        # Numbered, because two strips of one name could come together.
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
            # No more than the text: the frames of an OutOfMemory hold memory.
            reason = str(error)
        if count == 1:
            self._refuse(left["0"], reason)
            return
        # Whichever it was, the others are predicted.
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
        """Write all about a strip, its line last."""
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
        """Say once of a strip why it was not predicted."""
        if self.results.has_strip(strip.image_id, strip.sha256, reason):
            return
        print(f"warning: {strip.image_id} is refused: {reason}", file=sys.stderr, flush=True)
        lag_s = time.monotonic() - strip.seen
        self._add(refused_line(strip, reason, lag_s=lag_s))
        self.meter.count(lag_s=lag_s, refused=True)

    def _add(self, line: dict[str, Any]) -> None:
        """Append a line, and tell those who deliver it."""
        self.results.add(line)
        for delivery in self.deliveries.values():
            delivery.more(self.results.size)


def _pixels(strip: Strip) -> NDArray[np.uint8]:
    """The pixels of a strip that was not refused."""
    assert strip.image_hwc is not None
    return strip.image_hwc
