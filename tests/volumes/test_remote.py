"""OME-Zarr at addresses: S3 and a web server of this machine."""

import contextlib
import functools
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from lightsheet.core.errors import (
    ChangedError,
    LightsheetError,
    NotFoundError,
    OutputError,
    SettingsError,
    VolumeError,
)
from lightsheet.volumes.info import VolumeInfo
from lightsheet.volumes.reading import find_volumes, open_volume, read_volume, write_volume
from lightsheet.volumes.remote.addresses import absolute, address_of, filesystem, reached, without_secrets
from lightsheet.volumes.remote.sending import send
from lightsheet.volumes.unchanged import Watched
from s3_server import SECRET, s3_server

SHAPE = (20, 40, 50)


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch, s3_server(patch, "data") as address:
        yield address


@pytest.fixture(scope="module")
def counts() -> np.ndarray:
    return np.random.default_rng(0).gamma(2, 300, SHAPE).astype(np.uint16)


def image(folder: Path, counts: np.ndarray, name: str = "x.ome.zarr", version: str = "0.5") -> Path:
    info = VolumeInfo("x", SHAPE, "uint16", (2.0, 0.5, 0.4), "nucleus", 3)
    write_volume(folder / name, counts, info, ome_zarr_version=version)  # type: ignore[arg-type]
    return folder / name


def test_addresses_are_told_from_paths() -> None:
    assert address_of(Path("s3://data/a/b.ome.zarr")) == "s3://data/a/b.ome.zarr"
    assert address_of("https://host:8000/x.zarr/") == "https://host:8000/x.zarr"
    assert address_of(Path("/data/s3/b.ome.zarr")) is None
    assert address_of(Path("s3:")) is None
    assert absolute(Path("s3://data/b.zarr")) == Path("s3://data/b.zarr")
    assert absolute(Path("b.zarr")) == Path.cwd() / "b.zarr"


@pytest.mark.parametrize("address", ["s3://me:secret@data/x.zarr", "https://host/x.zarr?X-Amz-Signature=abc"])
def test_an_address_with_a_secret_in_it_is_refused_without_telling_it(address: str) -> None:
    with pytest.raises(SettingsError, match="without user, password or query") as error:
        address_of(Path(address))
    assert "secret" not in str(error.value) and "abc" not in str(error.value)


def test_secrets_in_what_a_library_says_are_left_out() -> None:
    said = "403 at https://h/x?X-Amz-Credential=AKID&X-Amz-Signature=deadbeef for https://ann:pw@h/y"
    told = without_secrets(said)
    assert not any(part in told for part in ("AKID", "deadbeef", "ann", "pw@"))
    with pytest.raises(VolumeError) as error, reached("s3://data/x"):
        raise RuntimeError(f"aws_secret_access_key={SECRET} was refused")
    assert SECRET not in str(error.value) and "was refused" in str(error.value)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_what_is_sent_is_read_back(server: str, tmp_path: Path, counts: np.ndarray, version: str) -> None:
    address = f"s3://data/{version}/x.ome.zarr"
    send(image(tmp_path, counts, version=version), address)
    volume = read_volume(Path(address))
    assert np.array_equal(volume.data, counts)
    info = volume.info
    assert (info.source, info.spacing_um, info.channel, info.study) == (
        address,
        (2.0, 0.5, 0.4),
        "nucleus",
        3,
    )
    with open_volume(Path(address)) as lazy:
        assert np.array_equal(lazy.read(5, 7), counts[5:7])


def test_a_folder_at_an_address_is_gone_through(server: str, tmp_path: Path, counts: np.ndarray) -> None:
    for name in ("b_angle.ome.zarr", "a_angle.ome.zarr"):
        send(image(tmp_path, counts, name), f"s3://data/folder/{name}")
    found = [address_of(path) for path in find_volumes("s3://data/folder")]
    assert found == ["s3://data/folder/a_angle.ome.zarr", "s3://data/folder/b_angle.ome.zarr"]
    filesystem("s3://data")[0].pipe("data/other/readme.txt", b"no image")
    with pytest.raises(NotFoundError, match="a folder without any"):
        find_volumes("s3://data/other")


