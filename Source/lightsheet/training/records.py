"""What a training run leaves to look at: metrics.csv, TensorBoard logs, a picture of each epoch."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from lightsheet.core.files import written_beside

METRICS = "metrics.csv"
TENSORBOARD = "tensorboard"
PICTURES = "pictures"
_FIRST = ("epoch", "step", "samples", "minutes", "learning_rate", "loss")
_LAST = ("waiting_for_data", "fallbacks")


class RunLog:
    """Writer of the three; of a run that is resumed at an earlier step, later records are dropped.

    Parameters
    ----------
    folder : folder of the logs
    step : step at which this process starts
    names : of the numbers that the task adds: terms of the loss and scores
    caption : of the pictures
    """

    def __init__(self, folder: Path, step: int, names: Sequence[str], caption: str) -> None:
        from torch.utils.tensorboard import SummaryWriter  # takes a second

        self._folder, self._caption = folder, caption
        self._columns = (*_FIRST, *names, *_LAST)
        folder.mkdir(parents=True, exist_ok=True)
        self._rows = [row for row in _read_rows(folder / METRICS) if int(row["step"]) <= step]
        self._board = SummaryWriter(str(folder / TENSORBOARD), purge_step=step + 1 if step else None)

    def add(self, row: Mapping[str, Any], picture: NDArray[np.float32] | None) -> Path | None:
        """Record an epoch: its numbers by column, and a picture (Y, X) in 0..1; the file of the picture."""
        step, epoch = int(row["step"]), int(row["epoch"])
        self._rows.append({name: _text(row[name]) for name in self._columns})
        with written_beside(self._folder / METRICS) as partial, partial.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, self._columns, restval="0")
            writer.writeheader()
            writer.writerows(self._rows)
        for name in self._columns[4:]:
            self._board.add_scalar(name, row[name], step)
        target = None
        if picture is not None:
            grey = np.rint(picture * 255).astype(np.uint8)
            self._board.add_image(self._caption, grey, step, dataformats="HW")
            target = self._folder / PICTURES / f"epoch_{epoch:05d}.png"
            with written_beside(target) as partial:
                partial.write_bytes(imagecodecs.png_encode(grey))
        self._board.flush()
        return target

    def close(self) -> None:
        """Close the TensorBoard log."""
        self._board.close()


def _read_rows(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def _text(value: float | int) -> str:
    return str(value) if isinstance(value, int) else f"{value:.6g}"
