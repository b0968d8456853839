"""JSON objects as dataclasses: what is right is read, what is wrong is one line that says where."""

import dataclasses
import json
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import Field

from lightsheet.core.fields import AboveZero, NotNegative, Share, array_field, object_of, strict


@strict
@dataclass(frozen=True)
class Part:
    share: Share
    sizes: tuple[Annotated[int, Field(ge=1, le=10)], ...] = ()


@strict
@dataclass(frozen=True)
class Whole:
    name: str
    parts: tuple[Part, ...]
    width: AboveZero
    left: NotNegative = 0.0
    axis: Literal["z", "y"] | None = None
    exact: bool = False


@strict
@dataclass(frozen=True)
class Tables:
    row: Annotated[NDArray[np.float64], array_field(1, np.float64)]
    table: Annotated[NDArray[np.float32], array_field(2, np.float32)]


RIGHT: dict[str, Any] = {"name": "a", "parts": [{"share": 1, "sizes": [1, 10]}], "width": 2}


def test_objects_within_objects_and_lists_are_read_as_they_were_written() -> None:
    whole = Whole("a", (Part(0.5, (1, 2)), Part(0.0)), 1e-3, 2.0, "y", True)
    assert object_of(Whole, json.loads(json.dumps(dataclasses.asdict(whole)))) == whole
    read = object_of(Whole, RIGHT)
    assert read == Whole("a", (Part(1.0, (1, 10)),), 2.0)
    assert isinstance(read.width, float)
    assert isinstance(read.parts, tuple)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"name": 3}, "name: expected a string, got 3"),
        ({"name": None}, "name: expected a string, got None"),
        ({"parts": 3}, "parts: expected a list, got 3"),
        ({"parts": [3]}, "parts.0: expected an object, got 3"),
        ({"parts": [{}]}, "parts.0: expected a value for 'share', got none"),
        ({"parts": [{"share": 1.5}]}, "parts.0.share: expected at most 1, got 1.5"),
        ({"parts": [{"share": -1}]}, "parts.0.share: expected at least 0, got -1"),
        ({"parts": [{"share": 1, "sizes": [1.0]}]}, "parts.0.sizes.0: expected a integer, got 1.0"),
        (
            {"parts": [{"share": 1, "sizes": [11]}]},
            "parts.0.sizes.0: expected at most 10, got 11",
        ),
        ({"parts": [{"share": 1, "odd": 0}]}, "parts.0: expected only known names, got 'odd'"),
        ({"odd\x1b\n": 0}, "expected only known names, got 'odd\\x1b\\n'"),
        ({"width": 0}, "width: expected above 0, got 0"),
        ({"width": "2"}, "width: expected a number, got '2'"),
        ({"width": True}, "width: expected a number, got True"),
        ({"width": float("nan")}, "width: expected a finite number, got nan"),
        ({"width": float("inf")}, "width: expected a finite number, got inf"),
        ({"left": -0.5}, "left: expected at least 0, got -0.5"),
        ({"axis": "x"}, "axis: expected 'z' or 'y', got 'x'"),
        ({"exact": 1}, "exact: expected a boolean, got 1"),
    ],
)
def test_what_is_wrong_is_one_line(changes: dict[str, Any], line: str) -> None:
    with pytest.raises(ValueError) as told:
        object_of(Whole, RIGHT | changes)
    assert str(told.value) == line


def test_what_is_wrong_is_a_short_line() -> None:
    values: list[Any] = [10**400, "x" * 10_000, [0] * 10_000, {"a": [{}] * 1000}]
    for value in values:
        with pytest.raises(ValueError, match=r"^width: expected") as told:
            object_of(Whole, RIGHT | {"width": value})
        assert len(str(told.value)) < 200
        assert "\n" not in str(told.value)


@pytest.mark.parametrize("depth", [300, 900, *range(960, 1000, 3)])
def test_lists_nested_without_end_are_one_line(depth: int) -> None:
    nested: list[Any] = []
    for _ in range(depth):
        nested = [nested]
    with pytest.raises(ValueError, match="expected JSON, got") as told:
        object_of(Whole, RIGHT | {"width": nested})
    assert len(str(told.value)) < 200


def test_a_text_that_is_no_unicode_is_one_line() -> None:
    with pytest.raises(ValueError, match=r"expected JSON, got '.*hex escape"):
        object_of(Whole, RIGHT | {"name": "\ud800"})


@pytest.mark.parametrize("content", [3, None, [], "text", [RIGHT]])
def test_something_else_than_an_object(content: Any) -> None:
    with pytest.raises(ValueError, match=r"^expected an object, got"):
        object_of(Whole, content)


def test_arrays_are_read_from_lists() -> None:
    read = object_of(Tables, {"row": [1, 2.5], "table": [[1, 2], [3, 4]]})
    np.testing.assert_array_equal(read.row, np.array([1, 2.5]))
    np.testing.assert_array_equal(read.table, np.array([[1, 2], [3, 4]], np.float32))
    assert (read.row.dtype, read.table.dtype) == (np.float64, np.float32)
    assert object_of(Tables, {"row": [], "table": [[], []]}).table.shape == (2, 0)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"row": 3}, "row: expected a list, got 3"),
        ({"row": [[1]]}, r"row.0: expected a number, got \[1\]"),
        ({"row": [1, float("nan")]}, "row.1: expected a finite number, got nan"),
        ({"row": [10**400]}, r"row.0: expected a (finite )?number, got 1000"),
        ({"table": [1]}, "table.0: expected a list, got 1"),
        ({"table": [[1], [1, 2]]}, "table: .*inhomogeneous"),
        ({"table": [[1e300]]}, "table: expected numbers that float32 can hold"),
    ],
)
def test_lists_that_are_no_arrays(changes: dict[str, Any], line: str) -> None:
    with pytest.raises(ValueError, match=f"^{line}"):
        object_of(Tables, {"row": [], "table": [[]]} | changes)
