"""How the files of the page are served."""

from steelseg.serving.page_files import read_page


def test_only_known_kinds_are_served_by_their_names(tmp_path):
    """index.html is `/`; files that a browser does not need are not served."""
    for name in ("index.html", "main.js", "notes.md", "__init__.py"):
        (tmp_path / name).write_text(name)
    page = read_page(tmp_path)

    assert {path: file.content_type for path, file in page.items()} == {
        "/": "text/html; charset=utf-8",
        "/main.js": "text/javascript; charset=utf-8",
    }
    assert page["/"].content == b"index.html"


def test_a_file_that_the_browser_has_is_not_sent_again(make_app, tmp_path, monkeypatch):
    """The browser sends the tag that came with the file; a changed file has another."""
    (tmp_path / "index.html").write_text("one")
    monkeypatch.setattr("steelseg.serving.app.read_page", lambda: read_page(tmp_path))
    app = make_app()
    first = app.ask("/")
    again = app.ask("/", headers={"If-None-Match": first.headers["ETag"]})
    other = app.ask("/", headers={"If-None-Match": '"another"'})
    head = app.ask("/", method="HEAD")

    assert (first.status, first.body) == (200, b"one")
    assert (again.status, again.body) == (304, b"")
    assert (other.status, other.body) == (200, b"one")
    assert (head.status, head.body, head.headers["Content-Length"]) == (200, b"", "3")
    assert "script-src 'self'" in first.headers["Content-Security-Policy"]
