import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch.nn.modules.module import register_module_forward_pre_hook

from steelseg import Predictor
from steelseg.cli.main import main
from steelseg.data.formats import rle
from steelseg.errors import ConfigError, DataError
from steelseg.watch.watch import WatchPlan, watch_folder

QUICK = {"settle": 0.05, "patience": 0.3}
PATTERN = r"(?P<strip>.+)_(?P<piece>\d+)"


@pytest.fixture(scope="module")
def threshold(trained_run):
    """Give a threshold that splits the run's probabilities, so that masks have pixels."""
    strip = trained_run.parent / "input" / "test_images" / "test_000.jpg"
    return f"postprocess.threshold={np.median(Predictor(trained_run).probs(strip))}"


@pytest.fixture(scope="module")
def predictor(trained_run, threshold):
    return Predictor(trained_run, [threshold])


@pytest.fixture
def camera(tmp_path):
    folder = tmp_path / "camera"
    folder.mkdir()
    return folder


def pixels(seed, width=96):
    """Draw a strip with something on it."""
    random = np.random.default_rng(seed)
    image = random.normal(90, 8, (32, width))
    image[8:20, width // 4 : width // 2] += 90
    return image.clip(0, 255).astype(np.uint8)


def write(path, image):
    assert cv2.imwrite(str(path), image)
    return path


def lines(out):
    """Read every line of the results."""
    path = out / "results.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@contextmanager
def watching(predictor, camera, out, **options):
    """Watch in a thread; stops when the block ends, and raises what the thread raised."""
    stop, errors = threading.Event(), []

    def run():
        try:
            watch_folder(
                predictor, camera, out, WatchPlan(**QUICK | options), is_stopped=stop.is_set
            )
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(60)
    assert not thread.is_alive()
    assert errors == []


def wait_for(condition):
    """Wait until something holds."""
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.02)


def drawn(line):
    """Draw the masks of a line."""
    mask_chw = np.zeros((2, line["height"], line["width"]), dtype=bool)
    for defect in line["defects"]:
        mask_hw = rle.decode(defect["rle"], line["height"], line["width"])
        assert not (mask_chw[defect["class_id"] - 1] & mask_hw).any()
        mask_chw[defect["class_id"] - 1] |= mask_hw
    return mask_chw


def test_a_line_says_what_the_predictor_says(predictor, camera, tmp_path):
    """Of a strip of any width, JPEG or PNG, as it comes while another is there already."""
    write(camera / "a.jpg", pixels(1))
    out = tmp_path / "out"
    with watching(predictor, camera, out, overlays=True, masks=True):
        wait_for(lambda: len(lines(out)) == 1)
        write(camera / "b.png", pixels(2, width=333))
        wait_for(lambda: len(lines(out)) == 2)

    for line, name in zip(lines(out), ("a.jpg", "b.png"), strict=True):
        mask_chw, probs_chw = predictor(camera / name), predictor.probs(camera / name)
        assert line["image_id"] == name
        assert line["model_sha256"] == predictor.sha256
        assert (line["height"], line["width"]) == mask_chw.shape[1:]
        assert line["defects"]
        np.testing.assert_array_equal(drawn(line), mask_chw)
        assert line["max_probability"] == pytest.approx(probs_chw.max(axis=(1, 2)), abs=1e-6)
        assert (out / "overlays" / f"{name}.png").exists()
        for class_id in {defect["class_id"] for defect in line["defects"]}:
            mask = cv2.imread(str(out / "masks" / f"{name}_class_{class_id}.png"), 0)
            np.testing.assert_array_equal(mask > 0, mask_chw[class_id - 1])
    assert sorted(path.name for path in camera.iterdir()) == ["a.jpg", "b.png"]


@pytest.mark.parametrize(
    "settings",
    [
        [],
        ["inference.tta=both"],
        ["inference.crops=true", "inference.tta=hflip"],
        ["inference.ensemble=sequential", "postprocess.min_size=40"],
    ],
)
def test_a_strip_in_pieces_gives_the_line_of_the_strip(
    trained_run, threshold, camera, tmp_path, settings
):
    """To the bit, also where a defect crosses a seam and where pieces come in any order."""
    predictor = Predictor(trained_run, [threshold, *settings])
    strip = pixels(3, width=277)
    write(camera / "whole.png", strip)
    edges = [0, 50, 51, 147, 277]
    for piece in (3, 1, 4, 2):
        write(camera / f"coil_{piece:04d}.png", strip[:, edges[piece - 1] : edges[piece]])
    out = tmp_path / "out"

    with watching(predictor, camera, out, pieces=PATTERN, piece_count=4):
        wait_for(lambda: len(lines(out)) == 2)

    in_pieces, whole = sorted(lines(out), key=lambda line: line["image_id"])
    assert in_pieces["image_id"] == "coil"
    assert [file["name"] for file in in_pieces["files"]] == [
        f"coil_{k:04d}.png" for k in range(1, 5)
    ]
    assert any(defect["bbox"][0] < 147 < sum(defect["bbox"][::2]) for defect in whole["defects"])
    for name in ("height", "width", "max_probability", "defects"):
        assert in_pieces[name] == whole[name]


