"""Strict YAML loader for settings: duplicate keys are an error.

PyYAML silently keeps the last of two equal keys, so a second `train:` further down would
replace the first. Only plain values are built, never objects. Aliases that unpack ten lines to
billions of values are refused before a value is built.
"""

from itertools import chain
from typing import Any

import yaml

# A hundred times what the longest settings file has.
_MOST_VALUES = 100_000


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, with names that must be unique."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        assert isinstance(node, yaml.MappingNode), node
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if (key.tag, key.value) in seen:
                    fault = f"'{key.value}' is duplicated"
                    raise yaml.MarkedYAMLError(problem=fault, problem_mark=key.start_mark)
                seen.add((key.tag, key.value))
        return node


def load(text: str) -> Any:
    """Read one YAML document.

    Raises:
        yaml.YAMLError: if the text is not YAML, or names something twice.
    """
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        if _count(node, {}) > _MOST_VALUES:
            raise yaml.YAMLError(f"its aliases expand to more than {_MOST_VALUES} values")
        return loader.construct_document(node)
    except RecursionError:
        raise yaml.YAMLError("it is nested too deeply") from None
    except ValueError as error:
        # PyYAML takes 2024-13-45 for a date, and trips over numbers of thousands of digits.
        raise yaml.YAMLError(str(error)) from None


def _count(node: yaml.Node, counts: dict[int, int]) -> int:
    """Values that a node stands for; what an alias names counts each time, but is counted once."""
    if id(node) not in counts:
        # Until it is known, so that a node which holds itself is too many.
        counts[id(node)] = _MOST_VALUES + 1
        children = node.value if isinstance(node, yaml.CollectionNode) else ()
        parts = chain.from_iterable(children) if isinstance(node, yaml.MappingNode) else children
        counts[id(node)] = 1 + sum(_count(part, counts) for part in parts)
    return counts[id(node)]
