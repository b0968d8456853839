"""What is to be downloaded: the files of a BioStudies accession, or a plain list of addresses.

BioStudies (Sarkans et al., Nucleic Acids Research 2018) tells a study as JSON, with sections that hold files
or name file lists, which are JSON or tab-separated files themselves; the files lie below an HTTP address that
``/info`` names.
"""

import csv
import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from lightsheet.core.errors import LightsheetError, NotFoundError, SettingsError
from lightsheet.datasets.download.http import Web

BIOSTUDIES = "https://www.ebi.ac.uk/biostudies"
_ACCESSION = re.compile(r"[A-Z]{1,2}-[A-Z0-9]+(-[A-Z0-9]+)*\d*")
_HASH = re.compile(r"(md5|sha1|sha256|sha512):([0-9a-fA-F]{32,128})")
_MOST_JSON = 512 << 20


class ListingError(LightsheetError):
    """What a server tells of a study can't be understood."""


@dataclass(frozen=True)
class Remote:
    """One file to download.

    Attributes
    ----------
    url : its address
    path : where it goes, below the output folder; plain and relative
    size : bytes; None where nobody tells
    digest : "sha256:..." or another; empty where nobody tells
    """

    url: str
    path: Path
    size: int | None = None
    digest: str = ""


def of_accession(accession: str, web: Web, root: str = BIOSTUDIES) -> list[Remote]:
    """Return the files of a study.

    Raises
    ------
    SettingsError
        When the accession is none.
    NotFoundError
        When there is no such study, or it has no files.
    ListingError
        When the answer can't be understood.
    """
    if not _ACCESSION.fullmatch(accession):
        raise SettingsError(f"--accession: expected one such as S-BIAD1234, got '{accession}'")
    study = _json(web, f"{root}/api/v1/studies/{quote(accession)}", accession)
    info = _json(web, f"{root}/api/v1/studies/{quote(accession)}/info", accession)
    base = str(info.get("httpLink") or info.get("ftpLink", "").replace("ftp://", "https://", 1)).rstrip("/")
    if not base:
        raise ListingError(f"{accession}: expected the address of its files, got none (is it published?)")
    base = base if base.endswith("/Files") else f"{base}/Files"
    found: dict[Path, Remote] = {}
    for entry in _entries(study.get("section"), web, base, accession):
        path, size = str(entry.get("path") or entry.get("Files") or ""), entry.get("size")
        if path:
            remote = Remote(f"{base}/{quote(path)}", plain_path(path), _size(size), _digest(entry))
            found[remote.path] = remote
    if not found:
        raise NotFoundError(f"{accession}: expected files, got a study without any")
    return [found[path] for path in sorted(found)]


def of_list(where: Path) -> list[Remote]:
    """Return the files of a list: lines ``URL``, ``URL path`` or ``URL path sha256:...``; # begins a remark.

    Raises
    ------
    NotFoundError, SettingsError
        When there is no list, or a line is not as it should be.
    """
    if not where.is_file():
        raise NotFoundError(f"--urls {where}: expected a list of addresses, got nothing")
    found: dict[Path, Remote] = {}
    for number, line in enumerate(where.read_text(encoding="utf-8-sig").splitlines(), 1):
        words = line.partition("#")[0].split() if not line.startswith("http") else line.split()
        if not words:
            continue
        digest = next((word for word in words[1:] if _HASH.fullmatch(word)), "")
        rest = [word for word in words[1:] if word != digest]
        parts = urlsplit(words[0])
        if parts.scheme not in ("http", "https") or not parts.netloc or len(rest) > 1:
            raise SettingsError(
                f"{where}:{number}: expected 'http://... [path] [sha256:...]', got '{line[:80]}'"
            )
        name = rest[0] if rest else unquote(PurePosixPath(parts.path).name)
        remote = Remote(words[0], plain_path(name), None, digest.lower())
        if remote.path in found:
            raise SettingsError(f"{where}:{number}: expected files of unlike names, got {remote.path} again")
        found[remote.path] = remote
    if not found:
        raise NotFoundError(f"--urls {where}: expected addresses, got none")
    return list(found.values())


def plain_path(name: str) -> Path:
    """Return where a file goes: relative, within the output folder, without hidden or empty parts.

    Raises
    ------
    ListingError
        When a name leads elsewhere.
    """
    path = PurePosixPath(name.replace("\\", "/"))
    parts = [part for part in path.parts if part not in ("", ".")]
    bad = not parts or path.is_absolute() or ".." in parts or any(part.startswith(".") for part in parts)
    if bad or any(ord(sign) < 32 or sign in ':*?"<>|' for sign in name):
        raise ListingError(f"expected a path within the study, got '{name[:80]}'")
    return Path(*parts)


def _json(web: Web, url: str, what: str) -> dict[str, Any]:
    try:
        content = json.loads(web.text(url, _MOST_JSON))
    except ValueError as error:
        raise ListingError(f"{what}: expected JSON of {url}, got something else") from error
    if not isinstance(content, dict):
        raise ListingError(f"{what}: expected a JSON object of {url}, got {type(content).__name__}")
    return content


def _entries(section: Any, web: Web, base: str, what: str) -> Iterator[dict[str, Any]]:
    """Files of a section and of those within it; lists that it names are fetched."""
    if isinstance(section, list):
        for one in section:
            yield from _entries(one, web, base, what)
        return
    if not isinstance(section, dict):
        return
    yield from _files(section.get("files"))
    for attribute in section.get("attributes") or ():
        if str(attribute.get("name", "")).lower() == "file list" and attribute.get("value"):
            name = str(attribute["value"])
            text = web.text(f"{base}/{quote(name)}", _MOST_JSON)
            yield from _of_file_list(name, text, what)
    yield from _entries(section.get("subsections"), web, base, what)


def _files(files: Any) -> Iterator[dict[str, Any]]:
    """Entries of files, which may be in lists of lists."""
    if isinstance(files, list):
        for one in files:
            yield from _files(one)
    elif isinstance(files, dict):
        told = {
            str(a.get("name")): a.get("value") for a in files.get("attributes") or () if isinstance(a, dict)
        }
        yield {**told, **{name: value for name, value in files.items() if name != "attributes"}}


def _of_file_list(name: str, text: str, what: str) -> Iterator[dict[str, Any]]:
    if name.lower().endswith(".json"):
        try:
            yield from _files(json.loads(text))
        except ValueError as error:
            raise ListingError(f"{what}: expected JSON in {name}, got something else") from error
        return
    yield from csv.DictReader(io.StringIO(text), delimiter="\t")


def _size(value: Any) -> int | None:
    text = str(value) if value is not None else ""
    return int(text) if text.isdigit() else None


def _digest(entry: dict[str, Any]) -> str:
    for name, value in entry.items():
        key = str(name).lower().replace("-", "")
        if key in ("md5", "sha1", "sha256", "sha512") and isinstance(value, str):
            return f"{key}:{value.strip().lower()}"
    return ""
