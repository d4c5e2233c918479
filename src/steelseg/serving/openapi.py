"""The OpenAPI document of the server: every path but the page, every status that it answers."""

from typing import Any

from steelseg.serving.messages import Limits
from steelseg.serving.options import NUMBERS, WHOLE_NUMBERS
from steelseg.version import __version__

_TEXT = {"type": "string"}
_WHOLE = {"type": "integer", "minimum": 0}
_SHARE = {"type": "number", "minimum": 0, "maximum": 1}
_CLASS = {"type": "integer", "minimum": 1, "maximum": 255}
_DIGEST = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
_RLE = {"type": "string", "description": "start length ..., from 1, down then right; as Kaggle."}

_WHY = {
    "400": "The request or a parameter is wrong.",
    "401": "The token is missing or wrong.",
    "403": "The server was started without what this needs.",
    "404": "There is no such model.",
    "405": "The path takes other methods.",
    "408": "The request came too slowly.",
    "409": "A model is being loaded already.",
    "413": "The body or the image is too large.",
    "415": "The body is neither a JPEG nor a PNG.",
    "422": "The image or the model cannot be used.",
    "429": "Every place is taken; answered before the body is read.",
    "431": "The header is too long.",
    "501": "The body is packed in a way that is not read.",
    "503": "The server is stopping, or out of memory.",
    "505": "The request is of another HTTP than 1.0 and 1.1.",
}
_EVERYWHERE = ("400", "405", "408", "413", "431", "501", "503", "505")
_WAIT = {"Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer"}}}
_MODEL = {"X-Model": {"description": "SHA-256 of the model.", "schema": _DIGEST}}