def test_a_new_process_goes_on_where_the_last_one_was(predictor, camera, tmp_path):
    """No line twice, also of files that were touched; a replaced one gets a line of its own."""
    out = tmp_path / "out"
    for number in range(3):
        write(camera / f"{number}.png", pixels(number))
    with watching(predictor, camera, out):
        wait_for(lambda: len(lines(out)) == 3)

    os.utime(camera / "0.png", (1, 1))
    write(camera / "1.png", pixels(11))
    (camera / "2.png").unlink()
    write(camera / "3.png", pixels(3))
    with watching(predictor, camera, out):
        wait_for(lambda: len(lines(out)) >= 5)
        time.sleep(0.5)

    assert sorted(line["image_id"] for line in lines(out)) == [
        "0.png",
        "1.png",
        "1.png",
        "2.png",
        "3.png",
    ]


def test_pieces_that_came_before_a_restart_are_joined_after_it(predictor, camera, tmp_path):
    """Also when the strip was refused in between; pieces of a strip that is done stay done."""
    strip, out = pixels(3), tmp_path / "out"
    write(camera / "a_1.png", strip[:, :40])
    with watching(predictor, camera, out, pieces=PATTERN, piece_count=2):
        wait_for(lambda: len(lines(out)) == 1)
    write(camera / "a_2.png", strip[:, 40:])
    for _ in range(2):
        with watching(predictor, camera, out, pieces=PATTERN, piece_count=2):
            wait_for(lambda: len(lines(out)) == 2)
            time.sleep(0.6)

    refused, joined = lines(out)
    assert refused["refused"] == "piece 2 did not arrive."
    np.testing.assert_array_equal(drawn(joined), predictor(strip))


def test_what_is_refused_says_why_and_holds_up_nothing(predictor, camera, tmp_path, capsys):
    """Once, also over a restart; such a line has no defects, so it does not pass for clean."""
    (camera / "empty.jpg").write_bytes(b"")
    (camera / "text.png").write_text("not an image")
    (camera / "half.jpg").write_bytes(write(tmp_path / "x.jpg", pixels(1)).read_bytes()[:-9])
    write(camera / "good.jpg", pixels(1))
    out = tmp_path / "out"
    for _ in range(2):
        with watching(predictor, camera, out):
            wait_for(lambda: len(lines(out)) == 4)
            time.sleep(1.0)

    by_name = {line["image_id"]: line for line in lines(out)}
    assert len(lines(out)) == 4
    assert "the file is empty" in by_name["empty.jpg"]["refused"]
    assert "whatever its name says" in by_name["text.png"]["refused"]
    assert "truncated" in by_name["half.jpg"]["refused"]
    assert "refused" not in by_name["good.jpg"]
    assert all("defects" not in line for line in lines(out) if "refused" in line)
    assert capsys.readouterr().err.count("half.jpg is refused") == 1


def test_a_strip_that_the_network_does_not_take_is_refused_alone(
    predictor, camera, tmp_path, monkeypatch
):
    """As an export of one size refuses others; the strips beside it are predicted."""
    stream = Predictor.stream

    def of_one_size(self, image_ids, read):
        for found in stream(self, image_ids, read):
            if found[1].shape[1] != 96:
                raise ConfigError("network.onnx takes images of 32x96")
            yield found

    monkeypatch.setattr(Predictor, "stream", of_one_size)
    for number, width in enumerate((96, 64, 96)):
        write(camera / f"{number}.png", pixels(number, width=width))
    out = tmp_path / "out"

    with watching(predictor, camera, out):
        wait_for(lambda: len(lines(out)) == 3)

    assert {line["image_id"]: "refused" in line for line in lines(out)} == {
        "0.png": False,
        "1.png": True,
        "2.png": False,
    }


