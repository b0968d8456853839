"""Files of a model folder as data: regular files, and JSON of bounded size and depth.

A model may come from anywhere. Nothing is unpickled, and no size that a file tells is believed before it is
compared with what is there.
"""

import json
from pathlib import Path
from typing import Any

from lightsheet.core.errors import ModelError, NotFoundError, VolumeError, one_line
from lightsheet.volumes.foreign import check_json, check_regular

# The largest of ours, a guard fitted to hundreds of volumes, has 0.2 MiB.
MOST_JSON_BYTES = 4 << 20


def read_object(path: Path) -> dict[str, Any]:
    """Read a JSON object of a model.

    Raises
    ------
    ModelError
        When it is no regular file, too large or nested too deep, or something else than a JSON object.
    """
    size = size_of(path)
    if size > MOST_JSON_BYTES:
        raise ModelError(f"{path}: expected JSON of at most {MOST_JSON_BYTES} bytes, got {size}")
    try:
        content = parsed(str(path), path.read_bytes())
    except (ValueError, OSError) as error:
        raise ModelError(f"{path}: expected JSON, got '{one_line(str(error))}'") from error
    if not isinstance(content, dict):
        raise ModelError(f"{path}: expected a JSON object, got {type(content).__name__}")
    return content


def size_of(path: Path) -> int:
    """Bytes of a regular file of the model."""
    try:
        return check_regular(path).st_size
    except (NotFoundError, VolumeError) as error:
        raise ModelError(str(error).replace("a volume", "a file of the model")) from error


def parsed(source: str, text: bytes) -> Any:
    """Content of a JSON text that is not nested too deep."""
    check_json(source, text)
    return json.loads(text)
