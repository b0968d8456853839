"""A seeded stack for timing conversion: an ellipsoid with nuclei, light that fades along X, and noise."""

from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from lightsheet.core.jit import compiled

STUDY_3_SHAPE = (891, 817, 817)
STUDY_3_SPACING_UM = (1.0, 0.39, 0.39)
NUCLEI = 2000


def write_phantom(path: Path, scale: float, seed: int = 0) -> tuple[int, int, int]:
    """Write the stack as an uncompressed TIFF and return its shape; ``scale`` shrinks all axes."""
    z, y, x = (max(16, round(n * scale)) for n in STUDY_3_SHAPE)
    spacing = np.array(STUDY_3_SPACING_UM)
    extent = np.array([z, y, x]) * spacing
    rng = np.random.default_rng(seed)
    inside = rng.uniform(-1, 1, (NUCLEI * 4, 3))
    inside = inside[(inside**2).sum(axis=1) < 0.9][:NUCLEI]
    middle, radii = extent / 2, 0.4 * extent
    nuclei = np.hstack(
        [
            middle + inside * radii,
            rng.uniform(0.012, 0.02, (len(inside), 1)) * extent.max(),
            rng.uniform(500, 2500, (len(inside), 1)),
        ]
    )
    nuclei = nuclei[np.argsort(nuclei[:, 0])]
    data = tifffile.memmap(
        path,
        shape=(z, y, x),
        dtype=np.uint16,
        photometric="minisblack",
        bigtiff=True,
        metadata={
            "axes": "ZYX",
            "spacing": STUDY_3_SPACING_UM[0],
            "PhysicalSizeZ": STUDY_3_SPACING_UM[0],
            "PhysicalSizeY": STUDY_3_SPACING_UM[1],
            "PhysicalSizeX": STUDY_3_SPACING_UM[2],
            "unit": "um",
            "channel": "nucleus",
            "study": 3,
        },
    )
    for plane in range(z):
        data[plane] = _plane(plane, y, x, spacing, middle, radii, nuclei, seed)
    data.flush()
    return z, y, x


@compiled()
def _plane(
    plane: int, size_y: int, size_x: int, spacing: Any, middle: Any, radii: Any, nuclei: Any, seed: int
) -> Any:
    light = np.zeros((size_y, size_x), np.float32)
    z = plane * spacing[0]
    for y in range(size_y):
        for x in range(size_x):
            r = (
                ((z - middle[0]) / radii[0]) ** 2
                + ((y * spacing[1] - middle[1]) / radii[1]) ** 2
                + ((x * spacing[2] - middle[2]) / radii[2]) ** 2
            )
            if r < 1.0:
                light[y, x] = 150.0
    for n in range(nuclei.shape[0]):
        radius = nuclei[n, 3]
        if abs(nuclei[n, 0] - z) >= radius:
            continue
        for y in range(
            max(0, int((nuclei[n, 1] - radius) / spacing[1])),
            min(size_y, int((nuclei[n, 1] + radius) / spacing[1]) + 2),
        ):
            for x in range(
                max(0, int((nuclei[n, 2] - radius) / spacing[2])),
                min(size_x, int((nuclei[n, 2] + radius) / spacing[2]) + 2),
            ):
                away = (
                    (nuclei[n, 0] - z) ** 2
                    + (nuclei[n, 1] - y * spacing[1]) ** 2
                    + (nuclei[n, 2] - x * spacing[2]) ** 2
                )
                if away < radius * radius:
                    light[y, x] = max(light[y, x], np.float32(nuclei[n, 4] * (1.0 - away / radius**2)))
    return _with_noise(light, plane, spacing[2], 1.5 / (2 * middle[2]), seed)


@compiled()
def _with_noise(light: Any, plane: int, pitch: float, fade: float, seed: int) -> Any:
    size_y, size_x = light.shape
    out = np.empty((size_y, size_x), np.uint16)
    state = np.uint64((plane + 1) * 0x9E3779B97F4A7C15 % 0xFFFFFFFFFFFFFFFF) ^ np.uint64(seed * 7919 + 1)
    for y in range(size_y):
        for x in range(size_x):
            state ^= state << np.uint64(13)
            state ^= state >> np.uint64(7)
            state ^= state << np.uint64(17)
            # The sum of four even numbers is nearly normal: mean 131070, standard deviation 37837.
            even = (
                (state & np.uint64(0xFFFF))
                + ((state >> np.uint64(16)) & np.uint64(0xFFFF))
                + ((state >> np.uint64(32)) & np.uint64(0xFFFF))
                + (state >> np.uint64(48))
            )
            noise = (np.float64(even) - 131070.0) / 37837.0
            signal = 110.0 + light[y, x] * np.exp(-fade * x * pitch)
            out[y, x] = np.uint16(min(max(signal + noise * (4.0 + 0.7 * np.sqrt(signal)), 0.0), 65535.0))
    return out
