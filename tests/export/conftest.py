import pytest

from steelseg.api import export
from steelseg.run.run_folder import RunFolder
from steelseg.training.train import train_run


@pytest.fixture(scope="package")
def exported_run(tmp_path_factory, make_config, make_strips):
    """Return a run with a presence head, exported: both folds in both formats, one as int8.

    Exporting takes most of the time of these tests, so they share it and do not change it.
    """
    folder = tmp_path_factory.mktemp("exported")
    make_strips(folder / "input")
    settings = ("model.encoder=tu-test_resnet", "model.presence_head=true")
    train_run(make_config(folder / "input", *settings), folder / "run")
    for format in ("onnx", "openvino"):
        export(folder / "run", format=format)
    # Of a network that has learnt nothing int8 may be worse, and slower on so few pixels.
    export(folder / "run", format="openvino", int8=True, folds=[0], allow=["dice", "speed"])
    return RunFolder(folder / "run")
