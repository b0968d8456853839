"""TIFFs that once broke the project: one line or the right voxels, in bounded time and memory."""

import contextlib
import functools
from pathlib import Path

import numpy as np
import pytest

from hostile.cases import MISSING, THERE, look, made, volume_or_reason
from lightsheet.core.errors import LightsheetError
from lightsheet.volumes.reading import open_volume

# Words that lie, beside pages that are what they are: vendors' names, JSON of a wrong form, resolutions.
RIGHT = {"t15b_ome_desc_json_deep", "t20b_other_key_nan", "t29_rows_zero", "t25c_sampleformat_void"}
RIGHT |= {"t22_json_shape_words", "t22c_json_shape_nested", "t22e_json_shape_float"}
RIGHT |= {"t24_resolution_zero", "t24b_resolution_short", "t24c_resolutionunit_text"}
RIGHT |= {"t24d_resolutionunit_two", "t36d_micromanager", "t36e_scanimage", "t36f_nih", "t36g_svs"}
RIGHT |= {"t36h_ndpi", "t36i_philips", "t36j_metaseries", "t36k_qpi", "t36l_indica", "t36m_astrotiff"}
RIGHT |= {"t36n_ijmetadata"}
# Proper files of other numbers: 13 bits, all the same, tiny or large values.
READ = {"t25_bits_13", "t34b_float_1e38", "t34d_denormal", "t38_constant", "t38b_one_bright_voxel"}


@functools.cache
def cases() -> dict[str, Path]:
    if not THERE:
        return {}
    with contextlib.chdir(Path.cwd()):  # one of the cases goes to its folder
        return dict(made("make_tiff.py", "tiff", ".tif", "mini_tiff.py"))


def truth() -> np.ndarray:
    """Voxels that the pages of most cases hold."""
    return (np.random.default_rng(1).gamma(2, 300, (8, 32, 32)) + 100).astype(np.uint16)


def right_or_reason(path: Path) -> str:
    try:
        with open_volume(path) as volume:
            return "right" if np.array_equal(volume.read(0, volume.shape_zyx[0]), truth()) else "wrong"
    except LightsheetError as error:
        assert "\n" not in str(error)
        assert str(error).isprintable()
        return "refused"


@pytest.mark.slow
@pytest.mark.skipif(not THERE, reason=MISSING)
def test_every_tiff_costs_one_line_or_is_right() -> None:
    wrong = {}
    for case, path in cases().items():
        ended = look(volume_or_reason if case in READ else right_or_reason, path)
        expected = "read" if case in READ else "right" if case in RIGHT else "refused"
        if ended.crashed or ended.seconds > 10 or not ended.said.startswith(expected):
            wrong[case] = ended
    assert len(cases()) > 100
    assert wrong == {}
