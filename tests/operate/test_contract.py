"""Folders and sockets of the container contract, and what is said when they hold something else."""

import json
from pathlib import Path
from typing import Any

import pytest

from lightsheet.core.errors import NotFoundError, OutputError
from lightsheet.operate.container.contract import (
    INPUT_FOLDER,
    INPUT_SLUG,
    Folders,
    find_images,
    prepare_output,
    read_sockets,
)

UUID = "0f1c9a52-6a57-4f8e-9d0c-2f4a1f6f2b11.tif"


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    (tmp_path / "in" / INPUT_FOLDER).mkdir(parents=True)
    return Folders(tmp_path / "in", tmp_path / "out")


def test_the_platform_s_folders_are_the_default() -> None:
    folders = Folders.from_environment({})
    assert str(folders.input / INPUT_FOLDER) == "/input/images/fluorescence-lightsheet-3D-microscopy"
    assert str(folders.results) == "/output/images/fused-fluorescence-lightsheet-3D-microscopy"
    assert str(folders.tarball) == "/opt/ml/model"


def test_variables_name_other_folders() -> None:
    folders = Folders.from_environment({"LIGHTSHEET_INPUT": "/a", "LIGHTSHEET_TARBALL": "/c"})
    assert (folders.input, folders.output, folders.tarball) == (Path("/a"), Path("/output"), Path("/c"))


def test_images_are_found_whatever_their_spelling_and_others_left_aside(folders: Folders) -> None:
    where = folders.input / INPUT_FOLDER
    for name in ("b.TIFF", "a.tif", "notes.txt", ".hidden.tif"):
        (where / name).touch()
    assert [path.name for path in find_images(folders)] == ["a.tif", "b.TIFF"]


@pytest.mark.parametrize(("names", "got"), [((), "an empty folder"), (("notes.txt",), "got notes.txt")])
def test_a_folder_without_images_is_told(folders: Folders, names: tuple[str, ...], got: str) -> None:
    for name in names:
        (folders.input / INPUT_FOLDER / name).touch()
    with pytest.raises(NotFoundError, match=rf"expected an image \(.tif or .tiff\), {got}|got {got}"):
        find_images(folders)


def test_a_missing_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"expected a folder with one image .* got 'No such file"):
        find_images(Folders(tmp_path / "none", tmp_path))


def entry(key: str, slug: str = INPUT_SLUG, path: Any = str(INPUT_FOLDER)) -> dict[str, Any]:
    return {key: {"slug": slug, "relative_path": path, "kind": "Image"}, "image": {"name": "embryo.tif"}}


@pytest.mark.parametrize("key", ["socket", "interface"])
def test_sockets_are_read_by_both_names(tmp_path: Path, key: str) -> None:
    file = tmp_path / "inputs.json"
    file.write_text(json.dumps([{"value": 3, key: {"slug": "age", "relative_path": "age.json"}}, entry(key)]))
    (socket,) = read_sockets(file)
    assert (socket.slug, socket.relative_path, socket.image_name) == (INPUT_SLUG, INPUT_FOLDER, "embryo.tif")


def test_socket_wins_over_interface(tmp_path: Path) -> None:
    file = tmp_path / "inputs.json"
    file.write_text(
        json.dumps([{**entry("interface", path="images/old"), **entry("socket", path="images/new")}])
    )
    assert [socket.relative_path for socket in read_sockets(file)] == [Path("images/new")]


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{not json",
        '{"socket": 1}',
        "[1, null, []]",
        json.dumps([entry("socket", path=None)]),
        json.dumps([entry("socket", path="../../etc")]),
        json.dumps([entry("socket", path="/etc")]),
        json.dumps([entry("socket", path="images/../../etc")]),
    ],
)
def test_broken_inputs_json_changes_nothing(folders: Folders, content: str) -> None:
    (folders.input / "inputs.json").write_text(content)
    image = folders.input / INPUT_FOLDER / UUID
    image.touch()
    assert find_images(folders) == [image]


def test_another_place_of_the_socket_is_followed(folders: Folders) -> None:
    moved = folders.input / "images" / "moved"
    moved.mkdir()
    (moved / UUID).touch()
    (folders.input / "inputs.json").write_text(json.dumps([entry("socket", path="images/moved")]))
    assert find_images(folders) == [moved / UUID]


def test_sockets_of_other_images_are_not_followed(folders: Folders) -> None:
    other = folders.input / "images" / "other"
    other.mkdir()
    (folders.input / "inputs.json").write_text(json.dumps([entry("socket", "ct-scan", "images/other")]))
    image = folders.input / INPUT_FOLDER / UUID
    image.touch()
    assert find_images(folders) == [image]


def test_an_output_that_can_not_be_a_folder_is_told_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(OutputError, match=r"fused-fluorescence.*can't be written"):
        prepare_output(Folders(tmp_path, tmp_path / "out"))


def test_the_output_is_made_and_left_empty(folders: Folders) -> None:
    prepare_output(folders)
    assert list(folders.results.iterdir()) == []