def document(limits: Limits) -> dict[str, Any]:
    """Describe the API of a server with these limits."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "steelseg",
            "version": __version__,
            "description": "Defects on steel strip. Paths that begin with /v1 keep their meaning.",
        },
        "paths": {
            "/v1/predict": {"post": _predict(limits)},
            "/v1/model": {"get": _get_model(), "post": _post_model()},
            "/live": {"get": _plain("Whether the process answers.", {"live": {"const": True}})},
            "/ready": {"get": _plain("Whether strips are let in.", {"ready": {"const": True}})},
            "/metrics": {"get": _metrics()},
            "/openapi.json": {"get": _plain("This document.", {"openapi": _TEXT})},
        },
        "components": {
            "schemas": {
                "Error": _object({"error": _TEXT}),
                "Prediction": _prediction(),
                "Model": _model(),
            },
            "securitySchemes": {"admin": {"type": "http", "scheme": "bearer"}},
        },
    }


def _predict(limits: Limits) -> dict[str, Any]:
    return {
        "operationId": "predict",
        "summary": "Find the defects of one strip.",
        "description": (
            f"The body is a JPEG or PNG file of at most {limits.max_bytes} bytes and "
            f"{limits.max_pixels} pixels, nothing around it."
        ),
        "parameters": [
            _parameter(
                "answer",
                {"enum": ["json", "mask", "overlay", "probabilities"], "default": "json"},
                "What to answer with.",
            ),
            _parameter("class", _CLASS, "With answer=mask: 0 and 255 of this class alone."),
            _parameter(
                "threshold",
                {"type": "string", "pattern": NUMBERS},
                "Lowest probability that is kept; one number, or one a class.",
            ),
            _parameter(
                "min_size",
                {"type": "string", "pattern": WHOLE_NUMBERS},
                "Pixels of the smallest defect that is kept; one number, or one a class.",
            ),
        ],
        "requestBody": {
            "required": True,
            "content": {name: {"schema": {}} for name in ("image/jpeg", "image/png")},
        },
        "responses": {
            "200": {
                "description": "What was asked for.",
                "headers": {
                    **_MODEL,
                    "X-Shape": {
                        "description": "Of probabilities: classes, height, width.",
                        "schema": _TEXT,
                    },
                },
                "content": {
                    "application/json": {"schema": {"$ref": "#/components/schemas/Prediction"}},
                    "image/png": {"schema": {}},
                    "application/octet-stream": {"schema": {}},
                },
            },
            **_errors("415", "422", "429"),
        },
    }


def _get_model() -> dict[str, Any]:
    return {
        "operationId": "getModel",
        "summary": "Say which model answers, and by which settings.",
        "responses": {"200": _ok("#/components/schemas/Model"), **_errors()},
    }


def _post_model() -> dict[str, Any]:
    return {
        "operationId": "setModel",
        "summary": "Read the model again, or let another take over; no request fails meanwhile.",
        "security": [{"admin": []}],
        "requestBody": {
            "required": False,
            "content": {"application/json": {"schema": _object({"name": _TEXT})}},
        },
        "responses": {
            "200": _ok("#/components/schemas/Model"),
            **_errors("401", "403", "404", "409", "422"),
        },
    }


def _plain(summary: str, properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "summary": summary,
        "responses": {
            "200": {
                "description": "Yes.",
                "headers": _MODEL,
                "content": {
                    "application/json": {
                        "schema": _object(properties) | {"additionalProperties": True}
                    }
                },
            },
            **_errors(),
        },
    }


def _metrics() -> dict[str, Any]:
    return {
        "summary": "Counters, as Prometheus reads them.",
        "responses": {
            "200": {
                "description": "The counters.",
                "headers": _MODEL,
                "content": {"text/plain": {"schema": _TEXT}},
            },
            **_errors(),
        },
    }


def _prediction() -> dict[str, Any]:
    of_class = {
        "class": _CLASS,
        "name": _TEXT,
        "max_probability": _SHARE,
        "threshold": _SHARE,
        "min_size": _WHOLE,
        "rle": _RLE,
        "area": _WHOLE,
    }
    defect = {
        "class": _CLASS,
        "rle": _RLE,
        "box": {
            "type": "array",
            "items": _WHOLE,
            "minItems": 4,
            "maxItems": 4,
            "description": "Left, top, width and height in pixels, from 0.",
        },
        "area": _WHOLE,
        "score": _SHARE | {"description": "Mean probability of its pixels."},
    }
    return _object(
        {
            "model": _DIGEST,
            "height": _WHOLE,
            "width": _WHOLE,
            "seconds": {"type": "number", "minimum": 0},
            "classes": {"type": "array", "items": _object(of_class)},
            "defects": {"type": "array", "items": _object(defect)},
        }
    )


def _model() -> dict[str, Any]:
    of_class = {
        "class": _CLASS,
        "name": _TEXT,
        "threshold": _SHARE,
        "min_size": _WHOLE,
        "min_area": _WHOLE,
        "top_threshold": _SHARE,
    }
    return _object(
        {
            "sha256": _DIGEST,
            "classes": {"type": "array", "items": _object(of_class)},
            "pixel_mm": {"type": ["number", "null"], "description": "Side of a pixel."},
            "channels": {"enum": [1, 3]},
            "inference": {"type": "object"},
            "provenance": {"type": "object"},
            "limits": _object({"max_bytes": _WHOLE, "max_pixels": _WHOLE}),
        }
    )


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    """An object with these properties and no other."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _parameter(name: str, schema: dict[str, Any], meaning: str) -> dict[str, Any]:
    return {
        "name": name,
        "in": "query",
        "required": False,
        "description": meaning,
        "schema": schema,
    }


def _ok(schema: str) -> dict[str, Any]:
    return {
        "description": "The model.",
        "headers": _MODEL,
        "content": {"application/json": {"schema": {"$ref": schema}}},
    }


def _errors(*statuses: str) -> dict[str, Any]:
    """The refusals that every path has, and these."""
    return {
        status: {
            "description": _WHY[status],
            "headers": _MODEL | (_WAIT if status in ("429", "503") else {}),
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
        }
        for status in sorted({*_EVERYWHERE, *statuses})
    }
