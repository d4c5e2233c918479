"""`steelseg watch`, killed at random moments while strips arrive, and restarted.

A camera writes strips in two parts with a pause in between; a web server receives the deliveries.
In the end every strip must have one line, with the masks of the predictor, and the server each line
of the file at least once and no other.
"""

import json
import multiprocessing
import os
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from unittest import mock

import numpy as np

from steelseg.data.formats import rle
from torture.outcome import Outcome

NAME = "a watch killed at a random moment: no strip lost, none twice, every line delivered"
COUNT = 40
QUICK = 2

# Strips for each kill, so that there is always one at hand.
_STRIPS = 3
_SECONDS = 0.6
_CONTEXT = multiprocessing.get_context("forkserver")


def run(count):
    """Kill a watch so often, then let it end its work."""
    begun = time.monotonic()
    chance = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as place, _receiver() as (url, delivered):
        root = Path(place)
        (root / "camera").mkdir()
        _train(root)
        for number in range(count):
            names = range(number * _STRIPS, (number + 1) * _STRIPS)
            camera = threading.Thread(target=_fill, args=(root, names))
            camera.start()
            process, done = _start(root, url), _lines(root)
            # What a kill is to meet begins when the network is loaded and a line comes.
            _wait(lambda done=done: _lines(root) > done)
            time.sleep(chance.uniform(0, _SECONDS))
            process.kill()
            process.join()
            camera.join()
        strips = count * _STRIPS
        process = _start(root, url)
        _wait(lambda: _lines(root) >= strips and len(set(delivered)) >= strips)
        time.sleep(_SECONDS)
        process.kill()
        process.join()
        fault = _fault(root, strips, delivered)
        again = len(delivered) - len(set(delivered))
    note = fault or f"{strips} strips, {again} lines delivered twice"
    return Outcome(0 if fault else count, count, time.monotonic() - begun, note)


def _train(root):
    """Make strips, and a run of a tiny network."""
    from steelseg.config.load import build_config
    from steelseg.data.synthetic.dataset import make_dataset
    from steelseg.training.train import train_run

    make_dataset(root / "data", num_train=8, num_test=2, height=64, width=160, min_per_class=1)
    data = {"root": root / "data", "img_height": 64, "img_width": 160, "num_folds": 2}
    model = {"arch": "linknet", "encoder": "tu-test_resnet", "encoder_weights": "none"}
    train = {"epochs": 1, "num_workers": 0, "amp": False}
    config = build_config({"data": data, "model": model, "train": train})
    with mock.patch("builtins.print"):
        train_run(config, root / "run", folds=[0])


def _fill(root, names):
    """Write strips into the camera's folder, each in two parts."""
    sources = sorted((root / "data" / "train_images").iterdir())
    for number in names:
        # A comment segment makes every file another one.
        content = sources[number % len(sources)].read_bytes()
        content = content[:2] + b"\xff\xfe\x00\x08" + b"%06d" % number + content[2:]
        with (root / "camera" / f"{number:04d}.jpg").open("wb") as file:
            file.write(content[: len(content) // 2])
            file.flush()
            time.sleep(0.2 * _SECONDS)
            file.write(content[len(content) // 2 :])


def _start(root, url):
    """Start a watch in a process that has imported torch already."""
    with mock.patch.dict(os.environ, {"OMP_NUM_THREADS": "1"}):
        _CONTEXT.set_forkserver_preload(["steelseg.watch.watch"])
        process = _CONTEXT.Process(target=_watch, args=(root, url))
        process.start()
    return process


def _watch(root, url):
    """Watch until the end."""
    from steelseg import Predictor
    from steelseg.watch.watch import WatchPlan, watch_folder

    with (root / "said.txt").open("a") as said:
        os.dup2(said.fileno(), sys.stderr.fileno())
    plan = WatchPlan(settle=0.05, patience=1.0, overlays=True, webhook=url)
    predictor = Predictor(root / "run", ["postprocess.threshold=0.48"])
    watch_folder(predictor, root / "camera", root / "out", plan, is_stopped=lambda: False)


def _lines(root):
    path = root / "out" / "results.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def _wait(condition):
    end = time.monotonic() + 120
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)


def _fault(root, strips, delivered):
    """Return what is wrong in the end; empty if nothing is."""
    from steelseg import Predictor

    lines = (root / "out" / "results.jsonl").read_bytes().splitlines(keepends=True)
    found = [json.loads(line) for line in lines]
    predicted = sorted(line["image_id"] for line in found if "refused" not in line)
    if predicted != [f"{number:04d}.jpg" for number in range(strips)]:
        return f"{strips} strips have {len(predicted)} lines"
    if set(delivered) != set(lines):
        odd = next(iter(set(delivered) ^ set(lines)))
        return f"of {len(lines)} lines {len(set(delivered))} were delivered, odd: {odd[:60]!r}"
    if list(dict.fromkeys(delivered)) != lines:
        return "lines were delivered out of order"
    predictor = Predictor(root / "run", ["postprocess.threshold=0.48"])
    for line in found[:: max(1, len(found) // 20)]:
        if "refused" not in line and _masks(line) != _expected(predictor, root, line):
            return f"{line['image_id']} has other masks"
    return ""


def _masks(line):
    """The mask of each class, as its run-length encoding."""
    masks_chw = np.zeros((4, line["height"], line["width"]), dtype=bool)
    for defect in line["defects"]:
        masks_chw[defect["class_id"] - 1] |= rle.decode(defect["rle"], *masks_chw.shape[1:])
    return [rle.encode(mask_hw) for mask_hw in masks_chw]


def _expected(predictor, root, line):
    return [rle.encode(mask_hw) for mask_hw in predictor(root / "camera" / line["image_id"])]


class _receiver:  # noqa: N801
    """Run a web server that accepts every line; yield its URL and the lines."""

    def __enter__(self):
        delivered = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                length = int(self.headers["Content-Length"])
                line = self.rfile.read(length)
                # Of a sender that was killed in between, less comes than it said.
                if len(line) == length:
                    delivered.append(line)
                    self.send_response(200)
                    self.end_headers()

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,))
        self.thread.start()
        return f"http://127.0.0.1:{self.server.server_port}", delivered

    def __exit__(self, *_):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()
