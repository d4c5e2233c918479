"""Reading the JSON files that a stage left for another.

A file that was cut short or edited by hand is refused in one line that names it and says how to
make it again, whatever its reader stumbles over.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from steelseg.errors import DataError

T = TypeVar("T")

_DAMAGE = (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError)


def read_json(path: Path, parse: Callable[[Any], T], *, remedy: str) -> T:
    """Read a JSON file.

    Args:
        path: The file, UTF-8.
        parse: Turns its content into the result, such as `Model.model_validate`. A DataError of
            its own reaches the caller; any other error of a wrong content means damage.
        remedy: What to do about a damaged file, as a sentence.

    Returns:
        What `parse` gives.

    Raises:
        DataError: if the file cannot be read, is not JSON, or `parse` cannot understand it.
    """
    try:
        return parse(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from None
    except DataError:
        raise
    except _DAMAGE:
        raise DataError(f"{path} is damaged. {remedy}") from None
