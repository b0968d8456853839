"""The plugin of napari: files with scale and unit, its manifest, the widget in a viewer without a screen."""

import importlib
from pathlib import Path

import numpy as np
import pytest
import tifffile

from lightsheet.core.errors import LightsheetError
from lightsheet.operate.napari import files
from lightsheet.volumes.labels import read_labels

MANIFEST = Path(files.__file__).with_name("napari.yaml")
STACK = np.random.default_rng(3).integers(100, 500, (8, 24, 30)).astype(np.uint16)


def test_a_stack_comes_with_scale_and_unit_and_goes_back(tmp_path: Path) -> None:
    path = str(tmp_path / "a.tif")
    assert files.write_image(path, STACK, {"scale": (2.0, 0.5, 0.4)}) == [path]
    read = files.reader_for(path)
    assert read is not None
    ((data, facts, kind),) = read(path)
    assert kind == "image"
    assert np.array_equal(data, STACK)
    assert facts["scale"] == pytest.approx([2.0, 0.5, 0.4])
    assert facts["units"] == ["micrometer"] * 3
    with tifffile.TiffFile(path) as tif:  # what Fiji reads
        assert tif.imagej_metadata["spacing"] == pytest.approx(2.0)
        assert tif.imagej_metadata["unit"] == "um"
    assert files.reader_for("notes.txt") is None


def test_planes_movies_and_labels(tmp_path: Path) -> None:
    files.write_image(str(tmp_path / "p.tif"), STACK[0], {"scale": (0.5, 0.4)})
    ((plane, facts, _),) = files.read_layers(str(tmp_path / "p.tif"))
    assert np.array_equal(plane, STACK[0])
    assert facts["scale"] == pytest.approx([0.5, 0.4])
    movie = np.stack([STACK, STACK + 1])[:, :, None]
    said = {"axes": "TZCYX", "spacing": 2.0, "unit": "um"}
    tifffile.imwrite(tmp_path / "m.tif", movie, imagej=True, resolution=(2, 2), metadata=said)
    ((frames, facts, _),) = files.read_layers([str(tmp_path / "m.tif")])
    assert frames.shape == (2, 8, 24, 30)
    assert facts["scale"] == pytest.approx([1.0, 2.0, 0.5, 0.5])
    labels = np.zeros((6, 30, 30), np.int64)
    labels[1:4, 4:14, 4:14], labels[1:4, 16:26, 16:26] = 1, 70_000
    files.write_label_image(str(tmp_path / "l.tif"), labels, {"scale": (2, 1, 1)})
    assert np.array_equal(read_labels(tmp_path / "l.tif")[0], labels)
    assert files.read_layers(str(tmp_path / "l.tif"))[0][2] == "labels"
    with pytest.raises(LightsheetError, match="expected axes Z, Y, X, got 4 axes"):
        files.write_image(str(tmp_path / "x.tif"), frames, {})


def test_all_that_the_manifest_names_is_there() -> None:
    names = [line.split(": ")[1] for line in MANIFEST.read_text().splitlines() if "python_name" in line]
    assert len(names) == 4
    for name in names:
        module, _, attribute = name.partition(":")
        if module.endswith("widget"):
            source = (Path(files.__file__).parent / "widget.py").read_text()  # importing it needs napari
            assert f"class {attribute}(" in source
        else:
            assert callable(getattr(importlib.import_module(module), attribute))


@pytest.mark.slow
def test_the_widget_segments_a_layer_and_can_be_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QT_QPA_PLATFORM", "offscreen")
    monkeypatch.delenv("LIGHTSHEET_MODELS", raising=False)
    pytest.importorskip("napari", reason='napari is not installed (pip install "lightsheet[napari]")')
    from napari.components import ViewerModel
    from qtpy.QtCore import QEventLoop, QTimer
    from qtpy.QtWidgets import QApplication

    from lightsheet.operate.napari.widget import LightsheetWidget

    app = QApplication.instance() or QApplication([])
    sample = Path(__file__).parents[2] / "resources" / "samples" / "movie.tif"
    ((movie, facts, _),) = files.read_layers(str(sample))
    viewer = ViewerModel()
    widget = LightsheetWidget(viewer)  # type: ignore[arg-type]
    widget.run()
    assert "open a stack first" in widget.message.text()
    viewer.add_image(movie[0], name="nuclei", scale=facts["scale"][1:])
    assert [box.value() for box in widget.sizes] == pytest.approx([0.6, 0.4, 0.4])
    widget.task.setCurrentText("Segment")
    widget.diameter.setValue(5.0)

    def until(done: "object") -> None:
        loop = QEventLoop()
        done.connect(loop.quit)  # type: ignore[attr-defined]
        QTimer.singleShot(200_000, loop.quit)
        loop.exec_() if hasattr(loop, "exec_") else loop.exec()
        app.processEvents()

    widget.run()
    assert not widget.run_button.isEnabled()
    until(widget.worker.finished)
    assert "nuclei objects" in viewer.layers, widget.message.text()
    made = viewer.layers["nuclei objects"]
    assert made.data.max() > 5
    assert tuple(made.scale) == pytest.approx((0.6, 0.4, 0.4))
    widget.run()
    QTimer.singleShot(1500, widget.stop)
    until(widget.worker.finished)
    assert widget.message.text() == "Stopped."
    assert widget.run_button.isEnabled()
