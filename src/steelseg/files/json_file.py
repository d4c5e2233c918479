"""Read the JSON files by which stages communicate.

A file that was cut short or edited by hand is refused in one line that names the file and says how
to make it again, whatever error its content causes.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from steelseg.errors import DataError, SteelsegError

T = TypeVar("T")

_DAMAGE = (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError)


def read_json(
    path: Path,
    parse: Callable[[Any], T],
    *,
    remedy: str,
    error: type[SteelsegError] = DataError,
) -> T:
    """Read a JSON file.

    Args:
        path: The file, UTF-8.
        parse: Turns its content into the result, such as `Model.model_validate`. A SteelsegError
            that it raises reaches the caller; any other error means that the file is damaged.
        remedy: How to repair a damaged file, as a sentence.
        error: The class of the errors raised here.

    Returns:
        The result of `parse`.

    Raises:
        SteelsegError: `error`, if the file cannot be read, is not JSON, or `parse` fails.
    """
    try:
        return parse(json.loads(path.read_text(encoding="utf-8")))
    except OSError as fault:
        raise error(f"{path} cannot be read: {fault.strerror}.") from None
    except SteelsegError:
        raise
    except ValidationError as fault:
        first = fault.errors()[0]
        place = ".".join(str(part)[:60] for part in first["loc"]) or "content"
        reason = f"{place}: {first['msg'][:160]}"
        raise error(f"{path} is damaged: {reason}. {remedy}") from None
    except _DAMAGE:
        raise error(f"{path} is damaged. {remedy}") from None
