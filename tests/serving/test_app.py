"""The application as its clients see it."""

import copy
import gzip
import json

import cv2
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from steelseg.data.formats import rle
from steelseg.errors import OutOfMemory
from steelseg.inference.predictor import Predictor
from steelseg.prediction.predict import predict_folder
from steelseg.serving.schemas import ModelInfo, Prediction

ALLOWED = {
    "/v1/predict": "POST",
    "/v1/model": "GET, HEAD, POST",
    "/live": "GET, HEAD",
    "/page/main.js": "GET, HEAD",
}


@pytest.fixture(scope="module")
def predicted(trained_run, tmp_path_factory):
    """Give the folder that `steelseg predict` writes for the test strips."""
    folder = tmp_path_factory.mktemp("predicted")
    predictor = Predictor(trained_run, ["postprocess.threshold=0.5"])
    predict_folder(predictor, folder, formats=["png", "jsonl", "coco"], overlays=True)
    return folder


@pytest.fixture(scope="module")
def probs(trained_run, strips):
    """Give the probabilities of each strip."""
    predictor = Predictor(trained_run)
    folder = trained_run.parent / "input" / "test_images"
    return {name: predictor.probs(folder / name) for name in strips}


def test_masks_are_those_of_predict(app, strips, predicted):
    """To the bit, as submission.csv has them, with the same areas and scores."""
    rows = (predicted / "submission.csv").read_text().splitlines()[1:]
    expected = {(name, k): text for name, k, text in (row.split(",") for row in rows)}
    lines = map(json.loads, (predicted / "predictions.jsonl").read_text().splitlines())
    areas = {
        (line["image_id"], d["class_id"]): d["area"] for line in lines for d in line["defects"]
    }

    for name, content in strips.items():
        for answer in app.ask("/v1/predict", content).json["classes"]:
            class_id = answer["class"]
            assert answer["rle"] == expected[name, str(class_id)]
            assert answer["area"] == areas.get((name, class_id), 0)


def test_defects_are_the_components_that_predict_writes(app, strips, predicted):
    """Box, area and score as in the COCO file; their pixels together are the mask."""
    coco = json.loads((predicted / "predictions.json").read_text())
    number = {image["file_name"]: image["id"] for image in coco["images"]}
    for name, content in strips.items():
        answer = app.ask("/v1/predict", content).json
        of_strip = [a for a in coco["annotations"] if a["image_id"] == number[name]]

        assert [(d["class"], d["box"], d["area"], d["score"]) for d in answer["defects"]] == [
            (a["category_id"], a["bbox"], a["area"], a["score"]) for a in of_strip
        ]
        size = answer["height"], answer["width"]
        for of_class in answer["classes"]:
            parts = [d["rle"] for d in answer["defects"] if d["class"] == of_class["class"]]
            union = sum((rle.decode(part, *size) for part in parts), np.zeros(size, bool))
            assert rle.encode(union) == of_class["rle"]


def test_a_mask_of_one_class_is_the_file_that_predict_writes(app, strips, predicted):
    """To the byte; a class that was not found has no file and an empty mask."""
    for name, content in strips.items():
        for class_id in (1, 2):
            reply = app.ask(f"/v1/predict?answer=mask&class={class_id}", content)
            file = predicted / "masks" / f"{name}_class_{class_id}.png"
            if file.exists():
                assert reply.body == file.read_bytes()
            else:
                assert not _pixels(reply).any()
            assert reply.headers["Content-Type"] == "image/png"


def test_an_overlay_is_the_file_that_predict_writes(app, strips, predicted):
    """To the byte."""
    for name, content in strips.items():
        reply = app.ask("/v1/predict?answer=overlay", content)

        assert reply.body == (predicted / "overlays" / f"{name}.png").read_bytes()


def test_a_mask_of_all_classes_holds_their_numbers(app, strips, probs):
    """Where two classes overlap, that of the likelier."""
    name, content = next(iter(strips.items()))
    threshold = [float(np.quantile(p, q)) for p, q in zip(probs[name], (0.5, 0.7), strict=True)]
    mask_chw = probs[name] >= np.float32(threshold)[:, None, None]
    expected = np.select(
        [mask_chw.all(axis=0), mask_chw[0], mask_chw[1]], [probs[name].argmax(axis=0) + 1, 1, 2], 0
    )

    text = ",".join(map(repr, threshold))
    reply = app.ask(f"/v1/predict?answer=mask&threshold={text}", content)

    np.testing.assert_array_equal(_pixels(reply), expected)


