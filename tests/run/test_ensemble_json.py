"""ensemble.json; ensemble_180fe94.json is a file of that commit, with learnt weights and flips."""

import json
import shutil
from pathlib import Path

import pytest

from steelseg.errors import DataError
from steelseg.run.ensemble_json import read_ensemble, shorten, write_ensemble
from steelseg.run.run_folder import RunFolder

OLD = Path(__file__).with_name("ensemble_180fe94.json")


@pytest.fixture
def run(tmp_path):
    """Give a folder with the old file."""
    shutil.copyfile(OLD, tmp_path / "ensemble.json")
    return RunFolder(tmp_path)


def test_the_digests_of_an_older_version_stay(run):
    """Tuned settings and scores refer to a digest; these two are from commit 180fe94."""
    spec = read_ensemble(run)

    assert [spec.digest(fold) for fold in spec.folds] == [
        "ccac4ed5ae11d773174298a5ccf4366922a23bd69eb53388cc9a0c68b303adab",
        "f5e817cc78d120cfa81774a243f62966d7190b969990e4d1fde0264b5c72662e",
    ]


@pytest.mark.parametrize(
    ("words", "options"),
    [
        (["--weights", "equal"], "--weights equal"),
        (["--weights", "greedy", "--per-class"], "--weights greedy --per-class"),
        (["--weights", "equal", "--choose-tta", "none", "hflip"], "--weights equal"),
        (["--weights", "learnt", "--per-class"], ""),
    ],
)
def test_the_command_that_combines_again_has_no_removed_option(run, words, options):
    """What chose the weights of an old ensemble is refused today."""
    content = json.loads(OLD.read_text()) | {"words": words}
    run.ensemble_json.write_text(json.dumps(content))

    command = read_ensemble(run).command(Path("outputs/three"))

    runs = "outputs/b outputs/c outputs/a"
    assert command == " ".join(f"steelseg ensemble {runs} {options} --out outputs/three".split())


def test_it_reads_back_as_written(run, tmp_path):
    spec = read_ensemble(run)

    write_ensemble(tmp_path / "ensemble.json", spec, {"strips": 8})

    assert read_ensemble(run) == spec


@pytest.mark.parametrize(
    "text", ["", "{}", '{"members": []}', OLD.read_text().replace("none", "n")]
)
def test_a_damaged_file_is_refused_with_a_remedy(run, text):
    run.ensemble_json.write_text(text)

    with pytest.raises(DataError, match=r"damaged\. Recreate it with: steelseg ensemble RUN"):
        read_ensemble(run)


def test_paths_are_shortened_without_reading_the_disk():
    assert shorten(Path("outputs/both/../a")) == Path("outputs/a")
    assert shorten(Path("../../a")) == Path("../../a")
