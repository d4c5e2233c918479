"""What is not in the source: anything that runs what a file says."""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1]
FILES = sorted([*SOURCE.glob("src/**/*.py"), *SOURCE.glob("unet_baseline/**/*.py")])

UNSAFE_MODULES = {
    "pickle",
    "cPickle",
    "_pickle",
    "marshal",
    "shelve",
    "dill",
    "cloudpickle",
    "joblib",
}
UNSAFE_CALLS = {
    "eval",
    "exec",
    "compile",
    "__import__",
    "os.system",
    "os.popen",
    "torch.load",
    "torch.hub.load",
    "torch.jit.load",
    "yaml.load",
    "yaml.load_all",
    "yaml.full_load",
    "yaml.unsafe_load",
    "np.load",
    "numpy.load",
    "np.fromfile",
    "pd.read_pickle",
}
UNSAFE_OPTIONS = {("allow_pickle", True), ("weights_only", False), ("shell", True)}


def unsafe_parts(source):
    """Name every unsafe import, call and option of a module's source."""
    found = []
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                found += [n.name for n in names if n.name.split(".")[0] in UNSAFE_MODULES]
            case ast.ImportFrom(module=str(module)) if module.split(".")[0] in UNSAFE_MODULES:
                found.append(module)
            case ast.Call(func=func, keywords=options):
                found += [ast.unparse(func)] * (ast.unparse(func) in UNSAFE_CALLS)
                found += [
                    option.arg
                    for option in options
                    if isinstance(option.value, ast.Constant)
                    and (option.arg, option.value.value) in UNSAFE_OPTIONS
                ]
            case ast.Attribute(attr="UnsafeLoader" | "FullLoader" | "Loader", value=value):
                found += ["yaml loader"] * (ast.unparse(value) == "yaml")
    return found


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import pickle", ["pickle"]),
        ("from joblib import load", ["joblib"]),
        ("torch.load(path)", ["torch.load"]),
        ("x.read(path, allow_pickle=True)", ["allow_pickle"]),
        ("yaml.dump(1, Dumper=yaml.FullLoader)", ["yaml loader"]),
        ("run(words, shell=True)", ["shell"]),
        ("eval('1'); model.eval()", ["eval"]),
        ("strict_yaml.load(text); np.save(a, b)", []),
    ],
)
def test_unsafe_parts_are_recognised(source, found):
    """Else the next test could not fail."""
    assert unsafe_parts(source) == found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_no_unsafe_loader_is_in_the_source(path):
    """A file from a stranger is data, whatever it says."""
    assert unsafe_parts(path.read_text(encoding="utf-8")) == []
