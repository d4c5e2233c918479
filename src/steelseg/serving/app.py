"""The HTTP routes: a FastAPI application, which also writes the OpenAPI document."""

import hmac
import mimetypes
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from fastapi.security import HTTPBearer
from fastapi.staticfiles import StaticFiles
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException

from steelseg.data.formats import images
from steelseg.serving.gateway import Gateway
from steelseg.serving.options import PredictQuery
from steelseg.serving.schemas import ErrorBody, Live, ModelChoice, ModelInfo, Prediction, Ready
from steelseg.serving.service import Service
from steelseg.version import __version__

_PAGE = Path(__file__).with_name("page")

# The page may load only its own files; images are drawn from memory.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; worker-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)

_WHY = {
    400: "The request or a parameter is wrong.",
    401: "The token is missing or wrong.",
    403: "The server was started without an option that this needs.",
    404: "There is no such model.",
    405: "The path does not support this method.",
    408: "The body arrived too slowly.",
    409: "Another model is being loaded.",
    413: "The body or the image is too large.",
    415: "The body is not an image file of a supported format.",
    422: "The image or the model cannot be used.",
    429: "The queue is full; answered before the body is read.",
    503: "Out of memory, or too many bytes of bodies are in memory.",
}
_MODEL_HEADER = {"X-Model": {"description": "SHA-256 of the model.", "schema": {"type": "string"}}}
_RETRY_HEADER = {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}}}


def create_app(service: Service, *, admin_token: str | None = None) -> Gateway:
    """Make the ASGI application.

    Args:
        service: Predicts the strips.
        admin_token: Secret that allows a client to change the model; None allows nobody.
    """
    app = FastAPI(
        title="steelseg",
        version=__version__,
        description="Defects on steel strip. Paths under /v1 keep their meaning.",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        exception_handlers={
            HTTPException: _refuse,
            RequestValidationError: _refuse_query,
            Exception: _report_bug,
        },
    )
    _add_predict(app, service)
    _add_model(app, service, admin_token)
    _add_health(app, service)
    _add_page(app)
    paths = {*app.openapi()["paths"], app.openapi_url}

    def count(path: str, status: int) -> None:
        is_page = path == "/" or path.startswith("/page/")
        route = path if path in paths else "page" if is_page and status < 400 else "other"
        service.metrics.requests.labels(route, status).inc()

    return Gateway(app, limits=service.limits, headers=lambda: _headers(service), count=count)


def _add_predict(app: FastAPI, service: Service) -> None:
    """Add `/v1/predict`."""
    limits = service.limits

    @app.post(
        "/v1/predict",
        operation_id="predict",
        summary="Find the defects of one strip.",
        description=f"The body is a {images.format_names()} file of at most {limits.max_bytes} "
        f"bytes and {limits.max_pixels} pixels, as it is.",
        openapi_extra=_body(required=True, **{kind.MEDIA_TYPE: {} for kind in images.FORMATS}),
        responses={
            200: {
                "description": "The form that was asked for.",
                "model": Prediction,
                "content": {"image/png": {}, "application/octet-stream": {}},
                "headers": _MODEL_HEADER
                | {"X-Shape": {"description": "Of probabilities: classes, height, width."}},
            },
            **_errors(415, 422, 429),
        },
    )
    async def predict(request: Request, query: Annotated[PredictQuery, Query()]) -> Response:
        if len(request.query_params.multi_items()) > len(request.query_params):
            raise HTTPException(400, "A parameter of the query is duplicated.")
        accepts_gzip = "gzip" in request.headers.get("accept-encoding", "")
        return await service.predict(request.body, query, accepts_gzip=accepts_gzip)


