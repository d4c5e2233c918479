"""Strict YAML loader for settings: duplicate keys are an error.

PyYAML silently keeps the last of two equal keys, so a second `train:` further down would
replace the first. Only plain values are built, never objects. Aliases that expand a few lines to
billions of values are rejected before any value is built.
"""

from itertools import chain
from typing import Any

import yaml

# A hundred times as many as in the longest settings file.
_MOST_VALUES = 100_000


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, which also rejects duplicate keys."""

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
        yaml.YAMLError: if the text is not YAML, has a duplicate key, or is too large.
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
        # PyYAML parses 2024-13-45 as a date, and fails on numbers with thousands of digits.
        raise yaml.YAMLError(str(error)) from None


def _count(node: yaml.Node, counts: dict[int, int]) -> int:
    """Return the number of values that a node expands to, aliases included.

    Each node is visited once; `counts` maps the id of a node to its number.
    """
    if id(node) not in counts:
        # Provisional, so that a node which contains itself counts as too many.
        counts[id(node)] = _MOST_VALUES + 1
        children = node.value if isinstance(node, yaml.CollectionNode) else ()
        parts = chain.from_iterable(children) if isinstance(node, yaml.MappingNode) else children
        counts[id(node)] = 1 + sum(_count(part, counts) for part in parts)
    return counts[id(node)]
