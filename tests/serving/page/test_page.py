"""The page in a browser, from a dropped file to a downloaded one."""

import csv
import json
import shutil

import cv2
import numpy as np
import pytest

from steelseg.data.synthetic.dataset import make_dataset
from steelseg.inference.predictor import Predictor
from steelseg.prediction.predict import predict_folder

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(trained_run):
    """Give the folder of strips that the run was trained on: eight, two of them clean."""
    return trained_run.parent / "input" / "train_images"


@pytest.fixture(scope="module")
def predicted(trained_run, overrides, folder, tmp_path_factory):
    """Give a function that predicts the folder as the command line does, and where to."""

    def predict(*more, images=folder):
        where = tmp_path_factory.mktemp("predicted")
        # Without a sample_submission.csv the columns are those that the page writes.
        predictor = Predictor(trained_run, [*overrides, f"data.root={where}", *more])
        predict_folder(predictor, where, images=images, formats=["coco"], overlays=True)
        return where

    return predict


def load(page, *paths):
    """Choose files, and wait until they are done."""
    before = page.locator("#strip-list li").count()
    page.set_input_files("#files", list(paths))
    wait_until_done(page, before + len(paths))


def wait_until_done(page, strips):
    word = "strip" if strips == 1 else "strips"
    page.wait_for_selector(f"#status:has-text('of {strips} {word} done.')", timeout=60_000)
    page.wait_for_selector("#divider:not([hidden])", state="attached")


def download(page, button):
    """Click a button, and read the file that comes."""
    with page.expect_download() as waiting:
        page.click(button)
    return waiting.value.suggested_filename, waiting.value.path().read_bytes()


def area(page, channel):
    """Pixels of a class, as the page says; 0 for none."""
    text = page.locator(".class .facts").nth(channel).text_content()
    return 0 if text.startswith("none") else int(text.split(" px")[0].replace(",", ""))


def slide(page, channel, place, *, name="threshold"):
    """Move a slider of a class."""
    slider = page.locator(".class").nth(channel).locator(f"input[type=range][aria-label^={name}]")
    slider.evaluate("(e, v) => { e.value = v; e.dispatchEvent(new Event('input')); }", str(place))


def test_a_folder_gives_the_files_that_predict_writes(open_page, folder, predicted):
    """Downloads from the page equal the files of the command."""
    page = open_page()
    page.set_input_files("#folder", folder)
    wait_until_done(page, 8)
    where = predicted()

    name, content = download(page, "#download-csv")
    assert name == "submission.csv"
    assert content == (where / "submission.csv").read_bytes()
    assert sum(1 for row in content.decode().splitlines() if not row.endswith(",")) > 8

    name, content = download(page, "#download-coco")
    assert name == "predictions.json"
    assert json.loads(content) == json.loads((where / "predictions.json").read_text())

    name, content = download(page, "#download-overlay")
    assert content == (where / "overlays" / name).read_bytes()


def test_a_slider_redraws_before_the_server_answers(open_page, folder):
    """Masks follow the slider from the probabilities that were sent once."""
    page = open_page()
    load(page, sorted(folder.iterdir())[1])
    before, picture = area(page, 0), page.locator("#canvas").screenshot()
    page.route("**/v1/predict*", lambda _: None)

    slide(page, 0, 0)
    assert area(page, 0) == 32 * 96 > before
    assert page.locator("#exactness").text_content().startswith("drawn here")
    assert page.locator("#canvas").screenshot() != picture

    slide(page, 0, 1)
    assert area(page, 0) == 0