def test_a_strip_that_needs_too_much_memory_is_refused_alone(predictor, camera, tmp_path):
    """One that is far too long must not end the watch; those beside it are predicted."""

    def allocate(_module, inputs):
        if any(getattr(given, "shape", ())[-1:] == (640,) for given in inputs):
            # More than any machine has, so torch raises its own error inside the network.
            torch.empty(2**60)

    for number, width in enumerate((96, 640, 96)):
        write(camera / f"{number}.png", pixels(number, width=width))
    out = tmp_path / "out"

    hook = register_module_forward_pre_hook(allocate)
    try:
        with watching(predictor, camera, out):
            wait_for(lambda: len(lines(out)) == 3)
    finally:
        hook.remove()

    reasons = {line["image_id"]: line.get("refused", "") for line in lines(out)}
    assert reasons["0.png"] == reasons["2.png"] == ""
    assert reasons["1.png"].startswith("There is not enough memory to predict.")


def test_a_strip_whose_pictures_have_no_name_is_refused_alone(predictor, camera, tmp_path):
    """A pattern may read nothing as the name of a strip."""
    write(camera / "_1.png", pixels(1))
    write(camera / "a.png", pixels(2))
    out = tmp_path / "out"

    pattern = r"(?P<strip>x*)_(?P<piece>\d+)"
    with watching(predictor, camera, out, overlays=True, pieces=pattern, piece_count=1):
        wait_for(lambda: len(lines(out)) == 2)

    refused = {line["image_id"]: line.get("refused", "") for line in lines(out)}
    assert refused["a.png"] == ""
    assert "is not a file name inside" in refused[""]


def test_lines_are_delivered_while_strips_come(predictor, camera, tmp_path):
    """To a web server: the very lines of the file."""
    from tests.watch.test_webhook import receiver

    write(camera / "a.png", pixels(1))
    out = tmp_path / "out"
    with receiver() as (url, got), watching(predictor, camera, out, webhook=url):
        write(camera / "b.png", pixels(2))
        wait_for(lambda: len(got) == 2)

    assert b"".join(body for _, _, body in got) == (out / "results.jsonl").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_with_its_number(trained_run, threshold, camera, tmp_path, signum):
    """And says that the same command goes on."""
    out = tmp_path / "out"
    write(camera / "a.png", pixels(1))
    words = command(trained_run, threshold, camera, out)
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as process:
        wait_for(lambda: len(lines_so_far(out)) == 1)
        process.send_signal(signum)
        _, said = process.communicate(timeout=30)

    assert process.returncode == 128 + signum
    assert "stopped; rerun the same command to resume" in said
    assert "watch: 1 strips" in said
    assert "Traceback" not in said


def command(run, threshold, camera, out):
    words = ["watch", str(camera), "--model", str(run), "--out", str(out), "--settle", "0.05"]
    code = (
        f"import sys; from steelseg.cli.main import main; sys.exit(main({[*words, threshold]!r}))"
    )
    return [sys.executable, "-c", code]


def lines_so_far(out):
    """The whole lines of a file that is being written."""
    path = out / "results.jsonl"
    return path.read_bytes().split(b"\n")[:-1] if path.exists() else []


def test_results_do_not_go_where_the_camera_writes(predictor, camera, tmp_path):
    """Pictures of results would be taken for strips."""
    overlays = tmp_path / "overlays"
    overlays.mkdir()
    for folder, out in ((camera, camera), (overlays, tmp_path)):
        with pytest.raises(ConfigError, match="would put pictures into"):
            watch_folder(predictor, folder, out, WatchPlan(), is_stopped=lambda: True)
    with pytest.raises(DataError, match="is not a folder"):
        watch_folder(predictor, tmp_path / "no", tmp_path, WatchPlan(), is_stopped=lambda: True)
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    (bundle / "manifest.json").touch()
    with pytest.raises(ConfigError, match="is in a bundle"):
        watch_folder(predictor, camera, bundle / "out", WatchPlan(), is_stopped=lambda: True)


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ([], 2),
        (["--model", "no_such_run"], 1),
        (["--model", "RUN", "--settle", "-1"], 2),
        (["--model", "RUN", "--piece-count", "3"], 1),
        (["--model", "RUN", "--pieces", "("], 1),
        (["--model", "RUN", "--webhook", "mes.example"], 1),
    ],
)
def test_wrong_words_are_said_before_anything_is_watched(
    trained_run, camera, tmp_path, words, code, capsys
):
    words = [str(trained_run) if word == "RUN" else word for word in words]
    out = tmp_path / "out"

    try:
        result = main(["watch", str(camera), "--out", str(out), *words])
    except SystemExit as error:
        result = error.code

    assert result == code
    assert "error: " in capsys.readouterr().err
    assert not out.exists() or not any(Path(out).iterdir())
