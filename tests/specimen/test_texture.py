"""A plane and those above it, which it is compared with, are read together where they lie together."""

import numpy as np
import pytest

from lightsheet.specimen.foreground import find_specimen
from lightsheet.specimen.survey import survey_volume
from lightsheet.specimen.texture import texture
from lightsheet.volumes.info import VolumeInfo
from lightsheet.volumes.lazy import LazyVolume
from tissue import SHAPE, SPACING, tissue


@pytest.mark.parametrize(("step_z", "reads"), [(3.0, 1), (2.0, 1), (0.6, 2)])
def test_planes_above_are_read_with_the_one_below(step_z: float, reads: int) -> None:
    data, read = tissue(), []

    def planes(begin: int, end: int) -> np.ndarray:
        read.append(begin)
        return data[begin:end]

    volume = LazyVolume(VolumeInfo("view.tif", SHAPE, str(data.dtype), (step_z, *SPACING[1:])), planes)
    survey = survey_volume(volume, (2, 5, 5), "view.tif")
    specimen = find_specimen(survey, "view.tif")
    read.clear()
    texture(volume, survey, specimen)
    assert 8 < len(read) <= 16 * reads
