"""The page: the files of `page/`, read once and served by their names.

Nothing else is ever served: a name is looked up among those that were read, never opened.
"""

import hashlib
from pathlib import Path

from steelseg.serving.messages import Answer

FOLDER = Path(__file__).with_name("page")

# The page may use itself and nothing from elsewhere; pictures are drawn from memory.
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


def read_page(folder: Path = FOLDER) -> dict[str, Answer]:
    """An answer for each file, by its path; index.html is `/`."""
    answers = {}
    for file in sorted(folder.rglob("*")):
        if file.suffix in _TYPES and file.is_file():
            answers[f"/{file.relative_to(folder).as_posix()}"] = _answer(file)
    if index := answers.pop("/index.html", None):
        answers["/"] = index
    return answers


def _answer(file: Path) -> Answer:
    """One file; a browser asks each time whether it is still that."""
    content = file.read_bytes()
    tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    headers = (("ETag", tag), ("Cache-Control", "no-cache"))
    return Answer(body=content, content_type=_TYPES[file.suffix], headers=headers)
