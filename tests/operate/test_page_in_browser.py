"""The page in a real browser, headless: each capability from a dropped file to what the command makes.

With LIGHTSHEET_SCREENSHOTS=FOLDER the pictures of docs/page.md are written. Needs Chromium
(apt-get install chromium, or its path in LIGHTSHEET_CHROMIUM).
"""

import base64
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

pytest.importorskip("fastapi", reason='the page needs: pip install "lightsheet[page]"')

from in_browser import chromium, needs_chromium

ROOT = Path(__file__).parents[2]
SAMPLES = ROOT / "resources" / "samples"
DONE_MS = 240_000
pytestmark = [pytest.mark.slow, needs_chromium]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["--port", str(port), "--folder", str(tmp_path_factory.mktemp("page"))]
    program = [sys.executable, str(ROOT / "Source" / "serve_app.py"), *words]
    process = subprocess.Popen(program, env=plain_environment())
    for _ in range(300):
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            break
        except OSError:
            time.sleep(0.1)
    yield f"http://127.0.0.1:{port}/"
    process.terminate()
    process.wait(30)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as one:
        yield one


@pytest.fixture
def page(browser: Any, server: str) -> Iterator[Any]:
    one = browser.new_page(viewport={"width": 1200, "height": 1000}, accept_downloads=True)
    faults: list[str] = []
    asked: list[str] = []
    one.on("pageerror", lambda error: faults.append(str(error)))
    one.on("request", lambda request: asked.append(request.url))
    one.goto(server)
    yield one
    one.close()
    assert not faults
    assert all(url.startswith((server, "data:", "blob:")) for url in asked)


def plain_environment() -> "dict[str, str]":
    """Environment of the server and of the commands beside it: with the shipped models."""
    return {name: value for name, value in os.environ.items() if name != "LIGHTSHEET_MODELS"}


def drop(page: Any, path: Path, kind: str = "image/tiff") -> None:
    """Drop a file on the page as a hand with a mouse does."""
    data = page.evaluate_handle(
        """async ([content, name, kind]) => {
            const bytes = Uint8Array.from(atob(content), (sign) => sign.charCodeAt(0));
            const moved = new DataTransfer();
            moved.items.add(new File([bytes], name, { type: kind }));
            return moved;
        }""",
        [base64.b64encode(path.read_bytes()).decode(), path.name, kind],
    )
    page.dispatch_event("#drop", "drop", {"dataTransfer": data})
    page.wait_for_selector("#check:not([hidden])", timeout=DONE_MS)


def run(page: Any, task: str) -> None:
    page.click(f"[data-task={task}]")
    shot(page, f"{task}_check")
    page.click("#run")
    page.wait_for_selector("#again:not([hidden])", timeout=DONE_MS)
    assert "done in" in page.inner_text("#status"), page.inner_text("#status") + page.text_content("#log")
    wait_for_picture(page)
    shot(page, task)


def wait_for_picture(page: Any) -> "tuple[int, int]":
    for _ in range(100):
        width, height = page.eval_on_selector("#xy", "image => [image.naturalWidth, image.naturalHeight]")
        if width:
            return width, height
        page.wait_for_timeout(100)
    raise AssertionError("no picture came")


def wait_for_message(page: Any, text: str) -> None:
    told = ""
    for _ in range(200):
        told = page.inner_text("#message")
        if text in told:
            return
        page.wait_for_timeout(100)
    raise AssertionError(f"expected the message {text!r}, got {told!r}")


def settled(page: Any, before: str) -> str:
    """Address of the picture once it is another one and stays."""
    last = before
    for _ in range(100):
        page.wait_for_timeout(300)
        now = str(page.get_attribute("#xy", "src"))
        if now == last != before:
            return now
        last = now
    raise AssertionError("no other picture came")


def shot(page: Any, name: str) -> None:
    folder = os.environ.get("LIGHTSHEET_SCREENSHOTS")
    if folder:
        page.wait_for_timeout(500)
        page.locator("main").screenshot(path=Path(folder) / f"page_{name}.png")


def downloaded(page: Any, name: str, folder: Path) -> Path:
    with page.expect_download() as coming:
        page.get_by_role("link", name=name).first.click()
    coming.value.save_as(folder / name.replace("/", "_"))
    return folder / name.replace("/", "_")


def by_command(page: Any, folder: Path, source: Path) -> None:
    """Do what the page says is the same, in a folder that has the file."""
    (folder / "input").mkdir(parents=True, exist_ok=True)
    shutil.copy(source, folder / "input" / source.name)
    environment = {**plain_environment(), "PYTHONPATH": str(ROOT / "Source")}
    for line in page.inner_text("#commands").splitlines():
        words = line.split()
        program = (
            ["-m", words[2]]
            if words[0] == "python"
            else ["-c", "from lightsheet.cli.main import main\nexit(main())"]
        )
        rest = words[3:] if words[0] == "python" else words[1:]
        subprocess.run(
            [sys.executable, *program, *rest], cwd=folder, env=environment, check=True, capture_output=True
        )


