"""Linking by Trackastra (Gallusser and Weigert, ECCV 2024), run by the Python of an environment of its own.

Trackastra brings solvers and libraries of its own that this project does without; so it is not imported but
run as a program. It gets images and masks as they are, and gives edges between cells of neighbouring frames;
the masks never change.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from lightsheet.core.errors import SettingsError, VolumeError
from lightsheet.core.files import explained
from lightsheet.core.processes import run_elsewhere
from lightsheet.core.progress import LOG, track
from lightsheet.track.objects import FoundCells
from lightsheet.track.settings import LinkSettings
from lightsheet.track.sources import MaskFrames
from lightsheet.volumes.tracks.lineage import NOBODY, Lineage

# Run by the other Python: edges (frame, label, frame, label, weight) between the cells of masks.
_PROGRAM = """
import json
import sys
from pathlib import Path

import numpy as np
from trackastra.model import Trackastra


def main() -> None:
    where = Path(sys.argv[1])
    job = json.loads((where / "job.json").read_text())
    folder = Path(job["model"])
    model = (
        Trackastra.from_folder(folder, device="automatic")
        if folder.is_dir()
        else Trackastra.from_pretrained(job["model"], device="automatic")
    )
    images, masks = (np.load(where / f"{name}.npy") for name in ("images", "masks"))
    graph = model.track(images, masks, mode=job["mode"], **job["more"])
    graph = graph[0] if isinstance(graph, tuple) else graph
    edges = [
        (graph.nodes[one]["time"], graph.nodes[one]["label"])
        + (graph.nodes[other]["time"], graph.nodes[other]["label"], told.get("weight", 1.0))
        for one, other, told in graph.edges(data=True)
    ]
    np.save(where / "edges.npy", np.array(edges, float).reshape(-1, 5))


if __name__ == "__main__":
    main()
"""


def linked_by_trackastra(
    found: FoundCells, masks: MaskFrames, images: MaskFrames, settings: LinkSettings, output: Path
) -> Lineage:
    """Say which cell came from which, by edges of Trackastra.

    Parameters
    ----------
    found : cells of the masks
    masks, images : of the same frames
    settings : how; of our own linking's only the farthest step, whether there are divisions, and the solver
    output : result that is made; what Trackastra reads lies beside it meanwhile

    Raises
    ------
    MissingExtraError
        When the interpreter is missing or has no Trackastra.
    ElsewhereError
        When it ends with an error.
    VolumeError
        When images and masks do not fit each other.
    """
    if settings.trackastra is None:
        raise SettingsError("--trackastra: expected a Python, got none")
    if len(images) != len(masks):
        raise VolumeError(
            f"{images.source}: expected an image for each of {len(masks)} masks, got {len(images)}"
        )
    more = {}
    if settings.max_distance_um is not None:  # in voxels
        more["max_distance"] = round(settings.max_distance_um / min(found.spacing_um[1:]))
    mode = "ilp" if settings.solver == "global" else "greedy" if settings.divisions else "greedy_nodiv"
    job = {"model": settings.trackastra_model, "mode": mode, "more": more}
    with (
        explained(output),
        tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}.") as folder,
    ):
        where = Path(folder)
        _write_frames(where, masks, images, flat=found.flat)
        (where / "job.json").write_text(json.dumps(job), encoding="utf-8")
        LOG.info("%s: linked by Trackastra, model %s, %s", masks.source, settings.trackastra_model, mode)
        run_elsewhere(
            settings.trackastra, _PROGRAM, where, flag="--trackastra", package="Trackastra", wanted="edges",
            install="trackastra",
        )  # fmt: skip
        edges = np.load(where / "edges.npy")
    row_of = {
        (int(time), int(label)): row
        for row, (time, label) in enumerate(
            zip(found.cells.times, found.labels[found.cells.ids - 1], strict=True)
        )
    }
    parents = np.full(len(found.cells), NOBODY)
    certainties = np.ones(len(found.cells))
    for before, label, after, other, weight in edges.tolist():
        row = row_of[int(after), int(other)]
        parents[row], certainties[row] = row_of[int(before), int(label)], weight
    return found.cells.with_parents(parents, certainties)


def _write_frames(where: Path, masks: MaskFrames, images: MaskFrames, *, flat: bool) -> None:
    """Write all masks and images (T, (Z), Y, X) as two arrays."""
    arrays: dict[str, NDArray[Any]] = {}
    pairs = zip(masks.read(), images.images(), strict=True)
    for number, ((mask, _), image) in enumerate(track(pairs, "frames", len(masks))):
        if image.shape != mask.shape:
            raise VolumeError(
                f"{images.source}: expected images of the masks' {' x '.join(map(str, mask.shape))} voxels, "
                f"got {' x '.join(map(str, image.shape))} in frame {number}"
            )
        for name, frame, kind in (("masks", mask, "<u4"), ("images", image, "<f4")):
            if name not in arrays:
                size = mask.shape[1:] if flat else mask.shape
                arrays[name] = open_memmap(where / f"{name}.npy", "w+", kind, (len(masks), *size))
            arrays[name][number] = frame[0] if flat else frame
