import pytest

from steelseg.api import export
from steelseg.run.run_folder import RunFolder
from steelseg.training.train import train_run


@pytest.fixture(scope="package")
def exported_run(tmp_path_factory, make_config, make_strips):
    """Give a run with exports: both folds in both formats, one fold as int8; tests keep it so."""
    folder = tmp_path_factory.mktemp("exported")
    make_strips(folder / "input")
    train_run(make_config(folder / "input", "model.encoder=tu-test_resnet"), folder / "run")
    for format in ("onnx", "openvino"):
        export(folder / "run", format=format)
    # Of a network that has learnt nothing int8 may be worse, and slower on so few pixels.
    export(folder / "run", format="openvino", int8=True, folds=[0], allow=["dice", "speed"])
    return RunFolder(folder / "run")