def test_moved_sliders_give_the_masks_of_these_thresholds(open_page, folder, predicted):
    """What is downloaded after a slider was moved is the server's, for every strip."""
    page = open_page()
    page.set_input_files("#folder", folder)
    wait_until_done(page, 8)

    slide(page, 0, 0.4)
    slide(page, 1, 12, name="smallest")
    sizes = page.locator(".class input[type=number][aria-label^=smallest]")
    size = int(sizes.nth(1).input_value())
    kept = page.locator(".class input[type=number][aria-label^=threshold]").nth(1).input_value()
    _, content = download(page, "#download-csv")

    where = predicted(f"postprocess.threshold=[0.4, {kept}]", f"postprocess.min_size=[3, {size}]")
    assert content == (where / "submission.csv").read_bytes()
    assert page.locator("#exactness").text_content() == ""

    page.click("#reset")
    _, content = download(page, "#download-csv")
    assert content == (predicted() / "submission.csv").read_bytes()


def test_a_strip_that_fails_says_why_and_the_others_go_on(open_page, folder, tmp_path, predicted):
    """One bad file among many is named with its reason, in the list and at the download."""
    strips = sorted(folder.iterdir())[:2]
    cut = tmp_path / "train_cut.jpg"
    cut.write_bytes(strips[0].read_bytes()[:600])
    page = open_page()

    load(page, *strips, cut)

    assert "truncated" in page.locator("#strip-list .failed").text_content()
    assert "1 strip failed" in page.locator("#status").text_content()
    page.select_option("#filter", "failed")
    page.click("#strip-list .failed")
    page.wait_for_selector("#problem:has-text('truncated')")
    _, content = download(page, "#download-csv")
    assert {row["ImageId_ClassId"] for row in csv.DictReader(content.decode().splitlines())} == {
        f"{strip.name}_{k}" for strip in strips for k in (1, 2)
    }
    assert "does not include 1 strip that failed" in page.locator("#notice").text_content()


def test_the_keyboard_goes_everywhere(open_page, folder):
    """Inspecting a thousand strips is done without a mouse."""
    page = open_page()
    load(page, *sorted(folder.iterdir())[:3])
    name = page.locator("#strip-name")
    assert name.text_content() == "train_000.jpg"

    page.keyboard.press("n")
    assert name.text_content() == "train_001.jpg"
    page.keyboard.press("n")
    page.keyboard.press("n")
    assert name.text_content() == "train_002.jpg"
    page.keyboard.press("p")
    assert name.text_content() == "train_001.jpg"
    page.wait_for_selector("#divider:not([hidden])", state="attached")

    page.keyboard.press("j")
    page.keyboard.press("j")
    rows = page.locator("#defect-list button")
    assert rows.nth(1).get_attribute("aria-current") == "true"
    # The scale is written when the next frame is drawn.
    page.wait_for_selector("#zoom:text-is('400 %')")
    page.keyboard.press("k")
    assert rows.nth(0).get_attribute("aria-current") == "true"

    page.keyboard.press("1")
    assert not page.locator(".class").nth(0).locator("input[type=checkbox]").first.is_checked()
    page.keyboard.press("h")
    assert page.locator("#divider").get_attribute("aria-valuenow") == "50"
    page.keyboard.press("?")
    assert page.locator("#keys tr").count() == 14
    page.keyboard.press("Escape")
    assert not page.locator("#help").is_visible()


def test_a_heat_map_is_dragged_over_the_strip(open_page, folder):
    """The handle pulls it; what lies left of the handle stays the strip."""
    page = open_page()
    load(page, sorted(folder.iterdir())[1])
    page.keyboard.press("o")
    page.keyboard.press("i")
    handle = page.locator("#divider").bounding_box()
    stage = page.locator("#stage").bounding_box()
    middle = stage["y"] + stage["height"] / 2
    assert not is_coloured(page, 0.75)

    page.mouse.move(handle["x"] + handle["width"] / 2, middle)
    page.mouse.down()
    page.mouse.move(stage["x"] + stage["width"] * 0.6, middle, steps=4)
    page.mouse.up()

    assert page.locator("#divider").get_attribute("aria-valuenow") == "40"
    assert page.locator("#legend").is_visible()
    assert is_coloured(page, 0.75)
    assert not is_coloured(page, 0.3)


