"""Parts of the held-out strips: what is chosen on the others judges a part."""

from steelseg.data.folds import assign_folds, read_groups
from steelseg.errors import DataError
from steelseg.evaluation.oof_store import HeldOut
from steelseg.run_folder import RunFolder


def deal_parts(run: RunFolder, held_out: HeldOut, *, parts: int, seed: int) -> dict[str, int]:
    """Deal the strips to parts; those that look alike stay together, as in the folds.

    Args:
        run: The run, whose folds.csv knows which strips look alike.
        held_out: The strips.
        parts: How many parts; of few strips there are fewer.
        seed: The same seed deals the same parts.

    Returns:
        Part of each strip, by image_id; no part is empty.

    Raises:
        DataError: if there is only one strip.
    """
    groups = read_groups(run.folds_csv)
    alone = len({groups.get(image_id, image_id) for image_id in held_out.fold_of})
    if alone < 2:
        raise DataError(f"{run.path} has predictions of one strip; two are needed at least.")
    part_of = assign_folds(held_out.present, num_folds=min(parts, alone), seed=seed, groups=groups)
    # Of few strips in large groups a part may have got none.
    number = {part: place for place, part in enumerate(sorted(set(part_of.values())))}
    return {image_id: number[part] for image_id, part in part_of.items()}
