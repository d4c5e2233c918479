"""The command as a process of its own."""

import json
import re
import signal
import subprocess
import sys
import urllib.request

import pytest

from steelseg.cli.main import main
from steelseg.inference.predictor import Predictor

COMMAND = [sys.executable, "-c", "import sys; from steelseg.cli.main import main; sys.exit(main())"]


@pytest.mark.slow
def test_the_command_serves_until_it_is_told_to_stop(trained_run, strips):
    """It prints its URL, uses the settings of the command line, and exits with 0."""
    words = ["serve", str(trained_run), "--port", "0", "postprocess.threshold=0.3"]
    with subprocess.Popen(
        [*COMMAND, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as server:
        line = server.stdout.readline()
        url = re.fullmatch(r"serving .+ at (http://127\.0\.0\.1:\d+)\n", line)[1]
        request = urllib.request.Request(f"{url}/v1/predict", next(iter(strips.values())))
        with urllib.request.urlopen(request, timeout=30) as response:
            answer = json.load(response)
        server.send_signal(signal.SIGTERM)
        rest, errors = server.communicate(timeout=30)

    assert [c["threshold"] for c in answer["classes"]] == [0.3, 0.3]
    assert answer["model"] == Predictor(trained_run, ["postprocess.threshold=0.3"]).sha256
    assert (server.returncode, rest, errors) == (0, "", "")


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--admin-token-file", "{short}"], "must contain a token"),
        (["--admin-token-file", "nowhere"], "nowhere must contain a token"),
        (["--models", "nowhere"], "--models nowhere is not a folder"),
        (["--host", "198.51.100.1", "--port", "0"], "Cannot listen on 198.51.100.1 port 0"),
        (["--fold", "7"], "fold_7"),
    ],
)
def test_what_cannot_be_served_is_one_line(trained_run, tmp_path, capsys, words, reason):
    """As with every command."""
    short = tmp_path / "token"
    short.write_text("short")
    code = main(["serve", str(trained_run), *(word.format(short=short) for word in words)])
    captured = capsys.readouterr()

    assert code == 1
    untuned = r"(warning: .* is not tuned.*\n)?"
    assert re.fullmatch(rf"{untuned}error: .*{re.escape(reason)}.*\n", captured.err)


@pytest.mark.parametrize("words", [["--port", "70000"], ["--queue", "0"], ["--max-pixels", "x"]])
def test_wrong_numbers_are_wrong_usage(capsys, words):
    """Before a model is loaded."""
    with pytest.raises(SystemExit, match="2"):
        main(["serve", "run", *words])


def test_without_the_extra_it_says_what_to_install(monkeypatch, capsys, trained_run):
    """Only the server needs it."""
    monkeypatch.setattr("steelseg.api.find_spec", lambda _name: None)

    assert main(["serve", str(trained_run)]) == 1
    assert "pip install 'steelseg[serve]'" in capsys.readouterr().err
