"""The OpenAPI document of the server."""

from typing import Any

from steelseg import __version__
from steelseg.serving.messages import Limits


def document(limits: Limits) -> dict[str, Any]:
    """Describe every path but the page."""
    return {"openapi": "3.1.0", "info": {"title": "steelseg", "version": __version__}, "paths": {}}
