"""How the input channels of a model's network are made; nothing heavy is imported for it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ModelInputs:
    """How the input channels of a network are made.

    Attributes
    ----------
    image_groups : input channels in their order, e.g. ("data/raw_image", "data/surface_distance")
    distance_scale_um, light_scale_um : micrometres by which these two channels are divided before tanh
    light_share : share of the specimen's thickness along the light that takes the place of
        ``light_scale_um``; 0: micrometres, however large the specimen is
    views : registered views that the network takes, further ones behind the channels of ``image_groups``; in
        the place of one that is missing it gets the first again
    """

    image_groups: tuple[str, ...]
    distance_scale_um: float = 20.0
    light_scale_um: float = 50.0
    views: int = 1
    light_share: float = 0.0

    @property
    def channels(self) -> int:
        """Input channels of the network."""
        return len(self.image_groups) + self.views - 1

    def light_scale_of(self, thickness_um: float) -> float:
        """Give the micrometres by which the light's path is divided in a specimen of this thickness."""
        return self.light_share * thickness_um if self.light_share else self.light_scale_um
