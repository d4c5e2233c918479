import cv2
import numpy as np

from steelseg.cli.main import main
from steelseg.training.augment_preview import preview_augmentation


def test_the_sheet_shows_samples_as_they_are_and_augmented(make_config, make_strips, tmp_path):
    """The first picture is the plain sample; blackened ones of the same sample follow."""
    make_strips(tmp_path / "input")
    config = make_config(tmp_path / "input", "train.augmentation=defect_blackout")
    path = tmp_path / "sheet.png"

    preview_augmentation(config, path, samples=3, versions=4)

    sheet = cv2.imread(str(path))
    high, wide = sheet.shape[0] // 3, sheet.shape[1] // 5
    # Twice as large, so that words fit, and below a title.
    assert wide >= 2 * 96
    first = [sheet[high // 4 : high // 2, k * wide : k * wide + 2 * 96 - 8] for k in range(5)]
    assert not (first[0] == 0).any(axis=2).mean() > 0.05
    assert all((picture == 0).all(axis=2).mean() > 0.05 for picture in first[1:])


def test_the_command_takes_settings_and_refuses_an_unknown_step(make_strips, tmp_path, capsys):
    """Of whole strips too, of any data set."""
    make_strips(tmp_path / "input")
    (tmp_path / "c.yaml").write_text(
        f"data: {{root: {tmp_path / 'input'}, num_classes: 2, img_height: 32, img_width: 96}}"
    )
    words = ["augment-preview", str(tmp_path / "c.yaml"), "--out", str(tmp_path / "s.png")]

    assert main([*words, "train.augmentation=[0.5 jpeg, defect_paste]"]) == 0
    assert f"wrote {tmp_path / 's.png'}" in capsys.readouterr().out
    assert np.asarray(cv2.imread(str(tmp_path / "s.png"))).ndim == 3
    (tmp_path / "s.png").unlink()
    assert main([*words, "train.augmentation=[jpg]"]) == 1
    assert "train.augmentation=jpg: expected none" in capsys.readouterr().err
    assert not (tmp_path / "s.png").exists()
