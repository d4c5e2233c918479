import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser

import pytest

from steelseg import api
from steelseg.errors import CheckpointError
from steelseg.evaluation.evaluate import evaluate_run
from steelseg.evaluation.tune import tune_run
from steelseg.reporting.report import report_run
from steelseg.run.run_folder import create_run

NASTY = "<script>alert(1)</script>\"'&"
VOID = {"meta", "br", "img", "link"}


class Nesting(HTMLParser):
    """Fails on a tag that is not closed, and collects what the page refers to."""

    def __init__(self):
        super().__init__()
        self.open = []
        self.references = []
        self.ids = []

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.references += [values[name] for name in ("src", "href") if name in values]
        self.ids += [values["id"]] if "id" in values else []
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def read(path):
    """Read a page, and hold it against what every page must be: whole, and opening offline."""
    text = path.read_text(encoding="utf-8")
    page = Nesting()
    page.feed(text)
    assert page.open == []
    assert all(r.startswith(("#", "data:image/jpeg;base64,")) for r in page.references)
    assert {r[1:] for r in page.references if r.startswith("#")} <= set(page.ids)
    assert not re.search(r"https?://|url\(|@import|<script|<link|<iframe|\bon\w+=", text)
    return text


def heading(text, name):
    """The part of a page under a heading."""
    return text.partition(f"<h2>{name}</h2>")[2].partition("<h2>")[0]


@pytest.fixture(scope="module")
def whole_page(trained_run, tmp_path_factory):
    """Give the page of a run that did every stage."""
    run = tmp_path_factory.mktemp("report") / "run"
    shutil.copytree(trained_run, run)
    api.oof(run)
    api.tune(run)
    api.evaluate(run)
    return api.report(run)


def test_a_whole_run_fills_every_part(whole_page):
    """Nothing is left out, and no file is asked for."""
    text = read(whole_page)

    assert 'class="hint"' not in text
    assert "cross-fitted" in text
    for name in ("Scores", "Post-processing", "Training"):
        assert "<svg" in heading(text, name)
    assert "largest mask" in heading(text, "Data set")
    assert "data:image/jpeg" in heading(text, "Worst strips")
    assert "encoder: tu-mobilenetv3_small_050" in heading(text, "Settings and versions")


def test_the_same_run_gives_the_same_page(whole_page):
    """So that a page can be compared with another."""
    before = whole_page.read_bytes()

    assert api.report(whole_page.parent).read_bytes() == before


def test_what_is_never_found_is_said_loudly(predicted_run):
    """The mean Dice hides it; the honest headline does not."""
    config, run = predicted_run()
    metrics = evaluate_run(config, run)

    head = read(report_run(config, run)).partition("</header>")[0]

    assert "Never found: class 2" in head
    assert f"{metrics['oof']['dice']:.4f}" in head
    assert f"all-empty masks: {metrics['all_empty']['dice']:.4f}" in head
    assert "by the settings" in head


def test_a_run_with_settings_alone_names_the_commands(tmp_path, make_config):
    """Each missing part is one line."""
    config = make_config(tmp_path / "gone")
    run = create_run(tmp_path / "run", config)

    text = read(report_run(config, run))

    for part, command in (
        ("Scores", "evaluate"),
        ("Worst strips", "evaluate"),
        ("Post-processing", "tune"),
        ("Training", "train"),
        ("Data set", "report"),
    ):
        assert re.search(f'class="hint">.*steelseg {command} ', heading(text, part)), part
    assert "<svg" not in text


def test_one_fold_that_was_not_scored_has_its_curves(predicted_run):
    """A run is looked at while it trains."""
    config, run = predicted_run(folds=1)
    (run.path / "environment.json").unlink()

    text = read(report_run(config, run))

    assert "1 of 2 folds trained" in text
    assert "<svg" in heading(text, "Training")
    assert "steelseg evaluate" in heading(text, "Scores")


def test_names_are_escaped(predicted_run, tmp_path):
    """A class name is text, whatever it holds."""
    names = json.dumps([NASTY, "b" * 60])
    config, run = predicted_run(f"data.class_names={names}", root=tmp_path / "<b>&input")
    tune_run(config, run)
    evaluate_run(config, run)

    text = read(report_run(config, run))

    assert "&lt;script&gt;alert(1)" in text
    assert "<b>&input" not in text


@pytest.mark.parametrize("num_classes", [1, 12])
def test_any_number_of_classes_has_a_page(num_classes, predicted_run):
    """Charts of their own keep twelve apart."""
    config, run = predicted_run(num_classes=num_classes)
    tune_run(config, run)
    evaluate_run(config, run)

    text = read(report_run(config, run))

    assert len(re.findall("Calibration of class", text)) == num_classes


def test_clean_strips_alone_have_a_page(predicted_run):
    """There is nothing to find: figures without a divisor are dashes."""
    config, run = predicted_run()
    rows = (config.data.root / "train.csv").read_text().splitlines()
    (config.data.root / "train.csv").write_text("\n".join([rows[0], "train_000.jpg,1,"]) + "\n")
    tune_run(config, run)
    evaluate_run(config, run)

    text = read(report_run(config, run))

    assert "12 without a defect" in re.sub(r"\s+", " ", heading(text, "Data set"))
    assert "Never found" not in text
    assert "\u2013" in heading(text, "Scores")


def test_settings_that_leave_little_to_tune_have_a_page(predicted_run):
    """The landscape is a single point then."""
    config, run = predicted_run("postprocess.threshold=0.5", "postprocess.min_size=0")
    tune_run(config, run)
    evaluate_run(config, run)

    read(report_run(config, run))


def test_tuning_after_scoring_is_noticed(predicted_run):
    """The scores are of other masks than the run would now make."""
    config, run = predicted_run()
    evaluate_run(config, run)
    tune_run(config, run)

    text = read(report_run(config, run))

    assert f"Score it again: steelseg evaluate {run.path}." in text


def test_predictions_that_were_made_anew_ask_for_their_scores(predicted_run):
    """Pictures of other masks than those that were scored are left out."""
    config, run = predicted_run()
    evaluate_run(config, run)
    changed = config.model_copy(
        update={"postprocess": config.postprocess.model_copy(update={"threshold": 0.99})}
    )

    part = heading(read(report_run(changed, run)), "Worst strips")

    assert f"Score them again: steelseg evaluate {run.path}." in part
    assert "<img" not in part


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    """As by every other stage."""
    with pytest.raises(CheckpointError, match=r"is not a run folder"):
        api.report(tmp_path)


def test_the_report_needs_no_torch():
    """So that it takes a second, also where torch is not at hand."""
    code = "import sys, steelseg.reporting.report; sys.exit('torch' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
