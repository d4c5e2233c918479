"""Formats of exported networks, and the backend that writes and runs each.

An entry makes a format known everywhere: to the commands, their error messages, exports, bundles,
`steelseg bench` and `steelseg repository`. The backend is imported once it is used. `steelseg
--help` reads this table, so it imports nothing, not even dataclasses.
"""


class ExportFormat:
    """A value of `steelseg export --format`."""

    def __init__(
        self,
        backend: str,
        *,
        suffixes: tuple[str, ...],
        packages: tuple[str, ...],
        int8_packages: tuple[str, ...] | None,
    ) -> None:
        """Describe a format.

        Args:
            backend: Import path of a module with the functions of
                `inference.backends.backend.Backend`.
            suffixes: Endings of the files of a network; the first is the file to load.
            packages: Packages that writing and running need.
            int8_packages: Packages that quantizing needs too; None if the format has no int8.
        """
        self.backend = backend
        self.suffixes = suffixes
        self.packages = packages
        self.int8_packages = int8_packages or ()
        self.precisions = ("fp32",) if int8_packages is None else ("fp32", "int8")


EXPORT_FORMATS = {
    "onnx": ExportFormat(
        "steelseg.inference.backends.onnx",
        suffixes=(".onnx",),
        packages=("onnx", "onnxscript", "onnxruntime"),
        int8_packages=("nncf",),
    ),
    "openvino": ExportFormat(
        "steelseg.inference.backends.openvino",
        suffixes=(".xml", ".bin"),
        packages=("onnx", "onnxscript", "openvino"),
        int8_packages=("nncf",),
    ),
}
"""Formats by name. A name has no hyphen, because `onnx-int8` names an export."""


def backends() -> tuple[str, ...]:
    """Return what can run a network: torch, or the backend of an export format."""
    return ("torch", *EXPORT_FORMATS)


def network_sources() -> tuple[str, ...]:
    """Return what a bundle is made from: checkpoints (torch), or an export such as onnx-int8."""
    exports = [f"{name}-{p}" for name, kind in EXPORT_FORMATS.items() for p in kind.precisions]
    return ("torch", *exports)