@pytest.mark.parametrize("packed", [True, False])
def test_probabilities_come_as_bytes(app, strips, probs, packed):
    """Rounded to 255ths, class after class; compressed if the client accepts it."""
    name, content = next(iter(strips.items()))
    headers = {"Accept-Encoding": "gzip, br"} if packed else {}
    reply = app.ask("/v1/predict?answer=probabilities", content, headers=headers)
    body = gzip.decompress(reply.body) if packed else reply.body
    shape = tuple(map(int, reply.headers["X-Shape"].split(",")))

    assert ("Content-Encoding" in reply.headers) == packed
    expected = np.floor(probs[name] * np.float32(255) + np.float32(0.5))
    np.testing.assert_array_equal(np.frombuffer(body, np.uint8).reshape(shape), expected)


def test_a_query_changes_threshold_and_min_size(app, strips, probs):
    """For one answer; the model's own stay."""
    name, content = next(iter(strips.items()))
    cut = float(np.median(probs[name][0]))
    answer = app.ask(f"/v1/predict?threshold={cut!r},1&min_size=0,7", content).json

    assert answer["classes"][0]["rle"] == rle.encode(probs[name][0] >= cut)
    assert [c["threshold"] for c in answer["classes"]] == [cut, 1]
    assert [c["min_size"] for c in answer["classes"]] == [0, 7]
    again = app.ask("/v1/predict", content).json
    assert [c["threshold"] for c in again["classes"]] == [0.5, 0.5]


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("threshold=2", "threshold=2 is wrong"),
        ("threshold=nan", "threshold=nan is wrong"),
        ("threshold=0.1,0.2,0.3", "threshold has 3 values, but there are 2 classes"),
        ("min_size=1.5", "min_size=1.5 is wrong. Expected whole numbers"),
        ("threshold=1e999", "threshold=1e999 is wrong"),
        ("threshold=1_0", "threshold=1_0 is wrong"),
        ("threshold=", "threshold= is wrong"),
        ("min_size=-1", "min_size=-1 is wrong"),
        ("answer=csv", "answer=csv is wrong: Input should be 'json', 'mask'"),
        ("answer=mask&class=x", "class=x is wrong: Input should be a valid integer"),
        ("class=1", "only with answer=mask"),
        ("answer=mask&class=3", "Expected 1 to 2"),
        ("answer=json&answer=mask", "is duplicated"),
        (
            "url=http://localhost/",
            "url=http://localhost/ is wrong: Extra inputs are not permitted.",
        ),
    ],
)
def test_a_wrong_query_is_refused_with_its_reason(app, strips, query, reason):
    """Before anything is predicted."""
    reply = app.ask(f"/v1/predict?{query}", next(iter(strips.values())))

    assert reply.status == 400
    assert reason in reply.json["error"]


def test_the_model_says_what_it_is(app, model, trained_run):
    """Classes with their settings, limits, origin; the hash is on every answer."""
    reply = app.ask("/v1/model")
    content = reply.json

    assert (
        content["sha256"]
        == model.sha256
        == Predictor(trained_run, ["postprocess.threshold=0.5"]).sha256
    )
    assert content["classes"][1] == {
        "class": 2,
        "name": "class 2",
        "threshold": 0.5,
        "min_size": 0,
        "min_area": 0,
        "top_threshold": 0.0,
    }
    assert content["pixel_mm"] is None
    assert content["provenance"]["source"] == "run"
    assert content["limits"] == {"max_bytes": 33554432, "max_pixels": 8000000}
    for path in ("/live", "/ready", "/metrics", "/openapi.json", "/nowhere", "/v1/model"):
        assert app.ask(path).headers["X-Model"] == model.sha256


def test_another_threshold_is_another_model(trained_run):
    """What changes a mask changes the hash, and nothing else does."""
    plain = Predictor(trained_run).sha256

    assert Predictor(trained_run, ["postprocess.threshold=0.4"]).sha256 != plain
    assert Predictor(trained_run, ["inference.tta=hflip"]).sha256 != plain
    assert Predictor(trained_run, folds=[0]).sha256 != plain
    assert Predictor(trained_run, ["train.batch_size_val=1"]).sha256 == plain


