"""Hostile images, each in its own data set, given to `steelseg check`.

Whether an image is read or refused, the folder must not change.
"""

import json
import re
import stat
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np

from steelseg.data.checks.check import inspect
from steelseg.data.checks.file_hashes import compare_manifest, write_manifest
from steelseg.data.formats.images import read_image
from torture import hostile_kinds as kinds
from torture.outcome import Outcome

NAME = "hostile images: each has its documented outcome, the folder is unchanged"
COUNT = 500
QUICK = 74

# The bomb's own limits: processor time and memory of a fresh process that reads it.
MOST_MS, MOST_MB = 50, 64
MANIFEST = "sound.sha256"
KINDS = (*kinds.FILES, *kinds.ENTRIES, *kinds.GOOD_NAMES, *kinds.BAD_NAMES)
PROBE = """
import json, sys, time
from pathlib import Path
from steelseg.data.formats.images import read_image
from steelseg.errors import DataError

def megabytes(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024

Path("/proc/self/clear_refs").write_text("5")  # forgets the peak of the imports
before, begun, word = megabytes("VmRSS"), time.process_time(), ""
try:
    read_image(Path(sys.argv[1]), channels=1)
except DataError as error:
    word = str(error)
print(json.dumps([1000 * (time.process_time() - begun), megabytes("VmHWM") - before, word]))
"""


def run(count):
    """Try `count` entries, every kind in turn, and the bomb."""
    begun = time.monotonic()
    outcomes, first_wrong = Counter(), ""
    for number in range(count):
        with tempfile.TemporaryDirectory() as folder:
            name, outcome = _try(number, Path(folder))
        outcomes[outcome] += 1
        if outcome == "wrong" and not first_wrong:
            first_wrong = f"; wrong first: {name}, number {number}"
    milliseconds, megabytes, is_refused = _probe_bomb()
    is_cheap = is_refused and milliseconds <= MOST_MS and megabytes <= MOST_MB
    note = ", ".join(f"{outcomes[key]} {key}" for key in sorted(outcomes))
    note += f"; bomb refused in {milliseconds:.1f} ms and {megabytes:.1f} MB{first_wrong}"
    reached = count - outcomes["wrong"] + is_cheap
    return Outcome(reached, count + 1, time.monotonic() - begun, note)


def _try(number, root):
    """Create entry `number`; return the name of its kind and the outcome."""
    chance = np.random.default_rng(number)
    strip = kinds.make_strip(chance)
    folder = root / "train_images"
    folder.mkdir()
    (root / "train.csv").write_text("ImageId,ClassId,EncodedPixels\n")
    kind = KINDS[number % len(KINDS)]
    if isinstance(kind, str):
        (folder / kind).write_bytes(kinds.plain_png(strip))
        due = strip if kind in kinds.GOOD_NAMES else "Use printable characters only"
        return ascii(kind), _judge(root, folder / kind, due)
    path = folder / "a.jpg"
    if kind in kinds.ENTRIES:
        return kind.__name__, _judge(root, path, kind(path))
    content, due = kind(chance, strip)
    if isinstance(due, bytes):
        path.write_bytes(due)
        write_manifest(root / MANIFEST, root)
    path.write_bytes(content)
    return kind.__name__, _judge(root, path, due)


def _judge(root, path, due):
    """Check the data set; return the outcome for the entry at `path`."""
    before = _snapshot(root)
    outcome = _outcome(root, path, due)
    return outcome if _snapshot(root) == before else "wrong"


def _outcome(root, path, due):
    """Return how check, a reader and the manifest treat the entry; "wrong" if not as documented."""
    height, width = kinds.SHAPE
    faults = inspect(
        root, num_classes=1, img_height=height, img_width=width, channels=1, group_duplicates=False
    ).faults
    if isinstance(due, str):
        is_named = len(faults) == 1 and re.search(due, str(faults[0]))
        return "refused" if is_named else "wrong"
    if faults:
        return "refused" if isinstance(due, bytes) else "wrong"
    pixels = kinds.pixels_of(due) if isinstance(due, bytes) else due
    if np.array_equal(read_image(path, channels=1)[..., 0], pixels):
        return "read to the right pixels"
    if isinstance(due, bytes) and compare_manifest(root / MANIFEST, root):
        return "found by --hash alone"
    return "wrong"


def _snapshot(root):
    """Return kind, size, time and content of every entry of a folder."""
    entries = {}
    for path in root.rglob("*"):
        status = path.lstat()
        is_file = stat.S_ISREG(status.st_mode)
        content = path.read_bytes() if is_file else None
        entries[path] = status.st_mode, status.st_size, status.st_mtime_ns, content
    return entries


def _probe_bomb():
    """Read the bomb in a separate process; return ms, MB, and whether it was refused."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bomb.png"
        content, due = kinds.png_bomb()
        path.write_bytes(content)
        words = [sys.executable, "-c", PROBE, str(path)]
        answer = subprocess.run(words, capture_output=True, check=True).stdout
    milliseconds, megabytes, word = json.loads(answer)
    return milliseconds, megabytes, re.search(due, word) is not None
