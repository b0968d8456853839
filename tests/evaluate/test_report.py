"""The report: one file that needs nothing else; opened in a browser it shows every picture and no error."""

import base64
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import imagecodecs
import numpy as np
import pytest

from lightsheet.evaluate.image import ImageVolumes, evaluate_image
from lightsheet.evaluate.pictures import panels, pictures_of
from lightsheet.evaluate.report import Shown, planes_for, write_report
from volumes_in_memory import Memory

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--hide-scrollbars",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
SHAPE = (20, 48, 56)
# Pictures are decoded beside the page's own clock: now and then the page is written before its verdict.
ATTEMPTS = 6
# Run in the page: moves every slider, then tells how many pictures could not be decoded, and errors.
PROBE = """
<script>
var errors = [];
window.addEventListener("error", function (event) { errors.push(event.message); });
</script>
"""
VERDICT = """
<script>
(async function () {
  var before = document.querySelector("figure.planes img").src;
  document.querySelectorAll("input[type=range]").forEach(function (slider) {
    slider.value = 1;
    slider.dispatchEvent(new Event("input"));
  });
  var root = document.documentElement, broken = 0, pictures = document.querySelectorAll("img");
  for (var picture of pictures) {
    try { await picture.decode(); } catch (error) { broken += 1; }
    if (!picture.naturalWidth) { broken += 1; }
  }
  root.dataset.pictures = pictures.length;
  root.dataset.broken = broken;
  root.dataset.moved = document.querySelector("figure.planes img").src !== before;
  root.dataset.told = document.querySelector("figure.planes output").textContent;
  root.dataset.errors = errors.join("; ");
})();
</script>
"""


def shown(number: int) -> Shown:
    rng = np.random.default_rng(number)
    fused = (4000 * rng.random(SHAPE) ** 6).astype(np.uint16)
    view = (0.6 * fused + 300 * rng.random(SHAPE)).astype(np.uint16)
    prediction = (0.9 * fused + 100 * rng.random(SHAPE)).astype(np.uint16)
    volumes = [Memory(v, None, f"{name}.tif") for v, name in ((prediction, "p"), (view, "v"), (fused, "f"))]
    for volume in volumes:
        volume.info = replace(
            volume.info,
            channel="nucleus",
            study=1,
            spacing_um=(2.0, 0.5, 0.5),
            metadata={"simulated": "made up for a test"},
        )
    result = evaluate_image(
        ImageVolumes(f"image_{number}_nucleus<&>", *volumes), ((10,), (24,), ()), planes_for(2, SHAPE)
    )
    return Shown(replace(result, previews={}), pictures_of(result.previews, result.spacing_um))


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_report(path, [shown(0), shown(1)], ["c.tif: expected <a volume>, got none"], ["one remark"])
    return path


def browse(page: Path, profile: Path, *flags: str) -> str:
    if BROWSER is None:
        pytest.skip("no chromium or google-chrome is installed: the report is not opened in a browser")
    command = [BROWSER, *FLAGS, f"--user-data-dir={profile}", *flags, page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


def test_the_file_needs_nothing_else(report: Path) -> None:
    text = report.read_text(encoding="utf-8")
    assert set(re.findall(r'(?:src|href)="([a-z]+:|#)', text)) == {"data:", "#"}
    assert "@import" not in text
    assert "url(" not in text
    assert "<link" not in text
    assert "{{" not in text


def test_words_and_numbers_are_there(report: Path) -> None:
    text = report.read_text(encoding="utf-8")
    assert "made up for a test" in text
    assert "image_0_nucleus&lt;&amp;&gt;" in text
    assert "c.tif: expected &lt;a volume&gt;, got none" in text
    value = shown(0).result.n_ssim("prediction", "tf")
    assert f"{value:+.3f}" in text
    assert text.count("<details") == 2


def test_panels_show_what_they_say() -> None:
    """View, prediction and fused in grey; too bright is orange, too dark is blue, right is black."""
    fused = np.array([[0.0, 1.0, 1.0]], np.float32)
    prediction = np.array([[0.5, 1.0, 0.5]], np.float32)
    picture = panels([np.zeros((1, 3), np.float32), prediction, fused])
    assert picture.shape == (1, 4 * 3 + 3 * 4, 3)
    assert (picture[0, :3] == 0).all()
    assert picture[0, 14].tolist() == [0, 0, 0]
    assert picture[0, 15].tolist() == [255, 255, 255]
    assert picture[0, 21:].tolist() == [[255, 150, 40], [0, 0, 0], [70, 150, 255]]


def test_pictures_are_jpegs_of_the_told_size() -> None:
    pictures = shown(0).pictures
    assert pictures is not None
    assert len(pictures.slices) == 20
    for strip in (*pictures.slices, *pictures.sections, *pictures.projections):
        decoded = imagecodecs.jpeg8_decode(base64.b64decode(strip.data.partition(",")[2]))
        assert (decoded.shape[1], decoded.shape[0]) == strip.size
    # 20 planes of 2 µm are as high as 80 voxels of 0.5 µm
    assert pictures.sections[0].size[1] == 80


def test_many_images_get_fewer_and_smaller_pictures() -> None:
    assert [
        (len(p.kept), p.factor) for p in (planes_for(n, (309, 1920, 1920)) for n in (1, 12, 24, 400))
    ] == [
        (24, 9),
        (24, 12),
        (12, 12),
        (12, 12),
    ]


@pytest.mark.slow
def test_of_many_images_some_have_pictures(report: Path, tmp_path: Path) -> None:
    one = shown(0)
    many = [replace(one, result=replace(one.result, name=f"image_{i}")) for i in range(40)]
    write_report(tmp_path / "many.html", many, [], [])
    text = (tmp_path / "many.html").read_text(encoding="utf-8")
    assert text.count("<details") == 24
    assert "24 of 40 images have pictures" in text
    assert "of 2 images have pictures" not in report.read_text(encoding="utf-8")


def test_the_browser_shows_every_picture_and_no_error(report: Path, tmp_path: Path) -> None:
    text = report.read_text(encoding="utf-8")
    page = tmp_path / "probe.html"
    page.write_text(
        text.replace("<head>", f"<head>{PROBE}").replace("</body>", f"{VERDICT}</body>"), encoding="utf-8"
    )
    told: dict[str, str] = {}
    for attempt in range(ATTEMPTS):
        profile = tmp_path / f"profile{attempt}"
        dumped = browse(page, profile, "--virtual-time-budget=8000", "--dump-dom")
        told = dict(re.findall(r'data-(pictures|broken|moved|told|errors)="([^"]*)"', dumped[:2000]))
        if told:
            break
    # 1 distribution; each image: 1 plane, 2 sections, 3 projections, 2 plots
    assert told == {
        "pictures": "17",
        "broken": "0",
        "moved": "true",
        "told": "plane Z = 1 (2.0 µm)",
        "errors": "",
    }


@pytest.mark.slow
def test_a_screenshot_is_not_blank(report: Path, tmp_path: Path) -> None:
    shot = tmp_path / "shot.png"
    browse(report, tmp_path / "profile", "--window-size=1200,2600", f"--screenshot={shot}")
    picture = imagecodecs.png_decode(shot.read_bytes())[..., :3].astype(int)
    assert picture.shape[:2] == (2600, 1200)
    # the page's background does not fill it, there are greys of pictures and the blue of our rows
    colours, counts = np.unique(picture.reshape(-1, 3), axis=0, return_counts=True)
    assert len(colours) > 200
    assert counts.max() < 0.9 * counts.sum()
    dark_pictures = (picture.max(axis=2) < 60).mean()
    assert dark_pictures > 0.1
