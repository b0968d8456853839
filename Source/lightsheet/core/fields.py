"""JSON objects as frozen dataclasses, strictly: no other names or types, and no number that is not finite."""

import functools
import json
import reprlib
from typing import Annotated, Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray
from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    FiniteFloat,
    GetPydanticSchema,
    TypeAdapter,
    ValidationError,
    with_config,
)

from lightsheet.core.errors import one_line

T = TypeVar("T")

AboveZero = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]

strict = with_config(ConfigDict(extra="forbid", strict=True, allow_inf_nan=False))
"""Decorator of dataclasses that `object_of` makes."""

# What pydantic says in other words than the rest of the package.
_WORDS = {
    "Value error, ": "",
    "Input should be": "expected",
    "a valid ": "a ",
    "greater than or equal to": "at least",
    "less than or equal to": "at most",
    "greater than": "above",
    "less than": "below",
}
_NAMES = {
    "missing": "expected a value for {}, got none",
    "unexpected_keyword_argument": "expected only known names, got {}",
    "extra_forbidden": "expected only known names, got {}",
}
_TYPES = {
    "dataclass_type": "an object",
    "model_type": "an object",
    "tuple_type": "a list",
    "list_type": "a list",
}


def object_of(kind: type[T], content: Any) -> T:
    """Make a dataclass of a JSON object that has been parsed.

    Lists become tuples or, where a field is an `array_field`, arrays; dataclasses may hold further ones.

    Parameters
    ----------
    kind : the dataclass; it and those in it are decorated as `strict`, their annotations say types and, by
        pydantic's ``Field``, bounds

    Raises
    ------
    ValueError
        When a name is missing or unknown, or a value is of another type, out of its bounds or not finite: one
        line with the first such place, such as "gates.2.share: expected at most 1, got 3".
    """
    try:
        # Only pydantic's JSON mode takes lists for tuples, and objects for dataclasses, while it is strict.
        return cast(T, _adapter_of(cast(Any, kind)).validate_json(json.dumps(content)))
    except ValidationError as error:
        raise ValueError(first_fault(error)) from error
    except RecursionError as error:
        raise ValueError("expected JSON, got lists nested without end") from error


def first_fault(error: ValidationError) -> str:
    """One line about the first value that is wrong: where, what was wanted, what came."""
    fault = error.errors()[0]
    kind, way = fault["type"], [str(step) for step in fault["loc"]]
    if kind in _NAMES:
        text = _NAMES[kind].format(repr(way.pop()))
    elif kind == "json_invalid":
        text = f"expected JSON, got '{fault['msg'].removeprefix('Invalid JSON: ')}'"
    else:
        text = f"expected {_TYPES[kind]}" if kind in _TYPES else fault["msg"]
        for theirs, ours in _WORDS.items():
            text = text.replace(theirs, ours)
        if kind != "value_error":  # a check of ours, which says what came
            text = f"{text}, got {reprlib.repr(fault['input'])}"
    return one_line(f"{'.'.join(way)}: {text}" if way else text)


def array_field(axes: int, dtype: type[np.floating[Any]]) -> Any:
    """Annotation by which a field of arrays is read from nested lists of finite numbers.

    Parameters
    ----------
    axes : how deep the lists are nested
    dtype : type of the array's numbers; those that it can't hold are refused
    """
    nested: Any = FiniteFloat
    for _ in range(axes):
        nested = list[nested]

    def made(values: Any) -> NDArray[np.floating[Any]]:
        with np.errstate(over="ignore"):
            array = np.array(values, dtype)
        if not np.isfinite(array).all():
            raise ValueError(f"expected numbers that {dtype.__name__} can hold")
        return array

    checked = Annotated[nested, AfterValidator(made)]
    return GetPydanticSchema(lambda _source, handler: handler.generate_schema(checked))


@functools.cache
def _adapter_of(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)