def test_what_is_sent_replaces_all_of_what_was_there(server: str, tmp_path: Path, counts: np.ndarray) -> None:
    address = "s3://data/again/x.ome.zarr"
    send(image(tmp_path / "first", counts), address)
    found, place = filesystem(address)
    found.pipe(f"{place}/0/c/9/9/9", b"of an earlier one")
    before = Watched(Path(address))
    before.check()
    send(image(tmp_path / "second", counts // 2), address)
    assert np.array_equal(read_volume(Path(address)).data, counts // 2)
    assert not found.exists(f"{place}/0/c/9/9/9")
    assert Watched(Path(address)).digest != before.digest
    with pytest.raises(ChangedError, match="written to while it was"):
        before.check()


@pytest.mark.parametrize(
    ("address", "kind", "told"),
    [
        ("s3://data/nothing.ome.zarr", VolumeError, "got none at this address"),
        ("s3://nobucket/x.ome.zarr", VolumeError, "got none at this address"),
        ("http://127.0.0.1:9/x.ome.zarr", VolumeError, "got none at this address"),
    ],
)
def test_what_is_not_there_is_one_line(
    server: str, address: str, kind: type[LightsheetError], told: str
) -> None:
    with pytest.raises(kind, match=told) as error:
        read_volume(Path(address))
    assert str(error.value).startswith(address) and "\n" not in str(error.value)


def test_a_bucket_that_is_not_there_is_not_written_to(
    server: str, tmp_path: Path, counts: np.ndarray
) -> None:
    with pytest.raises(OutputError, match=r"s3://nobucket/x.ome.zarr: expected a bucket"):
        send(image(tmp_path, counts), "s3://nobucket/x.ome.zarr")


def test_a_bucket_that_may_not_be_written_is_one_line(
    server: str, tmp_path: Path, counts: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    import s3fs

    async def refuse(*_: object, **__: object) -> None:
        raise PermissionError("Access Denied")

    monkeypatch.setattr(s3fs.S3FileSystem, "_put_file", refuse)
    with pytest.raises(OutputError, match=r"a refusal .*Access Denied.*; credentials are taken from"):
        send(image(tmp_path, counts), "s3://data/readonly/x.ome.zarr")


def test_an_image_that_was_sent_in_part_is_none(
    server: str, tmp_path: Path, counts: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What makes it an image comes last."""
    import s3fs

    whole = s3fs.S3FileSystem._put_file

    async def all_but_the_last(self: object, local: str, remote: str, **options: object) -> None:
        if remote.endswith("x.ome.zarr/zarr.json"):
            raise ConnectionError("the line is gone")
        await whole(self, local, remote, **options)

    monkeypatch.setattr(s3fs.S3FileSystem, "_put_file", all_but_the_last)
    with pytest.raises(OutputError, match="the line is gone"):
        send(image(tmp_path, counts), "s3://data/part/x.ome.zarr")
    with pytest.raises(VolumeError, match="got none at this address"):
        read_volume(Path("s3://data/part/x.ome.zarr"))


def test_chunks_that_lie_are_refused(server: str, tmp_path: Path, counts: np.ndarray) -> None:
    address = "s3://data/lies/x.ome.zarr"
    send(image(tmp_path, counts), address)
    found, place = filesystem(address)
    text = found.cat_file(f"{place}/0/zarr.json").decode()
    found.pipe(f"{place}/0/zarr.json", text.replace("20", "2000000", 1).encode())
    found.invalidate_cache()
    with pytest.raises(VolumeError, match=r"most of it is missing"):
        read_volume(Path(address))


@contextlib.contextmanager
def web_server(folder: Path) -> Iterator[str]:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder))
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()


def test_a_web_server_is_read(tmp_path: Path, counts: np.ndarray) -> None:
    image(tmp_path, counts)
    with web_server(tmp_path) as address:
        path = Path(f"{address}/x.ome.zarr")
        assert np.array_equal(read_volume(path).data, counts)
        watched = Watched(path)
        watched.check()
        assert [name for name, *_ in watched.stamp] == ["0/zarr.json", "zarr.json"]
