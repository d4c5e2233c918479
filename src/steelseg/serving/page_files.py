"""The web page: the files of `page/`, read once and served by their names.

A request path is looked up among the files that were read; it is never opened.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

FOLDER = Path(__file__).with_name("page")

# The page may load only its own files; images are drawn from memory.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; worker-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)

_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".ico": "image/x-icon",
    ".js": "text/javascript; charset=utf-8",
    ".png": "image/png",
    ".svg": "image/svg+xml",
}


@dataclass(frozen=True)
class PageFile:
    """A file and how to serve it."""

    content: bytes
    content_type: str

    async def respond(self, request: Request) -> Response:
        """Send the file, or 304 if the browser has it; it asks every time."""
        tag = f'"{hashlib.sha256(self.content).hexdigest()[:32]}"'
        headers = {"ETag": tag, "Cache-Control": "no-cache", "Content-Type": self.content_type}
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        return Response(self.content, headers=headers)


def read_page(folder: Path = FOLDER) -> dict[str, PageFile]:
    """Read the files of the page, by URL path; index.html is `/`."""
    files = {}
    for file in sorted(folder.rglob("*")):
        if file.suffix in _TYPES and file.is_file():
            path = f"/{file.relative_to(folder).as_posix()}"
            files[path] = PageFile(file.read_bytes(), _TYPES[file.suffix])
    if index := files.pop("/index.html", None):
        files["/"] = index
    return files
