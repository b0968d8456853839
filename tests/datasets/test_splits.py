"""Lists of pairs: what is read, and the one line each mistake is answered with."""

from pathlib import Path

import pytest

from lightsheet.core.errors import SplitError
from lightsheet.datasets.splits import Pair, read_pairs, write_pairs


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("a_angle.h5", "a_fused.h5", "b_angle.h5", "b_fused.h5"):
        (tmp_path / name).touch()
    return tmp_path


def listed(root: Path, text: str) -> Path:
    csv = root / "list.csv"
    csv.write_text(text)
    return csv


def test_pairs_are_read_relative_to_the_root_in_order(root: Path) -> None:
    csv = listed(root, "b_angle.h5;b_fused.h5\na_angle.h5 ; a_fused.h5\n")
    assert read_pairs(csv, root) == [
        Pair(root / "b_angle.h5", root / "b_fused.h5"),
        Pair(root / "a_angle.h5", root / "a_fused.h5"),
    ]


def test_absolute_paths_and_a_byte_order_mark_are_read(root: Path) -> None:
    csv = root / "list.csv"
    csv.write_text(f"{root}/a_angle.h5;{root}/a_fused.h5\n", encoding="utf-8-sig")
    assert read_pairs(csv, Path("elsewhere")) == [Pair(root / "a_angle.h5", root / "a_fused.h5")]


def test_what_is_written_is_read_back(root: Path) -> None:
    pairs = [Pair(root / "a_angle.h5", root / "a_fused.h5"), Pair(root / "b_angle.h5", root / "b_fused.h5")]
    write_pairs(root / "sub" / "new.csv", pairs, root)
    assert (root / "sub" / "new.csv").read_text() == "a_angle.h5;a_fused.h5\nb_angle.h5;b_fused.h5\n"
    assert read_pairs(root / "sub" / "new.csv", root) == pairs


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a_angle.h5\n", r"list\.csv:1: expected 'angle;fused', got 1 field in 'a_angle\.h5'"),
        (
            "a_angle.h5;a_fused.h5\nb_angle.h5,b_fused.h5\n",
            r"list\.csv:2: .*got 1 field .*separated by a comma",
        ),
        ("a_angle.h5\ta_fused.h5\n", r"list\.csv:1: .*separated by a tab; the separator is ';'"),
        ("a_angle.h5;a_fused.h5\n\nb_angle.h5;b_fused.h5\n", r"list\.csv:2: .*got a blank line"),
        ("a_angle.h5;a_fused.h5;x\n", r"list\.csv:1: .*got 3 fields"),
        ("a_angle.h5;\n", r"list\.csv:1: .*got 2 fields in 'a_angle.h5;'"),
        (
            "a_angle.h5;c_fused.h5\n",
            r"list\.csv:1: expected a file at .*c_fused\.h5, got none \(--data_root\)",
        ),
        (
            "a_angle.h5;a_fused.h5\na_angle.h5;a_fused.h5\n",
            r"expected each pair once, got 2 lines with a_angle",
        ),
        ("", r"got an empty file"),
    ],
)
def test_each_mistake_has_its_line(root: Path, text: str, message: str) -> None:
    with pytest.raises(SplitError, match=message):
        read_pairs(listed(root, text), root)


def test_a_missing_list_and_a_binary_list(root: Path) -> None:
    with pytest.raises(
        SplitError, match=r"none\.csv: expected a list of 'angle;fused' lines, got no such file"
    ):
        read_pairs(root / "none.csv", root)
    (root / "binary.csv").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(SplitError, match=r"binary\.csv: expected a text file"):
        read_pairs(root / "binary.csv", root)
