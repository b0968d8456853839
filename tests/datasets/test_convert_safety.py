"""Converted files: believed only while they are as written, made by one at a time, gone without a trace."""

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from lightsheet.cli import convert as command
from lightsheet.cli.convert import main
from lightsheet.core.errors import BusyError, ChangedError
from lightsheet.core.files import made_alone
from lightsheet.core.locks import part_of
from lightsheet.datasets.convert import ConvertSettings, _Content, convert_file
from lightsheet.volumes.h5.reader import FOREGROUND_INDEX
from lightsheet.volumes.h5.seal import is_intact
from synthetic import embryo, write_tiff

SOURCE = Path(__file__).resolve().parents[2] / "Source"
SHAPE = (16, 24, 26)
FORMS = {
    "full": ConvertSettings(),
    "compact": ConvertSettings(compact=True),
    "fast": ConvertSettings(compact=True, fast_filter=True),
}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_tiff(tmp_path / "image_0_nucleus_angle.tif", embryo(SHAPE))


def zero(name: str) -> Callable[[h5py.File], None]:
    def damage(file: h5py.File) -> None:
        file[name][...] = 0

    return damage


def lose_chunks(file: h5py.File) -> None:
    """Put a new dataset in the place, in which no chunk was ever written."""
    name = "data/surface_distance"
    old = file[name]
    said, shape, chunks = dict(old.attrs), old.shape, old.chunks
    del file[name]
    new = file.create_dataset(name, shape, np.float32, chunks=chunks, compression="gzip", shuffle=True)
    new.attrs.update(said)


def not_a_number(file: h5py.File) -> None:
    file.attrs["percentiles"] = (np.nan, np.nan)


def nudge(file: h5py.File) -> None:
    file["data/surface_distance"].attrs["rounded_to"] = 0.5


INSIDE: dict[str, Callable[[h5py.File], None]] = {
    "zeroed image": zero("data/raw_image"),
    "zeroed distance": zero("data/surface_distance"),
    "zeroed nodes": zero("nodes/light_map"),
    "zeroed index": zero(FOREGROUND_INDEX),
    "lost chunks": lose_chunks,
    "NaN percentiles": not_a_number,
    "another attribute": nudge,
    "no seal": lambda file: file.attrs.__delitem__("seal"),
}


