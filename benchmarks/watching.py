"""What it costs to watch a folder instead of predicting it: strips a second, and lag.

    python benchmarks/watching.py RUN IMAGES [--strips 100 --rounds 3 --apart 0.5]

`steelseg predict` and `steelseg watch` (a line on the disk for each strip, `--settle` of its
default) predict the same strips from image file to result, in turns, with networks that are loaded.
Then strips come one by one, `--apart` seconds from each other, and the lag is from the renaming of
a file into the folder to its line on the disk, less `--settle`, which no watch can do without.
"""

import argparse
import json
import shutil
import statistics
import tempfile
import threading
import time
from itertools import cycle, islice
from pathlib import Path

from steelseg import Predictor
from steelseg.data.formats.images import list_images
from steelseg.prediction.predict import predict_folder
from steelseg.watch.watch import WatchPlan, watch_folder

PLAN = WatchPlan()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("--strips", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--apart", type=float, default=0.5)
    args = parser.parse_args()
    predictor = Predictor(args.run)
    sources = list(islice(cycle(args.images / i for i in list_images(args.images)), args.strips))
    predictor(sources[0])
    seconds = {"predict": [], "watch": []}
    for _ in range(args.rounds):
        for name, run in (("predict", predict), ("watch", watch)):
            with tempfile.TemporaryDirectory() as place:
                seconds[name].append(run(predictor, sources, Path(place)))
    with tempfile.TemporaryDirectory() as place:
        lags = lag(predictor, sources, Path(place), apart=args.apart)
    rates = {name: args.strips / statistics.median(times) for name, times in seconds.items()}
    result = {
        "strips": args.strips,
        "strips_per_second": {name: round(rate, 2) for name, rate in rates.items()},
        "ratio": round(rates["watch"] / rates["predict"], 3),
        "lag_ms": {
            "median": round(1000 * statistics.median(lags)),
            "p95": round(1000 * sorted(lags)[int(0.95 * len(lags))]),
        },
    }
    print(json.dumps(result, indent=1))


def predict(predictor, sources, place):
    """Seconds that `steelseg predict` takes for all."""
    fill(sources, place / "camera")
    begin = time.perf_counter()
    predict_folder(predictor, place / "out", images=place / "camera")
    return time.perf_counter() - begin


def watch(predictor, sources, place):
    """Seconds from the start to the last line, less those that a file must stand still."""
    fill(sources, place / "camera")
    out = place / "out"
    begin = time.perf_counter()
    watch_folder(
        predictor,
        place / "camera",
        out,
        PLAN,
        is_stopped=lambda: lines(out) == len(sources),
    )
    return time.perf_counter() - begin - PLAN.settle


def lag(predictor, sources, place, *, apart):
    """Seconds from renaming to line of strips that come one by one."""
    camera, out = place / "camera", place / "out"
    fill(sources, place / "before")
    camera.mkdir()
    stop = threading.Event()
    thread = threading.Thread(
        target=watch_folder, args=(predictor, camera, out, PLAN), kwargs={"is_stopped": stop.is_set}
    )
    thread.start()
    lags = []
    for path in sorted((place / "before").iterdir())[:40]:
        begin, count = time.perf_counter(), lines(out)
        path.rename(camera / path.name)
        while lines(out) == count:
            time.sleep(0.002)
        lags.append(time.perf_counter() - begin - PLAN.settle)
        time.sleep(apart)
    stop.set()
    thread.join()
    return lags


def fill(sources, folder):
    """Copy strips into a folder, each under a name of its own."""
    folder.mkdir()
    for number, source in enumerate(sources):
        shutil.copyfile(source, folder / f"{number:05d}{source.suffix}")


def lines(out):
    path = out / "results.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


if __name__ == "__main__":
    main()