def is_coloured(page, share):
    """Whether the canvas has a colour at a share of its width, halfway down."""
    picture = np.frombuffer(page.locator("#canvas").screenshot(), np.uint8)
    pixels = cv2.imdecode(picture, cv2.IMREAD_COLOR)
    height, width, _ = pixels.shape
    patch = pixels[
        height // 2 - 5 : height // 2 + 5, int(width * share) - 5 : int(width * share) + 5
    ]
    return bool((patch.max(axis=2).astype(int) - patch.min(axis=2)).mean() > 20)


def test_two_fingers_zoom_and_one_moves(open_page, folder):
    """A tablet has no wheel."""
    page = open_page(viewport={"width": 1024, "height": 768}, has_touch=True)
    load(page, sorted(folder.iterdir())[0])
    stage = page.locator("#stage").bounding_box()
    x, y = stage["x"] + stage["width"] / 2, stage["y"] + stage["height"] / 2
    before = int(page.locator("#zoom").text_content().split()[0])
    devtools = page.context.new_cdp_session(page)

    def touch(kind, *places):
        points = [{"x": x + right, "y": y, "id": n} for n, right in enumerate(places)]
        devtools.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    touch("touchStart", -40, 40)
    touch("touchMove", -120, 120)
    touch("touchEnd")
    page.wait_for_function("Number.parseInt(zoom.textContent) > " + str(2 * before))

    picture = page.locator("#canvas").screenshot()
    touch("touchStart", 0)
    touch("touchMove", 60)
    touch("touchEnd")
    page.wait_for_timeout(100)
    assert page.locator("#canvas").screenshot() != picture


def test_a_busy_server_is_asked_again_when_it_says(open_page, folder):
    """A full queue is no failure: the page waits, and says that it does."""
    page = open_page()
    answers = iter([429, 503])

    def refuse(route):
        status = next(answers, None)
        if status is None:
            route.continue_()
        else:
            error = '{"error": "full"}'
            route.fulfill(status=status, headers={"Retry-After": "1"}, body=error)

    page.route("**/v1/predict?answer=json*", refuse)
    page.set_input_files("#files", sorted(folder.iterdir())[0])

    page.wait_for_selector("#status:has-text('The server is busy; asking again in 1 s.')")
    wait_until_done(page, 1)


def test_a_server_that_is_gone_is_given_up_and_tried_again_on_request(open_page, folder):
    """After some tries each strip says so; nothing hangs, and a button starts over."""
    page = open_page()
    page.route("**/v1/predict*", lambda route: route.abort())
    page.clock.install()
    page.set_input_files("#files", sorted(folder.iterdir())[0])
    page.wait_for_selector("#status:has-text('The server does not answer; asking again in 1 s.')")
    for _ in range(4):
        page.clock.run_for(10_000)
        page.wait_for_timeout(100)

    assert "The server cannot be reached" in page.locator("#strip-list .failed").text_content()
    page.unroute("**/v1/predict*")
    page.clock.resume()
    page.click("#retry")
    wait_until_done(page, 1)
    assert page.locator("#problem").is_hidden()


def test_another_model_predicts_everything_again(open_page, folder, predicted):
    """Masks of two models in one file would be nobody's."""
    page = open_page(prepare=pretend_another_model)
    page.set_input_files("#folder", folder)

    page.wait_for_selector("#notice:has-text('The server uses another model now.')")
    wait_until_done(page, 8)
    _, content = download(page, "#download-csv")
    assert content == (predicted() / "submission.csv").read_bytes()


def pretend_another_model(page):
    """Let the page believe at first that another model is served, with other thresholds."""

    def patch(route):
        response = route.fetch()
        model = response.json() | {"sha256": "0" * 64}
        for one in model["classes"]:
            one["threshold"] = 0.9
        route.fulfill(response=response, json=model)

    page.route("**/v1/model", patch, times=1)