def _add_model(app: FastAPI, service: Service, admin_token: str | None) -> None:
    """Add `/v1/model`."""
    info: dict[int | str, dict[str, Any]] = {200: {"model": ModelInfo, "headers": _MODEL_HEADER}}

    @app.get(
        "/v1/model",
        operation_id="getModel",
        summary="Describe the model that answers, and its settings.",
        responses={**info, **_errors()},
    )
    async def describe() -> Response:
        return JSONResponse(service.describe())

    async def check_token(request: Request) -> None:
        if admin_token is None:
            raise HTTPException(403, "This server was started without --admin-token-file.")
        given = request.headers.get("authorization", "").encode()
        if not hmac.compare_digest(given, f"Bearer {admin_token}".encode()):
            raise HTTPException(
                401,
                "Wrong token. Expected the header Authorization: Bearer TOKEN.",
                headers={"WWW-Authenticate": "Bearer"},
            )

    @app.post(
        "/v1/model",
        operation_id="setModel",
        summary="Reload the model, or change to another; no request fails meanwhile.",
        openapi_extra=_body(
            required=False, **{"application/json": ModelChoice.model_json_schema()}
        ),
        # HTTPBearer is for the document: it would answer a missing token in another form.
        dependencies=[Depends(HTTPBearer(auto_error=False)), Depends(check_token)],
        responses={**info, **_errors(401, 403, 404, 409, 422)},
    )
    async def change_model(request: Request) -> Response:
        await service.change_model(request.body)
        return JSONResponse(service.describe())


def _add_health(app: FastAPI, service: Service) -> None:
    """Add `/live`, `/ready` and `/metrics`."""

    @app.get("/live", summary="Answer while the process runs.", responses=_errors())
    async def live() -> Live:
        return Live()

    @app.get("/ready", summary="Answer while strips are accepted.", responses=_errors())
    async def ready() -> Ready:
        return Ready()

    @app.get(
        "/metrics",
        summary="Metrics for Prometheus.",
        response_class=PlainTextResponse,
        responses=_errors(),
    )
    async def metrics() -> Response:
        return Response(generate_latest(service.metrics.registry), media_type=CONTENT_TYPE_LATEST)


def _add_page(app: FastAPI) -> None:
    """Add the web page: `/`, and its files under `/page/`."""
    # Windows may be configured with another type, with which browsers run no script.
    mimetypes.add_type("text/javascript", ".js")

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        return FileResponse(_PAGE / "index.html")

    app.mount("/page", StaticFiles(directory=_PAGE))


def _headers(service: Service) -> dict[str, str]:
    """Return the headers of every response: the model, and what a browser may do with it."""
    return {
        "X-Model": service.model.sha256,
        "Cache-Control": "no-cache",
        "Content-Security-Policy": _POLICY,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
    }


def _errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Document the errors that every path has, and these."""
    return {
        status: {
            "description": _WHY[status],
            "model": ErrorBody,
            "headers": _MODEL_HEADER | (_RETRY_HEADER if status in (429, 503) else {}),
        }
        for status in sorted({400, 405, 408, 413, 503, *statuses})
    }


def _body(*, required: bool, **schemas: Mapping[str, Any]) -> dict[str, Any]:
    """Document a body that the route reads itself."""
    content = {media_type: {"schema": schema} for media_type, schema in schemas.items()}
    return {"requestBody": {"required": required, "content": content}}


def _reply(status: int, reason: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"error": reason}, status_code=status, headers=headers)


async def _refuse(request: Request, error: Exception) -> JSONResponse:
    """Answer a request that was refused."""
    assert isinstance(error, HTTPException)
    if error.detail == HTTPStatus.NOT_FOUND.phrase:
        return _reply(404, "This path does not exist. /openapi.json lists those that do.")
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        path = request.url.path
        # FastAPI names only the methods of one of its routes.
        methods = {name.upper() for name in request.app.openapi()["paths"].get(path, ["get"])}
        allowed = sorted(methods | ({"HEAD"} if "GET" in methods else set()))
        return _reply(
            405, f"{path} accepts {' and '.join(allowed)}.", {"Allow": ", ".join(allowed)}
        )
    return _reply(error.status_code, error.detail, error.headers)


async def _refuse_query(_request: Request, error: Exception) -> JSONResponse:
    """Answer a query that FastAPI refused."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    # After "query" and the name, pydantic adds the branch of a union.
    name, value = str(first["loc"][1]), str(first["input"])
    return _reply(400, f"{name[:40]}={value[:40]} is wrong: {first['msg']}.")


async def _report_bug(_request: Request, _error: Exception) -> JSONResponse:
    """Answer a request that failed by a bug; uvicorn logs the traceback."""
    return _reply(500, "The server failed; its log says where.")
