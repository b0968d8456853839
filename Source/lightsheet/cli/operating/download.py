"""``download_biostudies.py``: files of a BioStudies accession, or of a list of addresses."""

import sys
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from lightsheet.cli.args import run_command
from lightsheet.core.errors import EXIT_OK, EXIT_SOME_FAILED, NotFoundError, SettingsError
from lightsheet.core.memory import GIB
from lightsheet.core.progress import LOG

_SHOWN = 20


@dataclass(frozen=True)
class DownloadSettings:
    """Download the files of a study of BioStudies, such as the challenge's data, or those of a list.

    Several files are fetched at a time. One that breaks off goes on where it was, in a later run too; each is
    checked by the digest or the size that is told, and is there whole or not at all. Archives are unpacked
    beside themselves. A run that is given again fetches only what is missing.
    """

    output_dir: Path
    """folder of the files"""
    accession: str | None = None
    """accession of the study, such as S-BIAD1234"""
    urls: Path | None = None
    """list instead, a line 'http://... [path] [sha256:...]' for each file"""
    only: tuple[str, ...] = ()
    """patterns of paths, such as '*.zip' or 'study_1/*'; default: all files"""
    dry_run: bool = False
    """tell what would be downloaded, and how much, and end"""
    unzip: bool = True
    """unpack archives"""
    jobs: int = 4
    """files at a time"""
    tries: int = 6
    """tries of each request, with longer and longer pauses"""
    server: str = "https://www.ebi.ac.uk/biostudies"
    """address of BioStudies"""


def run(settings: DownloadSettings) -> int:
    """Download; 1 if some files could not be had."""
    from lightsheet.datasets.download.fetch import check_jobs, fetch_all  # not for --help
    from lightsheet.datasets.download.http import Web
    from lightsheet.datasets.download.listing import of_accession, of_list

    if (settings.accession is None) == (settings.urls is None):
        raise SettingsError("--accession, --urls: expected one of both, got both or none")
    check_jobs(settings.jobs)
    if settings.tries < 1:
        raise SettingsError(f"--tries: expected at least 1, got {settings.tries}")
    web = Web(settings.tries)
    if settings.urls is not None:
        files = of_list(settings.urls)
    else:
        files = of_accession(str(settings.accession), web, settings.server.rstrip("/"))
    if settings.only:
        files = [one for one in files if any(fnmatch(str(one.path), pattern) for pattern in settings.only)]
        if not files:
            raise NotFoundError(f"--only {' '.join(settings.only)}: expected files that fit, got none")
    size = sum(one.size or 0 for one in files)
    unknown = sum(one.size is None for one in files)
    told = f"{len(files)} files, {size / GIB:.2f} GiB" + (f", {unknown} of unknown size" if unknown else "")
    LOG.info("%s", told)
    if settings.dry_run:
        for one in files[:_SHOWN]:
            sys.stdout.write(f"{one.path}  {'?' if one.size is None else one.size}\n")
        if len(files) > _SHOWN:
            sys.stdout.write(f"... and {len(files) - _SHOWN} more\n")
        return EXIT_OK
    done = fetch_all(files, settings.output_dir, web, jobs=settings.jobs, unzip=settings.unzip)
    LOG.info(
        "%s: %d downloaded, %d there already, %d missing",
        settings.output_dir,
        done.done,
        done.kept,
        len(done.failures),
    )
    return EXIT_SOME_FAILED if done.failures else EXIT_OK


def main(argv: list[str] | None = None) -> int:
    """Run ``download_biostudies.py`` with ``argv``; flags may be written with hyphens."""
    words = list(sys.argv[1:] if argv is None else argv)
    plain = [
        f"--{word[2:].replace('-', '_')}" if word.startswith("--") and "=" not in word else word
        for word in words
    ]
    return run_command(DownloadSettings, run, plain, prog="download_biostudies.py")


if __name__ == "__main__":
    raise SystemExit(main())
