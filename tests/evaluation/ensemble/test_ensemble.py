"""Trained runs are combined, and the combined run goes through every stage."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from steelseg import Predictor
from steelseg.api import bench, bundle, cascade, ensemble, export, oof, report, train
from steelseg.cli.main import main
from steelseg.errors import CheckpointError, ConfigError, DataError
from steelseg.evaluation.compare import compare_runs
from steelseg.evaluation.evaluate import evaluate_run
from steelseg.evaluation.tune import tune_run
from steelseg.inference.members import checkpoint_member
from steelseg.inference.model_source import resolve_model
from steelseg.run.ensemble_json import read_ensemble
from steelseg.run.held_out import assign_inner_folds, open_held_out
from steelseg.run.oof_store import new_store, read_oof
from steelseg.run.run_folder import RunFolder

OLD = Path(__file__).parents[2] / "run" / "ensemble_180fe94.json"


@pytest.fixture(scope="module")
def trained(tmp_path_factory, make_config, make_strips):
    """Give a folder of three runs on the same folds; tests leave it as it is.

    a: whole strips, with a presence head. b: another architecture, crops and flips. c: as a,
    without the head. both: the plain mean of a and b.
    """
    folder = tmp_path_factory.mktemp("runs")
    make_strips(folder / "input")
    own = {
        "a": ["model.arch=unet", "model.presence_head=true"],
        "b": ["inference.crops=true", "inference.tta=hflip"],
        "c": ["model.arch=unet", "train.learning_rate=0.01"],
    }
    for name, overrides in own.items():
        config = make_config(folder / "input", "model.encoder=tu-test_resnet", *overrides)
        train(config, folder / name)
        oof(folder / name)
        for fold in (0, 1):
            shutil.rmtree(folder / name / f"fold_{fold}" / "last")
    ensemble([folder / "a", folder / "b"], folder / "both")
    return folder


@pytest.fixture
def runs(trained, tmp_path):
    """Give the folder of runs, which a test may change; the strips stay where they are."""
    for name in "abc":
        shutil.copytree(trained / name, tmp_path / name)
    return tmp_path


def levels(run_dir):
    """EnsembleMember probabilities of each strip, times 255."""
    return {
        image_id: probs_chw.astype(int)
        for fold in (0, 1)
        for image_id, probs_chw in read_oof(RunFolder(run_dir).oof(fold))
    }


def strips(folder):
    """The test strips of a run, in one order."""
    root = RunFolder(folder).load_config().data.root
    return sorted((root / "test_images").iterdir())


def held_out(run_dir):
    run = RunFolder(run_dir)
    return open_held_out(run.load_config().data, run)


def guess(run_dir, make):
    """Replace the predictions of a run: `make` gives levels of a strip by its truth."""
    run, there = RunFolder(run_dir), held_out(run_dir)
    for fold in (0, 1):
        image_ids = [i for i, f in there.fold_of.items() if f == fold]
        digest = there.models[fold]
        with new_store(
            run.oof(fold),
            image_ids=image_ids,
            sizes=[there.labels.sizes[i] for i in image_ids],
            num_classes=2,
            model_sha256=digest,
        ) as array:
            for place, image_id in enumerate(image_ids):
                array[place] = make(image_id, there.labels.draw(image_id))


def test_held_out_predictions_are_the_mean_of_the_members(trained):
    """Rounded half up, as every prediction is kept."""
    a, b, both = (levels(trained / name) for name in ("a", "b", "both"))

    assert list(both) == list(a)
    for image_id, mean_chw in both.items():
        np.testing.assert_array_equal(mean_chw, (a[image_id] + b[image_id] + 1) // 2)


@pytest.mark.parametrize("folds", [None, [1]])
def test_prediction_is_the_mean_of_the_members(trained, folds):
    """Each with its own flips and crops; a fold of both is that fold of each."""
    path = strips(trained / "a")[0]
    expected = np.mean([Predictor(trained / name, folds=folds).probs(path) for name in "ab"], 0)

    for overrides in ([], ["inference.ensemble=sequential"]):
        found = Predictor(trained / "both", overrides, folds=folds).probs(path)
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_fold_that_is_not_there_is_refused(trained):
    with pytest.raises(CheckpointError, match=r"has no fold 7. It combines: 0, 1"):
        resolve_model(trained / "both", folds=[7])


@pytest.mark.parametrize("weights", ["equal", "greedy"])
def test_the_order_of_the_runs_changes_nothing(runs, weights):
    """To the bit, whoever was named first."""
    names = ["a", "b", "c"]
    path = strips(runs / "a")[0]
    for out, order in (("one", names), ("other", names[::-1])):
        ensemble([runs / name for name in order], runs / out, weights=weights)

    one, other = (runs / name / "ensemble.json" for name in ("one", "other"))
    assert one.read_bytes() == other.read_bytes()
    found = [Predictor(runs / name) for name in ("one", "other")]
    np.testing.assert_array_equal(found[0].probs(path), found[1].probs(path))
    assert found[0].sha256 == found[1].sha256


def test_every_stage_accepts_a_combined_run(runs, capsys):
    """Tune, evaluate, compare, report and predict know nothing of members."""
    ensemble([runs / "a", runs / "b"], runs / "both", weights="greedy", per_class=True)
    for name in ("a", "both"):
        run = RunFolder(runs / name)
        tune_run(run.load_config(), run)
        evaluate_run(run.load_config(), run)
    tuned = json.loads((runs / "both" / "postprocess.json").read_text())

    assert compare_runs(RunFolder(runs / "a"), RunFolder(runs / "both")).strips == 8
    page = report(runs / "both").read_text()
    assert "combined by weights=greedy on 8 held-out strips" in page
    assert "This run combines others" in page
    assert main(["predict", str(runs / "both")]) == 0
    assert list(resolve_model(runs / "both").masks.threshold) == tuned["threshold"]
    out = capsys.readouterr().out
    assert "combined by weights=greedy on 8 held-out strips" in out
    assert "plain mean" in out


def test_a_run_that_is_right_gets_all_the_weight(runs):
    """The other is left out, and with it its network and its time."""
    guess(runs / "b", lambda _, truth_chw: 255 * truth_chw)

    ensemble([runs / "c", runs / "b"], runs / "best", weights="greedy")

    (member,) = read_ensemble(RunFolder(runs / "best")).members
    assert (member.run, member.weights, member.tta) == ("../b", (1.0, 1.0), "hflip")
    assert levels(runs / "best").keys() == levels(runs / "b").keys()
    for image_id, found in levels(runs / "best").items():
        np.testing.assert_array_equal(found, levels(runs / "b")[image_id])
    assert len(resolve_model(runs / "best").members) == 2


def test_each_class_can_have_weights_of_its_own(runs):
    """One run is right about the first class, the other about the second."""
    right = {"a": [True, False], "b": [False, True]}
    for name, is_right in right.items():
        turn = ~np.array(is_right)[:, None, None]
        guess(runs / name, lambda _, truth_chw, turn=turn: 255 * (truth_chw ^ turn))

    ensemble([runs / "a", runs / "b"], runs / "both", weights="greedy", per_class=True)

    found = {m.run: m.weights for m in read_ensemble(RunFolder(runs / "both")).members}
    assert found["../b"] == pytest.approx((0, 1), abs=1e-9)
    assert found["../a"] == pytest.approx((1, 0), abs=1e-9)


def test_weights_of_an_inner_fold_are_chosen_without_it(runs):
    """A run that is perfect on one inner fold only gets weight on the others."""
    there = held_out(runs / "a")
    inner_fold_of = assign_inner_folds(RunFolder(runs / "a"), there, num_folds=5, seed=42)
    known = {i for i, fold in inner_fold_of.items() if fold == 0}

    def by_heart(image_id, truth_chw):
        return 255 * truth_chw if image_id in known else 150 * truth_chw + 22

    guess(runs / "a", by_heart)
    guess(runs / "b", lambda _, truth_chw: 160 * truth_chw + 20)
    ensemble([runs / "a", runs / "b"], runs / "both", ["train.seed=42"], weights="greedy")

    b, both = levels(runs / "b"), levels(runs / "both")
    for image_id in known:
        np.testing.assert_array_equal(both[image_id], b[image_id])
    # Elsewhere the known strips are among those that weights are chosen by.
    spec = read_ensemble(RunFolder(runs / "both"))
    place = spec.runs.index("../a")
    weighed = [{line["run"] for line in fold} for fold in spec.parts]
    assert place not in weighed[0]
    assert all(place in fold for fold in weighed[1:])


def test_presence_is_the_mean_of_those_that_have_it(trained):
    """A gate needs no presence head in every member."""
    path = strips(trained / "a")[0]
    presence, expected = held_out(trained / "both").presence, held_out(trained / "a").presence
    for image_id, presence_c in presence.items():
        np.testing.assert_allclose(presence_c, expected[image_id], atol=1e-6)

    def gates(name):
        soft, free = (
            Predictor(trained / name, [f"inference.gate={mode}"], folds=[0]).probs(path)
            for mode in ("soft", "none")
        )
        return (soft / free).mean(axis=(1, 2))

    np.testing.assert_allclose(gates("both"), gates("a"), rtol=1e-4)


def test_presence_can_come_from_another_run_alone(runs):
    """A first stage that says whether, before another says where."""
    ensemble([runs / "c"], runs / "gated", ["inference.gate=hard"], presence=[runs / "a"])
    path = strips(runs / "a")[0]
    run = RunFolder(runs / "gated")

    tune_run(run.load_config(), run)
    evaluate_run(run.load_config(), run)

    assert levels(runs / "gated").keys() == levels(runs / "c").keys()
    assert [(m.run, m.weights, m.presence) for m in read_ensemble(run).members] == [
        ("../c", (1.0, 1.0), 0.0),
        ("../a", (0.0, 0.0), 1.0),
    ]
    free = Predictor(run.path, ["inference.gate=none"]).probs(path)
    np.testing.assert_allclose(free, Predictor(runs / "c").probs(path), atol=1e-6)
    closed = Predictor(run.path, ["postprocess.gate=1.0"]).probs(path)
    assert free.any()
    assert not closed.any()


def test_a_gate_of_all_members_stays(runs):
    """What every member predicts with goes for their mean; otherwise there is none."""
    settings = runs / "a" / "config.yaml"
    settings.write_text(settings.read_text().replace("gate: none", "gate: hard"))

    ensemble([runs / "a"], runs / "gated", presence=[runs / "a"])
    ensemble([runs / "a", runs / "b"], runs / "both")

    assert RunFolder(runs / "gated").load_config().inference.gate == "hard"
    assert RunFolder(runs / "both").load_config().inference.gate == "none"


def test_without_presence_there_is_no_gate(runs):
    with pytest.raises(ConfigError, match=r"gate=soft needs .*presence_head=true"):
        ensemble([runs / "b", runs / "c"], runs / "both", ["inference.gate=soft"])
    with pytest.raises(ConfigError, match=r"b does not predict presence"):
        ensemble([runs / "c"], runs / "both", presence=[runs / "b"])
    assert not (runs / "both").exists()


def test_a_bundle_of_a_combined_run_gives_the_same_masks(runs):
    """Weights, flips and presence travel in the manifest."""
    ensemble(
        [runs / "a", runs / "b", runs / "c"],
        runs / "both",
        ["inference.gate=soft"],
        weights="greedy",
        per_class=True,
    )
    made = bundle(runs / "both")
    path = strips(runs / "a")[0]

    run, whole = (Predictor(place) for place in (runs / "both", made))
    np.testing.assert_array_equal(whole.probs(path), run.probs(path))
    np.testing.assert_array_equal(whole(path), run(path))
    assert [m.sha256 for m in resolve_model(made, folds=[1]).members] == [
        m.sha256 for m in resolve_model(runs / "both", folds=[1]).members
    ]
    with pytest.raises(ConfigError, match=r"inference.tta has no effect on a combined run"):
        Predictor(made, ["inference.tta=hflip"])
    text = (made / "manifest.json").read_text()
    assert str(runs) not in text
    assert bundle(runs / "both") == made
    assert (made / "manifest.json").read_text() == text


@pytest.fixture
def old(runs):
    """Give a combined run as commit 180fe94 wrote it: --weights learnt --per-class --choose-tta.

    The checkpoints are of the runs here; all else is from that commit.
    """
    ensemble([runs / name for name in "abc"], runs / "old")
    content = json.loads(OLD.read_text())
    for member in content["members"]:
        run = RunFolder(runs / member["run"].removeprefix("../"))
        member["models"] = {
            fold: checkpoint_member(run.best_model(int(fold))).sha256 for fold in member["models"]
        }
    (runs / "old" / "ensemble.json").write_text(json.dumps(content))
    return runs / "old"


def test_weights_and_flips_that_an_older_version_chose_still_apply(runs, old):
    """Run b has inference.tta=hflip, but no flips were chosen for it in the ensemble."""
    path = strips(runs / "a")[0]
    weights_kc = np.zeros((3, 2))
    members = read_ensemble(RunFolder(old)).members
    weights_kc[:] = [member.weights for member in members]
    names = [member.run.removeprefix("../") for member in members]
    probs = [Predictor(runs / name, ["inference.tta=none"]).probs(path) for name in names]

    found = Predictor(old).probs(path)

    assert names == ["b", "c", "a"]
    assert sorted(weights_kc[:, 0])[-1] == pytest.approx(0.9787707)
    expected = np.einsum("kchw,kc->chw", probs, weights_kc)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    np.testing.assert_array_equal(Predictor(bundle(old)).probs(path), found)
    assert "combined by weights=learnt on 8 held-out strips" in report(old).read_text()


def test_an_older_ensemble_is_combined_again_by_the_plain_mean(runs, old):
    """The command that it was made with is refused today."""
    with pytest.raises(ConfigError, match="Combine again") as caught:
        oof(old)

    *words, out = str(caught.value).partition("Combine again: steelseg ")[2].split()
    assert main([*words, out.removesuffix(".")]) == 0
    assert json.loads((old / "ensemble.json").read_text())["words"] == ["--weights", "equal"]


def test_a_member_that_was_trained_on_since_is_refused(runs):
    """Its weights were chosen by what it was."""
    ensemble([runs / "a", runs / "b"], runs / "both", weights="greedy")
    best = RunFolder(runs / "a").best_model(1)
    best.write_bytes(RunFolder(runs / "a").best_model(0).read_bytes())

    with pytest.raises(CheckpointError, match=r"different .*best_model") as caught:
        resolve_model(runs / "both")
    command = str(caught.value).partition("Combine again: ")[2].removesuffix(".").split()
    assert command[:2] == ["steelseg", "ensemble"]
    assert set(command[2:4]) == {str(runs / "a"), str(runs / "b")}
    assert command[4:] == ["--weights", "greedy", "--out", str(runs / "both")]
    best.unlink()
    with pytest.raises(CheckpointError, match=r"there is no such checkpoint.*ensemble.json needs"):
        resolve_model(runs / "both")


def test_predictions_of_another_checkpoint_are_refused(runs):
    run = RunFolder(runs / "a")
    run.best_model(1).write_bytes(run.best_model(0).read_bytes())

    with pytest.raises(CheckpointError, match=r"was predicted by a different .*steelseg oof"):
        ensemble([run.path, runs / "b"], runs / "both")


def test_predictions_with_other_views_are_refused(runs, capsys):
    """Weights and tuning would be for other answers than prediction gives; tuning alone warns."""
    oof(runs / "a", ["inference.tta=both"])

    with pytest.raises(CheckpointError, match=r"tta=both, no crops, but the run has .*tta=none"):
        ensemble([runs / "a", runs / "b"], runs / "both")
    run = RunFolder(runs / "a")
    tune_run(run.load_config(), run)
    assert "warning: out-of-fold predictions were made with inference.tta=both" in (
        capsys.readouterr().err
    )
    oof(runs / "a")
    tune_run(run.load_config(), run)
    assert "warning" not in capsys.readouterr().err


def test_combining_again_replaces_the_old_folder(runs):
    """Tuning of the old one goes with it; files that are not of a combined run stay."""
    ensemble([runs / "a", runs / "b"], runs / "both")
    tune_run(RunFolder(runs / "both").load_config(), RunFolder(runs / "both"))

    ensemble([runs / "a", runs / "c"], runs / "both")
    assert not (runs / "both" / "postprocess.json").exists()
    (runs / "both" / "submission.csv").write_text("mine")
    with pytest.raises(ConfigError, match=r"submission.csv is not part of the combined run"):
        ensemble([runs / "a", runs / "b"], runs / "both")
    with pytest.raises(ConfigError, match=r"a contains files but not a combined run"):
        ensemble([runs / "c", runs / "b"], runs / "a")


def test_what_needs_networks_of_its_own_says_where_they_are(trained, tmp_path):
    both = trained / "both"
    config = RunFolder(both).load_config()

    with pytest.raises(ConfigError, match="Choose another --out to train"):
        train(config, both)
    with pytest.raises(ConfigError, match="Combine again: steelseg ensemble"):
        oof(both)
    with pytest.raises(ConfigError, match="Export its members"):
        export(both, format="onnx")
    with pytest.raises(ConfigError, match="Time a bundle of it"):
        bench(both)
    with pytest.raises(ConfigError, match="name one of its members"):
        cascade(trained / "a", both)
    with pytest.raises(ConfigError, match="Name its members instead"):
        ensemble([both, trained / "c"], tmp_path / "more")
    with pytest.raises(ConfigError, match=r"inference.tta has no effect on a combined run"):
        Predictor(both, ["inference.tta=both"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["a"], "alone is not an ensemble"),
        (["a", "a"], "has the same networks as"),
        (["a", "b", "--per-class"], "--per-class applies to chosen weights"),
        (["a", "--weights", "greedy", "--presence", "b"], "needs several runs"),
    ],
)
def test_what_changes_nothing_is_refused(trained, tmp_path, capsys, words, message):
    places = [str(trained / word) if len(word) == 1 else word for word in words]

    assert main(["ensemble", *places, "--out", str(tmp_path / "both")]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "both").exists()


def test_strips_in_other_folds_are_refused_by_name(runs):
    """A mean would be judged on what one of its networks has seen."""
    path = runs / "b" / "folds.csv"
    rows = path.read_text().splitlines()
    image_id, fold, rest = rows[1].split(",", 2)
    path.write_text("\n".join([rows[0], f"{image_id},{1 - int(fold)},{rest}", *rows[2:]]))

    with pytest.raises(DataError, match=rf"{image_id} in fold .*\(1 in total\)"):
        ensemble([runs / "a", runs / "b"], runs / "both")


def test_runs_of_other_folds_are_refused(runs):
    """What only one of them predicted cannot be combined."""
    shutil.rmtree(runs / "b" / "fold_1")

    with pytest.raises(DataError, match=r"in no fold.*\(4 in total\). Only strips"):
        ensemble([runs / "a", runs / "b"], runs / "both")


def test_other_classes_are_refused(runs, make_config):
    root = RunFolder(runs / "a").load_config().data.root
    config = make_config(root, "model.encoder=tu-test_resnet", "data.class_names=[scratch, dent]")
    train(config, runs / "d")
    oof(runs / "d")

    with pytest.raises(CheckpointError, match="needs the same classes"):
        ensemble([runs / "a", runs / "d"], runs / "both")


def test_the_folder_can_be_moved_with_its_members(trained, tmp_path):
    """Members are named as seen from it."""
    for name in ("a", "b", "both"):
        shutil.copytree(trained / name, tmp_path / name)

    moved, there = (resolve_model(folder / "both") for folder in (tmp_path, trained))
    assert moved.sha256 == there.sha256
    assert moved.members[0].name.startswith(str(tmp_path))
