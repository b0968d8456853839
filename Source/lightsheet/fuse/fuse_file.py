"""One file in, one fused file out: choose, plan, run, write. The command and the container call this."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import lightsheet
from lightsheet.core.allocator import keep_freed_memory
from lightsheet.core.errors import LightsheetError, SettingsError, VolumeError
from lightsheet.core.files import content_hash, settings_hash
from lightsheet.core.memory import GIB, available_memory
from lightsheet.core.model_folder import ModelFolder, open_model
from lightsheet.core.progress import LOG
from lightsheet.core.tiff_metadata import PROVENANCE_KEY
from lightsheet.core.volume import Overrides, VolumeInfo
from lightsheet.core.volumes import LazyVolume, open_volume, read_info, usable, volume_writer
from lightsheet.fuse.choose import Choice, choose_given, choose_shipped, shipped_models
from lightsheet.fuse.fusion_settings import FusionSettings
from lightsheet.fuse.inputs import converted_file, prepare_inputs
from lightsheet.fuse.loaded_model import LoadedModel, choose_device, choose_dtype, load_model
from lightsheet.fuse.planning import Limits, plan_prediction
from lightsheet.fuse.predict import predict_slabs

_SHARE_OF_FREE_MEMORY = 0.75


@dataclass(frozen=True)
class Fused:
    """What became of one view.

    Attributes
    ----------
    path : the result
    done_before : an earlier run had made the same result, nothing was computed
    model : name of the model
    clipped_fraction : share of voxels outside 0 to 65535; 0 when done before
    """

    path: Path
    done_before: bool
    model: str
    clipped_fraction: float = 0.0


class Fuser:
    """Fuses views one after the other; models are loaded when first needed and kept.

    Parameters
    ----------
    models : model folders to choose from; none: the shipped ones
    settings : tiles, device, precision, memory

    Raises
    ------
    ModelError
        When a model folder is missing or damaged.
    SettingsError
        When the device isn't there or the memory isn't positive.
    """

    def __init__(self, models: Sequence[Path] = (), settings: FusionSettings | None = None) -> None:
        self.settings = settings or FusionSettings()
        self._given = bool(models)
        self._models = [open_model(path) for path in models] if models else shipped_models()
        self._loaded: dict[Path, LoadedModel] = {}
        self._dtype = choose_dtype(self.settings.precision, choose_device(self.settings.device))
        # Asked once: memory that PyTorch keeps for the next volume no longer counts as free.
        self._memory = self._memory_limit()
        if choose_device(self.settings.device).type == "cpu":
            keep_freed_memory()

    def fuse(
        self, view: Path, output: Path, overrides: Overrides | None = None, *, overwrite: bool = False
    ) -> Fused:
        """Fuse one view into the file ``output``, which is written whole or not at all.

        A result that is there already, made from the same input by the same model and settings, is kept.

        Parameters
        ----------
        view : TIFF, OME-Zarr or H5 made by convert_images.py
        output : .tif, .ome.tif or .zarr; same shape, voxel size and metadata as the view
        overrides : metadata that win over the file's
        overwrite : compute again what is there already

        Raises
        ------
        LightsheetError
            Of the kind and with the message that says what is wrong with view, model or output.
        """
        given = overrides or Overrides()
        info = read_info(view, given)
        choice = self.choose(info)
        record = self._record(view, info, choice)
        if not overwrite and _key_of(output) == record["key"]:
            LOG.info("%s: done before, kept (--overwrite to do it again)", output)
            return Fused(output, True, choice.model.name)
        with open_volume(view, given) as volume:
            _refuse_without_information(volume)
            clipped = self._predict(volume, view, given, output, choice, record)
        return Fused(output, False, choice.model.name, clipped)

    def choose(self, info: VolumeInfo) -> Choice:
        """Return the model for a view and the reason."""
        choose = choose_given if self._given else choose_shipped
        return choose(info, self._models)

    def _predict(
        self,
        volume: LazyVolume,
        view: Path,
        overrides: Overrides,
        output: Path,
        choice: Choice,
        record: dict[str, Any],
    ) -> float:
        runner = self._load(choice.model)
        # Channels stored in an H5 file hold for the voxel size it was converted with.
        stored = converted_file(view) if overrides.spacing_um is None else None
        inputs = prepare_inputs(volume, runner.settings, stored)
        plan = plan_prediction(volume.info.shape_zyx, runner, self._limits())
        LOG.info("%s: model %s: %s", view.name, choice.model.name, choice.reason)
        for line in plan.lines(runner):
            LOG.info("%s: %s", view.name, line)
        tiles = plan.tiles
        grid = {"tile_zyx": tiles.tile_zyx, "overlap_zyx": tiles.overlap_zyx, "cuts_zyx": tiles.cuts_zyx}
        info = dataclasses.replace(volume.info, dtype="uint16")
        with volume_writer(output, info, provenance={**record, **grid}) as writer:
            for planes in predict_slabs(volume, inputs, runner, plan):
                writer.write(inputs.normalization.undo(planes))
        return writer.report.clipped_fraction

    def _load(self, model: ModelFolder) -> LoadedModel:
        if model.path not in self._loaded:
            self._loaded[model.path] = load_model(model, self.settings.device, self.settings.precision)
        return self._loaded[model.path]

    def _memory_limit(self) -> int:
        wanted = self.settings.memory_gb
        if wanted is None:
            return int(_SHARE_OF_FREE_MEMORY * available_memory())
        if not wanted > 0:
            raise SettingsError(f"--memory_gb: expected a number above 0, got {wanted}")
        return int(wanted * GIB)

    def _limits(self) -> Limits:
        on_gpu = choose_device(self.settings.device).type == "cuda"
        free = int(_SHARE_OF_FREE_MEMORY * torch.cuda.mem_get_info()[0]) if on_gpu else None
        return Limits(self._memory, free, self.settings.patch_size, self.settings.overlap)

    def _record(self, view: Path, info: VolumeInfo, choice: Choice) -> dict[str, Any]:
        """Say how the result is made; its key tells whether a result that is there is the same."""
        record: dict[str, Any] = {
            "made_by": "lightsheet apply",
            "version": lightsheet.__version__,
            "view": view.name,
            "view_sha256": content_hash(view),
            "model": choice.model.name,
            "model_key": choice.model.key,
            "weights_sha256": choice.model.settings.weights_sha256,
            "patch_size": self.settings.patch_size,
            "overlap": self.settings.overlap,
            "precision": str(self._dtype).removeprefix("torch."),
            "spacing_um": info.spacing_um,
            "channel": info.channel,
            "study": info.study,
        }
        record["key"] = settings_hash({k: v for k, v in record.items() if k not in ("view", "model")})
        record["reason"] = choice.reason
        if info.metadata.get(PROVENANCE_KEY) is not None:
            record["view_provenance"] = info.metadata[PROVENANCE_KEY]
        return record


def _refuse_without_information(volume: LazyVolume) -> None:
    why = usable(volume)
    if why is not None:
        raise VolumeError(f"{volume.info.source}: expected a view with information in it, got none: {why}")


def _key_of(result: Path) -> str | None:
    """Key of a result made before; None if there is none that can be read."""
    if not result.exists():
        return None
    try:
        made = read_info(result).metadata.get(PROVENANCE_KEY)
    except LightsheetError:
        return None
    key = made.get("key") if isinstance(made, dict) else None
    return key if isinstance(key, str) else None