@pytest.mark.parametrize("damage", INSIDE)
def test_a_damaged_file_is_converted_again(
    source: Path, tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    target = tmp_path / "a.h5"
    convert_file(source, target)
    assert convert_file(source, target).status == "kept"
    with h5py.File(target, "r+") as file:
        INSIDE[damage](file)
    assert convert_file(source, target).status == "written"
    assert f"{target}: it is not as it was written, or of an older version; converted again" in caplog.text
    assert convert_file(source, target).status == "kept"


@pytest.mark.parametrize("form", FORMS)
def test_bytes_cut_off_or_changed_are_noticed(source: Path, tmp_path: Path, form: str) -> None:
    target = tmp_path / "a.h5"
    convert_file(source, target, FORMS[form])
    whole = target.read_bytes()
    assert is_intact(target)
    with h5py.File(target, "r") as file:
        first = (
            file["data/raw_image"].id.get_offset() or file["data/raw_image"].id.get_chunk_info(0).byte_offset
        )
    for at in (first + 8, first + 200):
        target.write_bytes(whole[:at] + bytes([whole[at] ^ 16]) + whole[at + 1 :])
        assert not is_intact(target), at
    for length in (0, 100, len(whole) // 2, len(whole) - 1):
        target.write_bytes(whole[:length])
        assert not is_intact(target), length
        assert convert_file(source, target, FORMS[form]).status == "written"
    assert target.read_bytes() == whole


def test_a_source_that_changes_meanwhile_is_not_converted(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = _Content.write

    def meanwhile(*rest: object) -> None:
        write_tiff(source, embryo(SHAPE)[::-1])
        written(*rest)  # type: ignore[arg-type]

    monkeypatch.setattr(_Content, "write", meanwhile)
    with pytest.raises(ChangedError, match=r"angle\.tif: expected an input that stays as it is"):
        convert_file(source, tmp_path / "out" / "a.h5")
    assert not (tmp_path / "out").exists()


def test_a_file_that_another_run_makes_is_left_to_it(
    source: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    code = textwrap.dedent(f"""
        import sys
        from pathlib import Path
        sys.path.insert(0, {str(SOURCE)!r})
        from lightsheet.core.files import made_alone
        with made_alone(Path({str(tmp_path / "out" / "image_0_nucleus_angle.h5")!r})):
            print("at work", flush=True)
            sys.stdin.readline()
    """)
    write_tiff(tmp_path / "image_1_nucleus_angle.tif", embryo(SHAPE))
    other = subprocess.Popen([sys.executable, "-c", code], stdin=-1, stdout=-1, text=True)
    assert other.stdout is not None and other.stdout.readline() == "at work\n"
    pattern = str(tmp_path / "*_angle.tif")
    assert main([pattern, str(tmp_path / "out")]) == 1
    said = capfd.readouterr().err
    assert f"image_0_nucleus_angle.h5: another run (process {other.pid} on " in said
    assert "1 written, 0 already done, 1 failed" in said
    other.communicate("\n")
    assert main([pattern, str(tmp_path / "out")]) == 0
    assert "1 written, 1 already done, 0 failed" in capfd.readouterr().err


def test_a_thread_is_kept_out_too(source: Path, tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with made_alone(tmp_path / "a.h5"), ThreadPoolExecutor(1) as pool:
        with pytest.raises(BusyError):
            pool.submit(convert_file, source, tmp_path / "a.h5").result()
        assert convert_file(source, tmp_path / "a.h5").status == "written"


def test_parts_of_killed_runs_are_swept(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = [str(source), str(out)]
    out.mkdir()
    # One of a file that is made now, one of a file that is not wanted any more.
    for name in ("image_0_nucleus_angle.h5", "gone.h5"):
        part_of(out / name, "0123abcd").write_text("")
    assert main(arguments) == 0
    assert sorted(path.name for path in out.iterdir()) == ["image_0_nucleus_angle.h5", "run.json"]
    part_of(out / "image_0_nucleus_angle.h5", "0123abcd").write_text("")
    assert main(arguments) == 0
    assert sorted(path.name for path in out.iterdir()) == ["image_0_nucleus_angle.h5", "run.json"]


@pytest.mark.slow
def test_a_process_that_is_ended_costs_one_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in").mkdir()
    for number in range(5):
        write_tiff(tmp_path / "in" / f"image_{number}_nucleus_angle.tif", embryo(SHAPE))
    # What the system does to a process that takes too much memory.
    monkeypatch.setattr(command, "_start_worker", deadly)
    assert main([str(tmp_path / "in"), str(tmp_path / "out"), "--workers", "2"]) == 1
    said = capfd.readouterr().err
    assert "image_1_nucleus_angle.tif: its process was ended; it may need more memory than there is" in said
    assert "4 written, 0 already done, 1 failed" in said


def deadly(_threads: int) -> None:
    """Make a worker that dies of image 1."""
    import lightsheet.datasets.convert as core

    convert = core.convert_file

    def dying(source: Path, *rest: object, **more: object) -> object:
        if "image_1" in source.name:
            os._exit(9)
        return convert(source, *rest, **more)  # type: ignore[arg-type]

    core.convert_file = dying  # type: ignore[assignment]


def test_a_file_that_another_run_finishes_meanwhile_counts_as_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for number in range(2):
        write_tiff(tmp_path / f"image_{number}_nucleus_angle.tif", embryo(SHAPE))
    calls: list[str] = []

    def convert(source: Path, target: Path, *rest: object, **more: object) -> object:
        calls.append(source.name[:7])
        if calls == ["image_0"]:
            convert_file(source, target)  # as another run, which holds the lock until after this
            raise BusyError(f"{target}: another run is making it")
        return convert_file(source, target, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr("lightsheet.datasets.convert.convert_file", convert)
    assert main([str(tmp_path / "*_angle.tif"), str(tmp_path / "out")]) == 0
    assert calls == ["image_0", "image_1", "image_0"]
    assert "1 written, 1 already done, 0 failed" in capfd.readouterr().err


def test_whatever_a_file_raises_the_others_are_converted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for number in range(2):
        write_tiff(tmp_path / f"image_{number}_nucleus_angle.tif", embryo(SHAPE))

    def convert(source: Path, *rest: object, **more: object) -> object:
        if "image_0" in source.name:
            raise ZeroDivisionError("deep in\na library")
        return convert_file(source, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr("lightsheet.datasets.convert.convert_file", convert)
    assert main([str(tmp_path / "*_angle.tif"), str(tmp_path / "out")]) == 1
    said = capfd.readouterr().err
    assert "image_0_nucleus_angle.tif: ZeroDivisionError: deep in a library" in said
    assert "1 written, 0 already done, 1 failed" in said
