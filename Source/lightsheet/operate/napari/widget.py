"""Widget of napari: fuse or segment a layer by the commands, with progress and a button that stops it.

The command runs as a process of its own, so that napari stays alive whatever happens to it, and can be
stopped; the layer that it is given, and its result, are files in a folder that is removed.
"""

import tempfile
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari.layers import Image
from napari.qt.threading import thread_worker
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QDoubleSpinBox,
    QFormLayout,
    QLabel,
    QProgressBar,
    QPushButton,
    QWidget,
)

from lightsheet.core.axes import SpacingUm
from lightsheet.core.errors import LightsheetError
from lightsheet.operate.napari.files import UNIT, Layer, read_layer, spacing_of, write_stack
from lightsheet.operate.workers import Command, end, last_error, progress_in, start, wait

if TYPE_CHECKING:
    import napari

TASKS = ("Fuse", "Segment")
_TICK_S = 0.2
_DECIMALS = 4


class LightsheetWidget(QWidget):  # type: ignore[misc]
    """Fuse or segment the layer that is chosen.

    Parameters
    ----------
    napari_viewer : whose layers are offered
    """

    def __init__(self, napari_viewer: "napari.Viewer") -> None:
        super().__init__()
        self._viewer = napari_viewer
        self.worker: Any = None
        self.task, self.layer, self.stained = QComboBox(), QComboBox(), QComboBox()
        self.task.addItems(TASKS)
        self.stained.addItems(["as it looks", "nucleus", "membrane"])
        self.sizes = [QDoubleSpinBox() for _ in "zyx"]
        for box in self.sizes:
            box.setDecimals(_DECIMALS)
            box.setRange(10**-_DECIMALS, 10_000)
        self.diameter = QDoubleSpinBox()
        self.diameter.setRange(0, 10_000)
        self.diameter.setSpecialValueText("is found out")
        self.physics = QCheckBox("without a network, by the physics step")
        self.run_button, self.stop_button = QPushButton("Run"), QPushButton("Stop")
        self.stop_button.setEnabled(False)
        self.bar, self.message = QProgressBar(), QLabel("")
        self.message.setWordWrap(True)
        form = QFormLayout(self)
        form.addRow("What", self.task)
        form.addRow("Layer", self.layer)
        for axis, box in zip("ZYX", self.sizes, strict=True):
            form.addRow(f"Voxel {axis} (um)", box)
        form.addRow("Stained", self.stained)
        form.addRow("Fuse", self.physics)
        form.addRow("Diameter (um)", self.diameter)
        for part in (self.run_button, self.stop_button, self.bar, self.message):
            form.addRow(part)
        self.run_button.clicked.connect(self.run)
        self.stop_button.clicked.connect(self.stop)
        self.layer.currentTextChanged.connect(self._take_sizes)
        napari_viewer.layers.events.inserted.connect(self.refresh)
        napari_viewer.layers.events.removed.connect(self.refresh)
        self.refresh()

    def refresh(self, _event: Any = None) -> None:
        """Offer the images of the viewer."""
        chosen = self.layer.currentText()
        self.layer.clear()
        self.layer.addItems([layer.name for layer in self._viewer.layers if isinstance(layer, Image)])
        if chosen:
            self.layer.setCurrentText(chosen)

    def _take_sizes(self, name: str) -> None:
        if name in self._viewer.layers:
            layer = self._viewer.layers[name]
            for box, um in zip(self.sizes, spacing_of(layer.data, layer.scale), strict=True):
                box.setValue(um)

    def command(self, name: str) -> Command:
        """Return what is run on a file of this name."""
        spacing = ["--spacing_um", *(f"{box.value():g}" for box in self.sizes)]
        if self.task.currentText() == "Fuse":
            more = ["--model", "physics"] if self.physics.isChecked() else []
            stained = self.stained.currentText()
            more += ["--channel", stained] if self.stained.currentIndex() else []
            return Command(("apply", name, "output", *more, *spacing))
        size = ["--diameter_um", f"{self.diameter.value():g}"] if self.diameter.value() else []
        return Command(("segment", "predict", name, "output", *size, *spacing))

    def run(self) -> None:
        """Begin; the result becomes a layer."""
        if self.layer.currentText() not in self._viewer.layers:
            self.message.setText("Expected an image layer, got none: open a stack first.")
            return
        layer = self._viewer.layers[self.layer.currentText()]
        z, y, x = (box.value() for box in self.sizes)
        self.run_button.setEnabled(False)
        self.stop_button.setEnabled(True)
        self.message.setText(self.command("image.tif").text)
        self.worker = thread_worker(work)(layer.data, (z, y, x), self.command("image.tif"))
        self.worker.yielded.connect(self._show)
        self.worker.returned.connect(lambda made: self._add(layer, made))
        self.worker.errored.connect(lambda error: self.message.setText(str(error)))
        self.worker.finished.connect(self._end)
        self.worker.start()

    def stop(self) -> None:
        """Stop the command."""
        if self.worker is not None:
            self.worker.quit()
            self.message.setText("Stopped.")

    def _show(self, told: dict[str, Any]) -> None:
        self.bar.setMaximum(int(told.get("total") or 0))
        self.bar.setValue(int(told.get("done") or 0))

    def _add(self, layer: Any, made: Any) -> None:
        if made is None:
            return
        data, facts, kind = made
        what = "objects" if self.task.currentText() == "Segment" else "fused"
        told = {"name": f"{layer.name} {what}", "scale": facts["scale"][-data.ndim :]}
        if "units" in facts:
            told["units"] = [UNIT] * data.ndim
        if what == "objects":
            self._viewer.add_labels(data, **told)
        else:
            self._viewer.add_image(data, **told)
        self.message.setText(f"{told['name']}: done ({kind}).")

    def _end(self) -> None:
        self.bar.setMaximum(1)
        self.bar.reset()
        self.run_button.setEnabled(True)
        self.stop_button.setEnabled(False)


def work(data: Any, spacing: SpacingUm, command: Command) -> "Generator[dict[str, Any], None, Layer]":
    """Run a command on a layer's data; yields how far it is, returns the layer of its result.

    Raises
    ------
    LightsheetError
        When the data can't be written, or the command fails.
    """
    import numpy as np  # not for the list of napari's plugins

    with tempfile.TemporaryDirectory(prefix="lightsheet") as kept:
        folder = Path(kept)
        write_stack(folder / "image.tif", np.asarray(data), spacing)
        with (folder / "log.txt").open("wb") as log:
            process = start(command, folder, log)
            try:
                while not wait(process, _TICK_S):
                    yield progress_in(folder)
            finally:
                end(process)
        if process.returncode != 0:
            raise LightsheetError(last_error(folder / "log.txt", 0, process.returncode))
        found = next(iter(sorted((folder / "output").glob("*.tif"))))
        return read_layer(found)
