"""The model is changed while strips are predicted."""

import json
import shutil
import threading

import pytest

from steelseg.inference.predictor import Predictor


@pytest.fixture(scope="module")
def models(trained_run, tmp_path_factory):
    """Give a folder of two runs of one fold each, and folders that are not models."""
    folder = tmp_path_factory.mktemp("models")
    for name, fold in (("first", 0), ("second", 1)):
        shutil.copytree(
            trained_run, folder / name, ignore=shutil.ignore_patterns(f"fold_{1 - fold}")
        )
    (folder / "empty").mkdir()
    (folder / "broken").mkdir()
    (folder / "broken" / "manifest.json").mkdir()
    (folder / "link").symlink_to(trained_run)
    return folder


def swap(server, content, token="a secret of the tests"):
    """Request another model, with a JSON value or bytes as body."""
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    return server.ask("/v1/model", body, headers={"Authorization": f"Bearer {token}"})


def test_no_request_fails_while_models_change(start, models, strips):
    """Every response comes from the model whose hash it has."""
    expected = {}
    for name in ("first", "second"):
        predictor = Predictor(models / name)
        strip = models.parent / "strip.jpg"
        strip.write_bytes(next(iter(strips.values())))
        expected[predictor.sha256] = predictor(strip).sum(axis=(1, 2)).tolist()
    replies, done = [], threading.Event()
    with start(models=models, queue=8) as server:
        assert swap(server, {"name": "first"}).status == 200

        def ask():
            while not done.is_set():
                replies.append(server.ask("/v1/predict", next(iter(strips.values()))))

        clients = [threading.Thread(target=ask) for _ in range(4)]
        for client in clients:
            client.start()
        for name in ("second", "first", "second"):
            assert swap(server, {"name": name}).status == 200
        done.set()
        for client in clients:
            client.join()

    assert {reply.status for reply in replies} == {200}
    assert {reply.headers["X-Model"] for reply in replies} == set(expected)
    for reply in replies:
        assert reply.json["model"] == reply.headers["X-Model"]
        areas = [of_class["area"] for of_class in reply.json["classes"]]
        assert areas == expected[reply.json["model"]]


def test_without_a_body_the_same_source_is_read_again(start, models, trained_run):
    """For example, after a bundle was replaced."""
    with start(models=models) as server:
        swap(server, {"name": "first"})
        reply = swap(server, b"")

        assert reply.json["sha256"] == Predictor(trained_run).sha256
        assert server.ask("/v1/model").json == reply.json


@pytest.mark.parametrize(
    ("content", "status", "reason"),
    [
        ({"name": "third"}, 404, "There is no model 'third'."),
        ({"name": "../models/first"}, 404, "There is no model"),
        ({"name": "link"}, 404, "There is no model"),
        ({"name": "empty"}, 422, "not a run folder"),
        ({"name": "broken"}, 422, "broken"),
        ({"name": 3}, 400, "Expected no body"),
        ({"path": "/etc"}, 400, "Expected no body"),
        (["first"], 400, "Expected no body"),
        (b" ", 400, "Expected no body"),
    ],
)
def test_a_wrong_model_changes_nothing(start, models, model, content, status, reason):
    """No text of a client becomes a path, and a failed change keeps the old model."""
    with start(models=models) as server:
        reply = swap(server, content)

        assert (reply.status, reply.headers["X-Model"]) == (status, model.sha256)
        assert reason in reply.json["error"]


def test_a_wrong_token_changes_nothing(start, models, model):
    """Nor does a name without --models."""
    with start(models=models) as server:
        assert swap(server, {"name": "first"}, token="").status == 401
        assert swap(server, {"name": "first"}, token="a secret of the test").status == 401
        assert server.ask("/live").headers["X-Model"] == model.sha256
    with start() as server:
        assert swap(server, {"name": "first"}).status == 403


def test_one_model_is_loaded_at_a_time(start, model):
    """A second change meanwhile is refused, not queued."""
    begun, go = threading.Event(), threading.Event()

    def load(_body):
        begun.set()
        assert go.wait(30)
        return model

    with start(load_model=load) as server:
        replies = []
        first = threading.Thread(target=lambda: replies.append(swap(server, b"")))
        first.start()
        assert begun.wait(30)
        assert swap(server, b"").status == 409
        go.set()
        first.join()

    assert replies[0].status == 200
