"""Files are paired by name; what has no partner is told in one line."""

from pathlib import Path

import pytest

from lightsheet.core.errors import NotFoundError, SettingsError
from lightsheet.core.names import stem_of
from lightsheet.evaluate.pairing import channel_in_name, key_of, pair_by_list, pair_by_name


def paths(*names: str) -> list[Path]:
    return [Path(name) for name in names]


@pytest.mark.parametrize(
    "name",
    [
        "image_1_nucleus.tif",
        "image_1_nucleus_angle.tif",
        "image_1_nucleus_fused.tiff",
        "pred_image_1_nucleus.h5",
        "image_1_nucleus_pred.ome.tif",
        "prediction_image_1_nucleus_angle.ome.zarr",
        "image_1_nucleus_view.BTF",
    ],
)
def test_names_of_one_image(name: str) -> None:
    assert key_of(Path("some") / name) == "image_1_nucleus"


def test_names_keep_their_dots_and_roles() -> None:
    assert stem_of(Path("a/b.c_angle.ome.tif")) == "b.c_angle"
    assert channel_in_name("image_1_membrane") == "membrane"
    assert channel_in_name("image_1_nucleusish") is None


def test_view_and_fused_may_share_a_folder_with_labels_and_further_views() -> None:
    names = ("angle", "fused", "labels", "angle2", "angle3")
    folder = paths(*(f"s/a_nucleus_{name}.tif" for name in names))
    pairing = pair_by_name(paths("p/a_nucleus_angle.tif"), folder, folder)
    (triple,) = pairing.triples
    assert (triple.name, triple.view, triple.fused) == ("a_nucleus", folder[0], folder[1])
    assert pairing.failures == pairing.remarks == ()


def test_plain_names_in_folders_of_their_own() -> None:
    pairing = pair_by_name(paths("p/a.tif"), paths("v/a.tif"), paths("f/a.tif"))
    assert pairing.triples[0].view == Path("v/a.tif")


def test_partners_that_are_missing() -> None:
    pairing = pair_by_name(
        paths("p/a.tif", "p/b.tif", "p/c.tif"),
        paths("v/a_angle.tif", "v/b_angle.tif"),
        paths("v/a_fused.tif", "v/d_fused.tif"),
    )
    assert [t.name for t in pairing.triples] == ["a"]
    assert pairing.failures == (
        "p/b.tif: expected its fused 'b', got none of that name",
        "p/c.tif: expected its view and fused 'c', got none of that name",
    )
    assert pairing.remarks == ("1 fused volumes have no prediction: d",)


def test_nothing_to_pair() -> None:
    with pytest.raises(
        NotFoundError, match="files of the same names, got predictions a, views b, fused none"
    ):
        pair_by_name(paths("p/a.tif"), paths("v/b_angle.tif"), paths("v/b_angle.tif"))


def test_two_files_of_one_name() -> None:
    with pytest.raises(
        SettingsError, match=r"--prediction: expected one file named 'a', got p/a\.tif and q/a\.h5"
    ):
        pair_by_name(paths("p/a.tif", "q/a.h5"), paths("v/a.tif"), paths("f/a.tif"))


def test_a_list_names_the_partners() -> None:
    pairs = [(Path("h/a_angle.h5"), Path("h/a_fused.h5")), (Path("h/b_angle.h5"), Path("h/b_fused.h5"))]
    pairing = pair_by_list(paths("p/a_angle.tif", "p/z.tif"), pairs, Path("test.csv"))
    assert [(t.name, t.fused) for t in pairing.triples] == [("a", Path("h/a_fused.h5"))]
    assert pairing.failures == ("h/b_angle.h5: expected its prediction 'b', got none of that name",)
    assert pairing.remarks == ("1 predictions are not in test.csv: z",)
    with pytest.raises(NotFoundError, match=r"test\.csv: expected predictions of its images a, b, got z"):
        pair_by_list(paths("p/z.tif"), pairs, Path("test.csv"))
