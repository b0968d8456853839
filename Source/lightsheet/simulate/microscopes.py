"""Another microscope: how the optics and the camera of a study differ elsewhere."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from lightsheet.simulate.optics import Optics


def other_microscope(rng: np.random.Generator, strength: float = 1.0) -> Callable[[Optics], Optics]:
    """Draw how another microscope differs; all views of a specimen are of the same one.

    Parameters
    ----------
    rng : source of randomness
    strength : exponent on each factor, 0 for none
    """

    def factor(low: float, high: float) -> float:
        return float(np.exp(strength * rng.uniform(np.log(low), np.log(high))))

    scale = {
        "psf_lateral_um": factor(0.6, 2.0),
        "psf_axial_um": factor(0.6, 2.0),
        "sheet_waist_um": factor(0.6, 2.0),
        "sheet_rayleigh": factor(0.6, 2.0),
        "scatter_blur_um": factor(0.4, 2.0),
        "haze": factor(0.3, 2.5),
        "absorbers_per_1000_um2": factor(0.2, 4.0),
        "absorber_depth": factor(0.5, 2.0),
        "medium_counts": factor(0.3, 5.0),
        "offset_counts": factor(0.3, 4.0),
        "counts_per_photon": factor(0.3, 6.0),
        "read_noise_counts": factor(0.5, 5.0),
    }
    light, camera = (bool(turned) for turned in rng.integers(0, 2, 2))

    def vary(optics: Optics) -> Optics:
        return replace(
            optics,
            illumination_from_high=optics.illumination_from_high ^ light,
            detection_from_high=optics.detection_from_high ^ camera,
            **{name: getattr(optics, name) * by for name, by in scale.items()},
        )

    return vary
