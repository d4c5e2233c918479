"""A headless Chromium that looks at a real server's page."""

import os
import re
import shutil
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from steelseg.inference.predictor import Predictor
from steelseg.serving.model import Model

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

# What strips that were refused leave in the console; everything else there is a fault.
REFUSED = re.compile(
    r"Failed to load resource: (net::ERR_FAILED|.* status of (400|413|422|429|503) )"
)


@pytest.fixture(scope="module")
def chromium():
    """Give a browser, or skip the test where there is none.

    It is closed after these tests: while it is open, a loop of asyncio runs in this thread.
    """
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as tool:
        path = next(filter(None, map(shutil.which, NAMES)), tool.chromium.executable_path)
        if not Path(path).exists():
            pytest.skip("no Chromium is here: install one, or run `playwright install chromium`")
        # Chromium has no sandbox for root, as whom containers run tests.
        sandbox = os.name != "posix" or os.geteuid() != 0
        browser = tool.chromium.launch(executable_path=path, chromium_sandbox=sandbox)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def overrides(trained_run):
    """Give settings with which the run finds specks and large defects on its own strips."""
    (folder,) = trained_run.parent.glob("input/train_images")
    predictor = Predictor(trained_run)
    probs = np.stack([predictor.probs(path) for path in sorted(folder.iterdir())])
    thresholds = np.quantile(probs, 0.9, axis=(0, 2, 3)).round(4).tolist()
    return [f"postprocess.threshold={thresholds}", "postprocess.min_size=[3, 5]"]


@pytest.fixture(scope="session")
def page_server(start, trained_run, overrides):
    """Give a server whose model finds something."""
    with start(model=Model(trained_run, overrides)) as running:
        yield running


@pytest.fixture
def open_page(chromium, page_server):
    """Give a function that opens the page; its console must stay without errors."""
    with ExitStack() as stack:

        def open_it(prepare=lambda _: None, **options):
            size = {"width": 1366, "height": 768}
            context = chromium.new_context(**{"viewport": size, **options})
            stack.callback(context.close)
            page = context.new_page()
            page.on("console", lambda m: faults.append(m.text) if m.type == "error" else None)
            page.on("pageerror", lambda error: faults.append(str(error)))
            prepare(page)
            page.goto(f"http://127.0.0.1:{page_server.port}/")
            page.wait_for_selector("body.ready")
            return page

        faults = []
        yield open_it
    assert [fault for fault in faults if not REFUSED.match(fault)] == []
