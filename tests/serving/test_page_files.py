"""The files of the page, as they are sent."""

from steelseg.serving.page_files import read_page


def test_only_known_kinds_are_served_by_their_names(tmp_path):
    """The first page is `/`; what a browser does not need stays where it is."""
    for name in ("index.html", "main.js", "notes.md", "__init__.py"):
        (tmp_path / name).write_text(name)
    page = read_page(tmp_path)

    assert {path: answer.content_type for path, answer in page.items()} == {
        "/": "text/html; charset=utf-8",
        "/main.js": "text/javascript; charset=utf-8",
    }
    assert page["/"].body == b"index.html"


def test_what_the_browser_has_is_not_sent_again(start, tmp_path, monkeypatch):
    """It asks with the tag that came with the file; a changed file has another."""
    (tmp_path / "index.html").write_text("one")
    monkeypatch.setattr("steelseg.serving.app.read_page", lambda: read_page(tmp_path))
    with start() as server:
        first = server.ask("/")
        again = server.ask("/", headers={"If-None-Match": first.headers["ETag"]})
        other = server.ask("/", headers={"If-None-Match": '"another"'})
        head = server.ask("/", method="HEAD")

    assert (first.status, first.body) == (200, b"one")
    assert (again.status, again.body) == (304, b"")
    assert (other.status, other.body) == (200, b"one")
    assert (head.status, head.body, head.headers["Content-Length"]) == (200, b"", "3")
    assert "script-src 'self'" in first.headers["Content-Security-Policy"]
