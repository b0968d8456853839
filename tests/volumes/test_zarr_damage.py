"""OME-Zarr damaged at random: one line of ours or a volume, never a crash, a hang or another error."""

import functools
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st
from zarr.codecs import BloscCodec, GzipCodec

from damage import DAMAGES, FUZZ, SPACING_UM, WHOLE, Damage, after, folder, info, stack
from lightsheet.volumes.reading import write_volume

KINDS = ("ours 0.4", "ours 0.5", "sharded", "blosc", "gzip")
_CHUNKS = (4, 12, 14)
_METADATA = ("zarr.json", ".zarray", ".zattrs", ".zgroup")
_LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6)
_LEAVES |= st.sampled_from(
    [2**31, 2**63, -1, 0, "NaN", "gzip", "zyx", "<f8", "|O", ">u2", "bytes", "../x", "/"]
)
VALUES: st.SearchStrategy[Any] = st.recursive(
    _LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)
MISSING = "missing"
Steps = tuple[str | int, ...]


def image(path: Path, version: str, codec: Any, **shards: Any) -> None:
    """An OME-Zarr of another program."""
    axes = [{"name": name, "type": "space", "unit": "micrometer"} for name in "zyx"]
    step = [{"type": "scale", "scale": list(SPACING_UM)}]
    multiscale: dict[str, Any] = {
        "axes": axes,
        "datasets": [{"path": "0", "coordinateTransformations": step}],
    }
    new = version == "0.5"
    said: dict[str, Any] = {"multiscales": [multiscale if new else {**multiscale, "version": version}]}
    form: Any = 3 if new else 2
    attributes = {"ome": {**said, "version": version}} if new else said
    zarr.create_group(path, zarr_format=form, attributes=attributes)
    data = stack()
    array = zarr.create_array(
        path / "0",
        shape=data.shape,
        dtype=data.dtype,
        chunks=_CHUNKS,
        zarr_format=form,
        compressors=codec,
        **shards,
    )
    array[...] = data


@functools.cache
def whole(kind: str) -> Path:
    """A valid folder of a kind."""
    path = folder() / f"{kind.replace(' ', '_')}.zarr"
    if kind.startswith("ours"):
        version: Any = kind.split()[1]
        write_volume(path, stack(), info(), ome_zarr_version=version)
    elif kind == "sharded":
        image(path, "0.5", GzipCodec(), shards=(8, 24, 28))
    elif kind == "blosc":
        image(path, "0.5", BloscCodec(cname="lz4"))
    else:
        import numcodecs

        image(path, "0.4", numcodecs.GZip())
    return path


@functools.cache
def files(kind: str) -> list[str]:
    """Files of a folder, metadata as often as chunks."""
    found = sorted(str(p.relative_to(whole(kind))) for p in whole(kind).rglob("*") if p.is_file())
    metadata = [name for name in found if name.endswith(_METADATA)]
    return [*found, *metadata * (1 + len(found) // (2 * len(metadata)))]


@functools.cache
def keys(kind: str) -> list[tuple[str, Steps]]:
    """All places in the metadata."""
    found: list[tuple[str, Steps]] = []
    for name in sorted({name for name in files(kind) if name.endswith(_METADATA)}):
        found += [(name, steps) for steps in below(json.loads((whole(kind) / name).read_text()))]
    return found


def below(content: Any, steps: Steps = ()) -> Iterator[Steps]:
    yield steps
    entries = (
        content.items()
        if isinstance(content, dict)
        else enumerate(content)
        if isinstance(content, list)
        else ()
    )
    for key, value in entries:
        yield from below(value, (*steps, key))


def changed(content: Any, steps: Steps, value: Any) -> Any:
    """Content with another value at a place, or without it; unchanged where the place is gone."""
    if not steps:
        return {} if value == MISSING else value
    first, *rest = steps
    try:
        if len(steps) == 1 and value == MISSING:
            del content[first]
        else:
            content[first] = changed(content[first], tuple(rest), value)
    except (KeyError, IndexError, TypeError):
        return content
    return content


def copy(kind: str, name: str) -> Path:
    path = folder() / name
    shutil.rmtree(path, ignore_errors=True)
    shutil.copytree(whole(kind), path)
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_whole_folders_are_used(kind: str) -> None:
    assert after(whole(kind)).said == f"{WHOLE} (8, 24, 28) None"


@pytest.mark.fuzz
@FUZZ
@given(data=st.data(), kind=st.sampled_from(KINDS))
def test_bytes(data: st.DataObject, kind: str) -> None:
    path = copy(kind, "bytes.zarr")
    damages = data.draw(st.lists(st.tuples(st.sampled_from(files(kind)), DAMAGES), min_size=1, max_size=3))
    for name, damage in damages:
        assert isinstance(damage, Damage)
        (path / name).write_bytes(damage.of((path / name).read_bytes()))
    ended = after(path)
    assert not ended.crashed, ended


@pytest.mark.fuzz
@FUZZ
@given(data=st.data(), kind=st.sampled_from(KINDS))
def test_metadata(data: st.DataObject, kind: str) -> None:
    path = copy(kind, "metadata.zarr")
    places = st.tuples(st.sampled_from(keys(kind)), VALUES | st.just(MISSING))
    for (name, steps), value in data.draw(st.lists(places, min_size=1, max_size=3)):
        content = json.loads((path / name).read_text())
        (path / name).write_text(json.dumps(changed(content, steps, value)))
    ended = after(path)
    assert not ended.crashed, ended