def test_metrics_count_requests(make_app, model, strips):
    """Prometheus' own parser reads them."""
    app = make_app(queue=5)
    app.ask("/v1/predict", next(iter(strips.values())))
    app.ask("/v1/predict", b"no image")
    app.ask("/")
    app.ask("/nowhere")
    text = app.ask("/metrics").body.decode()
    values = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }

    assert values["steelseg_requests_total", "/v1/predict", "200"] == 1
    assert values["steelseg_requests_total", "/v1/predict", "415"] == 1
    assert values["steelseg_requests_total", "page", "200"] == 1
    assert values["steelseg_requests_total", "other", "404"] == 1
    assert values["steelseg_strips_total",] == values["steelseg_batches_total",] == 1
    assert values["steelseg_predict_seconds_bucket", "+Inf"] == 1
    assert values["steelseg_predict_seconds_count",] == 1
    assert values["steelseg_queue_limit",] == 5
    assert values["steelseg_queue_strips",] == values["steelseg_connections",] == 0
    assert values["steelseg_model_info", model.sha256] == 1
    assert values["process_resident_memory_bytes",] > 0
    for stage in ("decode", "network", "answer"):
        assert values["steelseg_stage_seconds_total", stage] > 0


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (
            OutOfMemory("too large"),
            503,
            "There is not enough memory for this image of 32x96 pixels.",
        ),
        (RuntimeError("bug"), 500, "The server failed; its log says where."),
        (KeyError("bug"), 500, "The server failed; its log says where."),
    ],
)
def test_a_failure_is_answered_and_passes(
    start, model, strips, caplog, capsys, error, status, reason
):
    """With its traceback in the log; the next strip is answered as ever."""
    failing, errors = copy.copy(model), [error]

    def probs_of(images_nhwc):
        if errors:
            raise errors.pop()
        return model.probs_of(images_nhwc)

    failing.probs_of = probs_of
    with start(model=failing) as server:
        content = next(iter(strips.values()))
        replies = [server.ask("/v1/predict", content) for _ in range(2)]

    assert [reply.status for reply in replies] == [status, 200]
    assert replies[0].json == {"error": reason}
    logged = caplog.text + capsys.readouterr().err
    assert "Traceback" in logged
    assert f"{type(error).__name__}: {error}\n" in logged


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/predict", 405),
        ("DELETE", "/v1/model", 405),
        ("POST", "/live", 405),
        ("GET", "/../pyproject.toml", 404),
        ("GET", "/%2e%2e/%2e%2e/etc/passwd", 404),
        ("GET", "/page/../app.py", 404),
        ("GET", "/page/%2e%2e/app.py", 404),
        ("GET", "/page/%2e%2e%2fapp.py", 404),
        ("GET", "/page//etc/passwd", 404),
        ("GET", "/page/", 404),
        ("PUT", "/page/main.js", 405),
        ("GET", "//etc/passwd", 404),
        ("HEAD", "/live", 200),
    ],
)
def test_other_paths_and_methods_are_refused(server, method, path, status):
    """No path of a request leads out of the folder of the page."""
    reply = server.ask(path, method=method)

    assert reply.status == status
    if status == 405:
        assert reply.headers["Allow"] == ALLOWED[path]
    if status >= 400:
        assert reply.json.keys() == {"error"}


def test_the_document_names_every_path(app):
    """What is routed is described, and nothing else is."""
    described = app.ask("/openapi.json").json["paths"]

    assert {path: sorted(methods) for path, methods in described.items()} == {
        "/v1/predict": ["post"],
        "/v1/model": ["get", "post"],
        "/live": ["get"],
        "/ready": ["get"],
        "/metrics": ["get"],
    }


def test_responses_have_the_form_that_the_document_gives(app, strips):
    """The document is generated from the models that are checked here."""
    for content in strips.values():
        body = app.ask("/v1/predict", content).body
        assert Prediction.model_validate_json(body).defects
    ModelInfo.model_validate_json(app.ask("/v1/model").body)
    assert app.ask("/live").json == {"live": True}
    assert app.ask("/ready").json == {"ready": True}
    schemas = app.ask("/openapi.json").json["components"]["schemas"]
    assert {"Prediction", "ModelInfo", "ErrorBody"} <= schemas.keys()


def test_the_page_loads_only_its_own_files(app):
    """Each with a type that a browser accepts; it asks whether its copy is still valid."""
    index = app.ask("/")
    assert index.headers["Content-Type"] == "text/html; charset=utf-8"
    assert "default-src 'none'; script-src 'self'" in index.headers["Content-Security-Policy"]
    types = {"icon.svg": "image/svg+xml", "style.css": "text/css", "main.js": "text/javascript"}
    for name, kind in types.items():
        assert f'"page/{name}"' in index.body.decode()
        first = app.ask(f"/page/{name}")
        assert first.status == 200
        assert first.headers["Content-Type"].partition(";")[0] == kind
        assert first.headers["Cache-Control"] == "no-cache"
        again = app.ask(f"/page/{name}", headers={"If-None-Match": first.headers["ETag"]})
        assert (again.status, again.body) == (304, b"")


def test_a_head_request_gets_the_headers_of_a_get(app):
    """Without the body."""
    get, head = app.ask("/openapi.json"), app.ask("/openapi.json", method="HEAD")

    assert (head.status, head.body) == (200, b"")
    assert head.headers == get.headers


def _pixels(reply):
    return cv2.imdecode(np.frombuffer(reply.body, np.uint8), cv2.IMREAD_UNCHANGED)
