"""What the header of a safetensors file says it holds; not believed before it fits the size of the file."""

import math
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from lightsheet.core.errors import ModelError, one_line
from lightsheet.core.fields import first_fault
from lightsheet.models.parts import MOST_JSON_BYTES, parsed, size_of

# Networks of 10^8 weights have 0.4 GiB.
MOST_WEIGHTS_BYTES = 1 << 30
_PREFIX_BYTES = 8
_BITS = {"F64": 64, "I64": 64, "U64": 64, "F32": 32, "I32": 32, "U32": 32, "F16": 16, "BF16": 16, "I16": 16}
_BITS |= {"U16": 16, "I8": 8, "U8": 8, "BOOL": 8, "F8_E4M3": 8, "F8_E5M2": 8}


class _Tensor(BaseModel):
    """What the header says of one tensor."""

    dtype: str
    shape: Annotated[list[Annotated[int, Field(ge=0, lt=1 << 40)]], Field(max_length=8)]
    data_offsets: tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=0)]]


_HEADER = TypeAdapter(dict[str, _Tensor])


def numbers_in(path: Path) -> int:
    """Count the weights that a safetensors file holds, by its header, which is compared with its size.

    Raises
    ------
    ModelError
        When it is no regular file or the header lies.
    """
    size = size_of(path)
    tensors = _tensors(path, size)
    if sum(math.prod(tensor.shape) * _BITS.get(tensor.dtype, 0) // 8 for tensor in tensors) != _data(
        path, size
    ):
        raise ModelError(
            f"{path}: expected whole safetensors weights, got sizes that are not those of the data"
        )
    return sum(math.prod(tensor.shape) for tensor in tensors)


def check_weights_size(path: Path) -> None:
    """Refuse a weights file that is larger than any, before all of it is read.

    Raises
    ------
    ModelError
    """
    size = size_of(path)
    if size > MOST_WEIGHTS_BYTES:
        raise ModelError(f"{path}: expected weights of at most {MOST_WEIGHTS_BYTES} bytes, got {size}")


def _data(path: Path, size: int) -> int:
    """Bytes behind the header."""
    with path.open("rb") as stream:
        header = int.from_bytes(stream.read(_PREFIX_BYTES), "little")
    return size - _PREFIX_BYTES - header


def _tensors(path: Path, size: int) -> list[_Tensor]:
    try:
        with path.open("rb") as stream:
            length = int.from_bytes(stream.read(_PREFIX_BYTES), "little")
            if not 0 < length <= min(MOST_JSON_BYTES, size - _PREFIX_BYTES):
                raise ValueError(f"a header of {length} bytes in a file of {size}")
            content = parsed(str(path), stream.read(length))
        if isinstance(content, dict):
            content.pop("__metadata__", None)
        return list(_HEADER.validate_python(content).values())
    except ValidationError as error:
        raise ModelError(
            f"{path}: expected whole safetensors weights, got a header with '{first_fault(error)}'"
        ) from error
    except (ValueError, OSError) as error:
        raise ModelError(
            f"{path}: expected whole safetensors weights, got '{one_line(str(error))}'"
        ) from error
