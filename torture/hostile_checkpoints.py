"""Malicious checkpoint files, under every name that a checkpoint is read from.

Pickles that run a command, headers with huge sizes, settings that name code or files, links. Each
is given to `train --resume`, `train --checkpoint` and `predict`, in a process that ends when it
unpickles, starts a program or opens a connection. The command must refuse it with a SteelsegError,
with little time and memory.
"""

import json
import os
import pickle
import random
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import torch

from steelseg.models.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from torture import commands, warm
from torture.outcome import Outcome
from torture.tiny import Tiny

NAME = "a hostile checkpoint is refused, and nothing in it is run"
COUNT = 10_000
QUICK = 3

_SECONDS = 20
_MEMORY = 1 << 30
_FORBIDDEN = {"pickle.find_class", "os.system", "os.exec", "os.posix_spawn", "os.fork"}
_FORBIDDEN |= {"subprocess.Popen", "socket.connect", "webbrowser.open"}

Make = Callable[[Path, Path], None]
"""Writes a hostile file; takes its path and a good checkpoint."""


class _Bomb:
    """Leaves a mark when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


def run(count: int) -> Outcome:
    """Try `count` pairs of a file and a command, or all of them."""
    begin = time.monotonic()
    pairs = [pair for pair in product(_FILES, _COMMANDS) if pair not in _HARMLESS]
    chosen = random.Random(6).sample(pairs, min(count, len(pairs)))
    faults = []
    with tempfile.TemporaryDirectory() as folder:
        tiny = Tiny.make(Path(folder), "train.epochs=2", "train.save_minutes=0")
        before = tiny.whole("before", tiny.train("before"))
        for make, command in chosen:
            if fault := _fault(tiny, before, make, command):
                faults.append(f"{make}, {command}: {fault}")
    note = "; ".join([f"{len(_FILES)} files", *faults[:1]])
    return Outcome(len(chosen) - len(faults), len(chosen), time.monotonic() - begin, note)


def _fault(tiny: Tiny, before: Path, make: str, command: str) -> str:
    """Give one file to one command; return what is wrong with its reaction."""
    tiny.remove("run")
    fold = tiny.folder / "run" / "fold_0"
    shutil.copytree(before, fold.parent)
    good = shutil.copy(fold / "last" / "epoch_0002.safetensors", tiny.folder / "good.safetensors")
    hostile = tiny.folder / "hostile.safetensors"
    targets = sorted(fold.rglob("*.safetensors")) if command == "resume" else [hostile]
    for path in targets:
        path.unlink(missing_ok=True)
        _FILES[make](path, good)
    begin = time.monotonic()
    process = warm.begin(run_watched, _COMMANDS[command](tiny, hostile), output=tiny.output("run"))
    code = warm.end(process, 60)
    lines = tiny.output("run").read_text().splitlines()
    if (tiny.folder / "mark").exists():
        return "code was run"
    if time.monotonic() - begin > _SECONDS:
        return "it took too long"
    if code != 1 or not any(x.startswith("error: ") for x in lines) or "Traceback" in str(lines):
        return f"exit code {code}, it said {lines[-3:]}"
    return ""


def run_watched(command: commands.Command) -> int:
    """Run a command that exits with 99 if the checkpoint makes it do something forbidden."""
    baseline = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    def watch(event: str, _: tuple[Any, ...]) -> None:
        if event in _FORBIDDEN:
            os.write(2, f"{event}\n".encode())
            os._exit(99)

    sys.addaudithook(watch)
    code = commands.run(command)
    grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - baseline)
    return code if grown < _MEMORY else 98


def _pickled(protocol: int) -> Make:
    def make(path: Path, good: Path) -> None:
        path.write_bytes(pickle.dumps(_Bomb(good.with_name("mark")), protocol))

    return make


def _torch_saved(*, zipped: bool) -> Make:
    def make(path: Path, good: Path) -> None:
        bomb = {"model": _Bomb(good.with_name("mark"))}
        torch.save(bomb, path, _use_new_zipfile_serialization=zipped)

    return make


def _header(length: int, content: bytes, *, size: int = 0) -> Make:
    """Return a file with this header length; `size` makes it a sparse file."""

    def make(path: Path, _: Path) -> None:
        with path.open("wb") as file:
            file.write(length.to_bytes(8, "little") + content)
            if size:
                file.truncate(size)

    return make


def _tensors(entries: dict[str, Any], *, data: int = 0) -> Make:
    """A header of some entries, as it should be, and some bytes behind it."""
    text = json.dumps(entries).encode()
    return _header(len(text), text + bytes(data))


def _state(**changes: Any) -> Make:
    """A good checkpoint with another state, and a SHA-256 that fits it."""

    def make(path: Path, good: Path) -> None:
        old = load_checkpoint(good)
        save_checkpoint(path, Checkpoint(old.model, old.optimizer, {**old.state, **changes}))

    return make


def _setting(section: str, name: str, value: Any) -> Make:
    """A good checkpoint with another setting, and a SHA-256 that fits it."""

    def make(path: Path, good: Path) -> None:
        config = dict(load_checkpoint(good).state["config"])
        config[section] = {**config[section], name: value}
        # Weights that fit nothing: settings alone must not do harm.
        state = {**load_checkpoint(good).state, "config": config}
        save_checkpoint(path, Checkpoint({"x": torch.zeros(1)}, {}, state))

    return make


def _link(target: str) -> Make:
    return lambda path, _: path.symlink_to(target)


def _pipe(path: Path, _: Path) -> None:
    """Reading it would wait for ever."""
    os.mkfifo(path)


def _folder(path: Path, _: Path) -> None:
    path.symlink_to(path.parent)


def _loop(path: Path, _: Path) -> None:
    path.symlink_to(path.name)


def _entry(shape: list[int], offsets: list[int], dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


_STATES: dict[str, Make] = {
    "an epoch that is text": _state(epoch="__import__('os')"),
    "a history that is a number": _state(history=5),
    "groups that are code": _state(groups=[{"params": "lambda: 0"}]),
    "a schedule that is code": _state(schedule={"__class__": "os"}),
}

_FILES: dict[str, Make] = {
    **{f"pickle of protocol {n}": _pickled(n) for n in range(6)},
    "torch.save": _torch_saved(zipped=True),
    "torch.save of old": _torch_saved(zipped=False),
    "a header of 2**64 - 1 bytes": _header(2**64 - 1, b"{}"),
    "a header of 2**63 bytes": _header(2**63, b"{}"),
    "a header longer than the file": _header(5000, b"{}"),
    "a header of 99 MB of zeros": _header(99_000_000, b"{", size=99_000_100),
    "a header of 99 MB of spaces": _header(99_000_000, b"{}" + b" " * 98_999_998),
    "a header of brackets": _header(100_000, b"[" * 100_000),
    "a header of no UTF-8": _header(4, b'{"\xff"'),
    "a header of null": _header(4, b"null"),
    "a tensor beyond the file": _tensors({"a": _entry([4], [0, 16])}),
    "a tensor of 2**62 numbers": _tensors({"a": _entry([2**31, 2**31], [0, 16])}, data=16),
    "a shape that overflows": _tensors({"a": _entry([2**33, 2**33], [0, 0])}),
    "a negative offset": _tensors({"a": _entry([4], [-16, 0])}, data=16),
    "tensors on one another": _tensors(
        {"a": _entry([4], [0, 16]), "b": _entry([4], [8, 24])}, data=24
    ),
    "an unknown type": _tensors({"a": _entry([4], [0, 16], "PICKLE")}, data=16),
    "settings that are no JSON": _tensors({"__metadata__": {"steelseg": "import os"}}),
    "settings that are too deep": _tensors(
        {"__metadata__": {"steelseg": '{"config":' + "[" * 99_999 + "]" * 99_999 + "}"}}
    ),
    "settings with a huge number": _tensors(
        {"__metadata__": {"steelseg": '{"format":' + "9" * 9999 + "}"}}
    ),
    **_STATES,
    "an augmentation that ends the process": _setting("train", "augmentation", "os:abort"),
    "an encoder of the hub": _setting("model", "encoder", "tu-hf-hub:stranger/model"),
    "an encoder that is a path": _setting("model", "encoder", "../../stranger"),
    "weights that are a file of ours": _setting("model", "encoder_weights", "/etc/hostname"),
    "more classes than memory": _setting("data", "num_classes", 10**9),
    "images larger than memory": _setting("data", "img_height", 10**9),
    "a link to a device": _link("/dev/zero"),
    "a link to a file of the system": _link("/etc/hostname"),
    "a link to itself": _loop,
    "a link to nothing": _link("no/such/file"),
    "a link to a folder": _folder,
    "a pipe": _pipe,
}

_COMMANDS: dict[str, Callable[[Tiny, Path], commands.Command]] = {
    "resume": lambda tiny, _: tiny.train("run", "train.epochs=2"),
    "checkpoint": lambda tiny, path: [*tiny.train("run"), "--checkpoint", str(path)],
    "predict": lambda tiny, path: [
        *("predict", str(path), "--out", str(tiny.folder / "out")),
        *("--images", str(tiny.folder / "data" / "test_images")),
    ],
}

# What training alone reads; the networks in these files are whole.
_HARMLESS = {(name, "predict") for name in _STATES}