@pytest.mark.parametrize("is_folder", [True, False])
def test_what_is_dropped_is_opened(open_page, folder, is_folder):
    """A folder from the desktop, or some files of it."""
    page = open_page()
    paths = [folder] if is_folder else sorted(folder.iterdir())[:3]
    data = {"items": [], "files": list(map(str, paths)), "dragOperationsMask": 1}
    devtools = page.context.new_cdp_session(page)

    for kind in ("dragEnter", "dragOver", "drop"):
        event = {"type": kind, "x": 400, "y": 200, "data": data}
        devtools.send("Input.dispatchDragEvent", event)

    wait_until_done(page, 8 if is_folder else 3)
    assert page.locator("#notice").is_hidden()


def test_what_cannot_be_shown_is_left_out_and_named(open_page, folder, tmp_path):
    """A folder holds more than strips; what is not taken is said, and so is a name twice."""
    inside = tmp_path / "strips"
    shutil.copytree(folder, inside / "older")
    shutil.copy(folder / "train_000.jpg", inside)
    (inside / "notes.txt").write_text("no strip")
    page = open_page()

    page.set_input_files("#folder", inside)
    wait_until_done(page, 1)
    notice = page.locator("#notice")
    assert "notes.txt" in notice.text_content()
    assert "older/" in notice.text_content()

    page.set_input_files("#files", folder / "train_000.jpg")
    page.wait_for_selector("#notice:has-text('strips with these names are already open')")
    assert page.locator("#strip-list li").count() == 1


def test_a_format_that_the_server_adds_is_taken(open_page, toy_format, tmp_path):
    """The list is the server's; a format that no browser decodes still has its defects listed."""
    inside = tmp_path / "strips"
    inside.mkdir()
    (inside / "a.TOY").write_bytes(toy_format(32, 96, 200))
    (inside / "notes.txt").write_text("no strip")
    page = open_page()

    assert page.locator("#files").get_attribute("accept").endswith(",.toy,.ty")
    assert page.locator("#formats").text_content().endswith(" or TOY")
    page.set_input_files("#folder", inside)
    page.wait_for_selector("#problem:has-text('This browser cannot decode the image')")
    page.wait_for_selector("#status:has-text('of 1 strip done.')")
    assert "or TOY files: notes.txt" in page.locator("#notice").text_content()
    assert page.locator("#strip-list .failed").count() == 0
    _, content = download(page, "#download-csv")
    assert b"a.TOY_1," in content


@pytest.mark.parametrize(("width", "height"), [(1366, 768), (1024, 768), (768, 1024)])
def test_everything_is_in_sight_on_laptop_and_tablet(open_page, folder, width, height):
    """Neither needs scrolling sideways, and every part of the page is on the screen."""
    page = open_page(viewport={"width": width, "height": height}, has_touch=True)
    load(page, *sorted(folder.iterdir())[:2])

    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for part in ("#stage", "#strips", "#classes", "#defects", "#status", "#download-csv"):
        box = page.locator(part).bounding_box()
        assert box["x"] >= 0
        assert box["y"] >= 0
        assert box["x"] + box["width"] <= width
        assert box["y"] + box["height"] <= height


def test_a_synthetic_strip_of_full_size_is_shown_whole(open_page, tmp_path, predicted):
    """256x1600 is what a line camera gives; the page shows and downloads what was found."""
    make_dataset(tmp_path / "data", num_train=1, num_test=1, min_per_class=0)
    check_strips(open_page(), tmp_path / "data" / "test_images", predicted)


def test_real_strips_are_shown_whole(open_page, shared_data, tmp_path, predicted):
    """So it is with photographs."""
    images = sorted((shared_data / "severstal" / "test_images").iterdir())[:2]
    for image in images:
        shutil.copy(image, tmp_path)
    check_strips(open_page(), tmp_path, predicted)


def check_strips(page, images, predicted):
    """Load a folder of strips of 256x1600, and hold its CSV against that of `predict`."""
    page.set_input_files("#folder", images)
    wait_until_done(page, len(list(images.iterdir())))

    assert page.locator("#under").text_content() == "1600 \u00d7 256 pixels"
    _, content = download(page, "#download-csv")
    assert content == (predicted(images=images) / "submission.csv").read_bytes()