@pytest.mark.parametrize(
    ("task", "name", "result"),
    [
        ("fuse", "view.tif", "view.tif"),
        ("segment3d", "view.tif", "view.tif"),
        ("segment2d", "culture.png", "culture.tif"),
    ],
)
def test_a_dropped_file_becomes_what_the_command_makes(
    page: Any, tmp_path: Path, task: str, name: str, result: str
) -> None:
    drop(page, SAMPLES / name)
    assert "(Z, Y, X)" in page.inner_text("#what") or "(Y, X)" in page.inner_text("#what")
    run(page, task)
    found = downloaded(page, result, tmp_path / "page")
    by_command(page, tmp_path / "command", SAMPLES / name)
    mine, theirs = tifffile.imread(found), tifffile.imread(tmp_path / "command" / "output" / result)
    assert np.array_equal(mine, theirs)
    assert mine.max() > 0
    assert page.inner_text("#facts") != ""


def test_a_movie_is_tracked_and_its_states_are_told(page: Any, tmp_path: Path) -> None:
    drop(page, SAMPLES / "movie.tif")
    run(page, "states")
    found = downloaded(page, "tracks/res_track.txt", tmp_path / "page")
    by_command(page, tmp_path / "command", SAMPLES / "movie.tif")
    assert found.read_text() == (tmp_path / "command" / "output" / "tracks" / "res_track.txt").read_text()
    assert downloaded(page, "states/states.csv", tmp_path / "page").read_text().count("\n") > 20


def test_a_sample_takes_three_clicks_and_its_link_shows_the_same(page: Any, browser: Any) -> None:
    page.get_by_role("button", name="Nuclei in culture").click()
    page.wait_for_selector("#check:not([hidden])", timeout=DONE_MS)
    page.click("#run")
    page.wait_for_selector("#again:not([hidden])", timeout=DONE_MS)
    assert wait_for_picture(page) == (512, 512)
    before = page.get_attribute("#xy", "src")
    page.fill("#high", "300")
    page.uncheck("#over")
    after = settled(page, before)
    other = browser.new_page()
    other.goto(page.url)
    other.wait_for_selector("#viewer:not([hidden])")
    wait_for_picture(other)
    assert other.get_attribute("#xy", "src") == after
    other.close()
    assert page.get_by_role("button", name="Open culture.png").count() >= 1


def test_bad_files_are_told_and_the_page_lives(page: Any, tmp_path: Path) -> None:
    (tmp_path / "<b>bold.tif").write_bytes(b"no image")
    page.set_input_files("#file", tmp_path / "<b>bold.tif")
    wait_for_message(page, "expected")
    assert page.locator("#message b").count() == 0
    stack = np.random.default_rng(0).integers(0, 300, (5, 40, 40)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "stack.tif", stack, imagej=True, metadata={"axes": "ZYX"})
    drop(page, tmp_path / "stack.tif")
    page.click("[data-task=fuse]")
    page.click("#run")
    wait_for_message(page, "give Z, Y and X in micrometres")
    page.click("[data-task=segment2d]")
    page.click("#run")
    wait_for_message(page, "choose 'Segment 3D'")


def test_all_can_be_done_by_keys_and_has_names(page: Any) -> None:
    page.get_by_role("button", name="Nuclei in culture").wait_for(
        timeout=DONE_MS
    )  # the samples are asked for
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    seen = set()
    for _ in range(12):
        page.keyboard.press("Tab")
        seen.add(page.evaluate("document.activeElement.id || document.activeElement.textContent"))
    assert "file" in seen
    assert any("culture" in one for one in seen)
    page.get_by_role("button", name="Nuclei in culture").press("Enter")
    page.wait_for_selector("#check:not([hidden])", timeout=DONE_MS)
    assert page.evaluate("document.activeElement.id") == "run"
    unnamed = page.eval_on_selector_all(
        "input, select, button, progress, img",
        """all => all.filter((one) => !(one.labels && one.labels.length) && !one.getAttribute("aria-label")
            && !one.textContent.trim() && !one.alt).map((one) => one.id)""",
    )
    assert unnamed == []
    colours = page.evaluate(
        """() => ["body", ".small", "button.plain", "button"].map((what) => {
            const style = getComputedStyle(document.querySelector(what));
            return [style.color, style.backgroundColor];
        })"""
    )
    for ink, paper in colours:
        assert contrast(ink, paper if "0, 0, 0, 0" not in paper else "rgb(243, 246, 248)") >= 4.5


def contrast(one: str, other: str) -> float:
    """Contrast of two colours as WCAG 2 reckons it."""

    def light(colour: str) -> float:
        parts = [int(part) / 255 for part in colour[colour.index("(") + 1 : -1].split(",")[:3]]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((light(one), light(other)))
    return (high + 0.05) / (low + 0.05)
