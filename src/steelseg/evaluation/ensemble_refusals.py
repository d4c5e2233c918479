"""What `steelseg ensemble` refuses before it computes anything."""

from collections.abc import Sequence
from pathlib import Path

from steelseg.errors import ConfigError
from steelseg.evaluation.candidates import Candidate, TrainedRun
from steelseg.evaluation.ensemble_pool import EnsemblePlan

# What a combined run may hold; another file is not ours to remove.
_OURS = (
    *("config.yaml", "environment.json", "folds.csv", "ensemble.json", "training_log.txt"),
    *("events.jsonl", "postprocess.json", "cascade.json", "metrics.json", "scores.csv"),
    "report.html",
)


def refuse_nothing_to_do(
    paths: Sequence[Path], plan: EnsemblePlan, presence: Sequence[Path]
) -> None:
    """Raise ConfigError if what is asked for changes nothing."""
    if len(paths) == 1 and not presence and not plan.choose_tta:
        raise ConfigError(
            f"{paths[0]} alone is no ensemble. Name another run, or choose its flips: --choose-tta."
        )
    if len(paths) == 1 and plan.weights != "equal":
        raise ConfigError(
            f"--weights {plan.weights} has nothing to weigh: {paths[0]} is the only run. Leave it "
            "out, or name another run."
        )
    if plan.per_class and plan.weights == "equal":
        raise ConfigError(
            "--per-class is about weights that are chosen, and a plain mean has none. Leave it "
            "out, or take --weights learnt or greedy."
        )


def refuse_classifier(trained: TrainedRun) -> None:
    """Raise ConfigError if a run says nothing of pixels."""
    if trained.config.model.is_classifier:
        raise ConfigError(
            f"{trained.run.path} is a classifier and says nothing of pixels. Name it behind "
            "--presence."
        )


def refuse_no_presence(lookers: Sequence[Candidate]) -> None:
    """Raise ConfigError if a run that was named for its presence has none."""
    for looker in lookers:
        if not looker.has_presence:
            raise ConfigError(
                f"{looker.trained.run.path} has no presence to take. Train it with "
                "model.presence_head=true, or predict it anew: steelseg oof "
                f"{looker.trained.run.path}."
            )


def refuse_other_folder(out: Path) -> None:
    """Raise ConfigError unless `out` is free, an empty folder, or a combination and no more."""
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise ConfigError(f"{out} is no folder. Choose another --out.")
    names = sorted(path.name for path in out.iterdir()) if out.exists() else []
    if not names:
        return
    if "ensemble.json" not in names:
        raise ConfigError(f"{out} holds files and no combined run. Choose another --out.")
    odd = [name for name in names if name not in _OURS and not name.startswith("fold_")]
    if odd:
        raise ConfigError(
            f"{out / odd[0]} is no part of the combined run there. Move it elsewhere, or choose "
            "another --out."
        )
