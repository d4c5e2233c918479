from pathlib import Path

import pytest

from steelseg.cli.main import build_parser
from steelseg.config.config import setting_names
from tools.reference import commands_page, settings_page, subcommands

DOCS = Path(__file__).parents[1] / "docs"


@pytest.mark.parametrize(
    ("name", "page"), [("configuration.md", settings_page), ("commands.md", commands_page)]
)
def test_the_pages_are_what_the_code_says(name, page):
    """An outdated reference misleads; `make docs` updates it."""
    assert (DOCS / name).read_text(encoding="utf-8") == page()


def test_every_setting_and_command_is_documented():
    """Nothing can be typed that no page explains."""
    for setting in setting_names():
        assert f"`{setting}`" in settings_page()
    for command, parser in subcommands(build_parser()).items():
        assert f"## steelseg {command}" in commands_page()
        assert parser.description
        assert "Example: steelseg" in parser.description
