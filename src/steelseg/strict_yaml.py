"""YAML as settings need it: a name that stands twice is refused, not half forgotten.

PyYAML keeps the last of two equal names in silence, so a second `train:` further down would
undo the first. Only plain values are built, never objects.
"""

from typing import Any

import yaml


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, with names that must be unique."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        assert isinstance(node, yaml.MappingNode), node
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if (key.tag, key.value) in seen:
                    fault = f"'{key.value}' stands there twice"
                    raise yaml.MarkedYAMLError(problem=fault, problem_mark=key.start_mark)
                seen.add((key.tag, key.value))
        return node


def load(text: str) -> Any:
    """Read one YAML document.

    Raises:
        yaml.YAMLError: if the text is not YAML, or names something twice.
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except ValueError as error:
        # PyYAML takes 2024-13-45 for a date, and trips over numbers of thousands of digits.
        raise yaml.YAMLError(str(error)) from None
