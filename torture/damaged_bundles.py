"""Damaged and swapped files of a bundle, given to `predict`.

In a trial one file of the bundle is damaged, taken from another bundle, removed or replaced by a
link, or an extra file is added. Each must be refused in one line, without writing a result.
"""

import random
import shutil
import tempfile
import time
from pathlib import Path

from steelseg.api import bundle
from torture.damage import spoil
from torture.outcome import Outcome
from torture.tiny import Tiny, call, refusal_fault

NAME = "a bundle with a damaged, strange or missing file is refused"
COUNT = 300
QUICK = 5


def run(count: int) -> Outcome:
    """Spoil a bundle `count` times."""
    begin = time.monotonic()
    faults: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        good, other = _bundles(root)
        for trial in range(count):
            shutil.copytree(good, root / "spoilt")
            done = _spoil(root / "spoilt", other, random.Random(trial))
            places = ["--images", root / "data" / "test_images", "--output-dir", root / "out"]
            fault = refusal_fault(*call("predict", root / "spoilt", *places))
            if (root / "out").exists():
                fault = fault or "results were written"
            if fault:
                faults.append(f"trial {trial}, {done}: {fault}")
            shutil.rmtree(root / "spoilt")
            shutil.rmtree(root / "out", ignore_errors=True)
    seconds = time.monotonic() - begin
    return Outcome(count - len(faults), count, seconds, "; ".join(faults[:1]))


def _bundles(root: Path) -> tuple[Path, Path]:
    """Two bundles of two folds each; the second was trained at another rate."""
    tiny = Tiny.make(root, "train.epochs=1", "train.save_minutes=0")
    made = []
    for name in ("good", "other"):
        rate = f"train.learning_rate={0.001 * (len(made) + 1)}"
        command = tiny.train(f"run_{name}", rate)
        run = tiny.whole(f"run_{name}", command, [*command, "--fold", "1"])
        made.append(bundle(run, out=root / name))
    return made[0], made[1]


def _spoil(spoilt: Path, other: Path, rng: random.Random) -> str:
    """Damage one file; return how."""
    file = rng.choice([path for path in sorted(spoilt.rglob("*")) if path.is_file()])
    name = file.relative_to(spoilt)
    kind = rng.choice(("spoil", "spoil", "spoil", "remove", "link", "add"))
    if kind == "spoil":
        return f"{name}: {spoil([file], [other / name], rng)}"
    if kind == "add":
        (file.parent / f"{rng.randrange(1000)}{file.suffix}").write_bytes(file.read_bytes())
    else:
        file.unlink()
    if kind == "link":
        file.symlink_to(other / name)
    return f"{name}: {kind}"
