"""The page's server: routes over the jobs; all work is done elsewhere."""

import contextlib
import dataclasses
import shutil
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from starlette.concurrency import run_in_threadpool
from starlette.responses import FileResponse, JSONResponse, Response

import lightsheet
from lightsheet.core.errors import LightsheetError, NotFoundError, OutputError, one_line
from lightsheet.core.memory import GIB
from lightsheet.operate.web.commands import Options
from lightsheet.operate.web.gate import Gate
from lightsheet.operate.web.jobs import Job, JobStore, PageError
from lightsheet.operate.web.runner import Runner, choice_for, look_at
from lightsheet.operate.web.samples import SAMPLES, sample_path
from lightsheet.operate.web.settings import ServeSettings
from lightsheet.operate.web.slices import Wanted, layers_of, picture
from lightsheet.operate.web.uploads import ARCHIVES, plain_name, receive, unpacked
from lightsheet.operate.workers import warnings_in

_HERE = Path(__file__).parent
_ASSETS = {"page.css": "text/css", "page.js": "text/javascript", "viewer.js": "text/javascript"}
_LOG_SHOWN = 20_000
_MOST_FILES = 500


def make_app(settings: ServeSettings, key: str | None = None) -> FastAPI:
    """Make the application; its state has ``gate``, ``store`` and ``runner``.

    Parameters
    ----------
    settings : of the server
    key : see `gate.Gate`

    Raises
    ------
    SettingsError
        When settings make no sense.
    """
    settings.check()
    store = JobStore(settings.folder, settings.keep_days)
    runner = Runner(store, settings)

    @contextlib.asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        runner.start()
        yield
        await run_in_threadpool(runner.close)

    app = FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None, title="lightsheet")
    gate = Gate(settings, key)
    app.state.gate, app.state.store, app.state.runner = gate, store, runner
    app.middleware("http")(gate)
    _tell_errors(app)
    _page(app, settings)
    _uploads(app, settings, store)
    _jobs(app, store, runner)
    _results(app, store)
    return app


def _tell_errors(app: FastAPI) -> None:
    """Turn errors into one line of JSON."""

    @app.exception_handler(LightsheetError)
    async def told(_request: Request, error: LightsheetError) -> JSONResponse:
        status = 404 if isinstance(error, NotFoundError) else 507 if isinstance(error, OutputError) else 400
        return JSONResponse({"error": one_line(error)}, status)

    @app.exception_handler(RequestValidationError)
    async def wrong(_request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:])
        return JSONResponse({"error": one_line(f"{where}: {first['msg']}")}, 422)


def _page(app: FastAPI, settings: ServeSettings) -> None:
    """Serve the page itself and what it is made of."""

    @app.get("/")
    async def page() -> FileResponse:
        return FileResponse(_HERE / "page.html", media_type="text/html")

    @app.get("/assets/{name}")
    async def asset(name: str) -> FileResponse:
        if name not in _ASSETS:
            raise NotFoundError("expected a part of this page, got another name")
        return FileResponse(_HERE / name, media_type=_ASSETS[name])

    @app.get("/api/about")
    async def about() -> dict[str, Any]:
        return {
            "version": lightsheet.__version__,
            "samples": [{"name": name, **about} for name, about in SAMPLES.items()],
            "max_upload_bytes": int(settings.max_upload_gb * GIB),
            "most_minutes": settings.max_minutes,
        }


def _uploads(app: FastAPI, settings: ServeSettings, store: JobStore) -> None:
    """Take files from the browser, or a sample."""

    @app.post("/api/uploads")
    async def upload(request: Request, name: Annotated[str, Query(max_length=1000)]) -> dict[str, Any]:
        plain = plain_name(name)
        told = request.headers.get("content-length", "")
        size = int(told) if told.isascii() and told.isdigit() else None
        number, folder = store.new(plain)

        async def fill(target: Path) -> None:
            await receive(request.stream(), target, int(settings.max_upload_gb * GIB), size)

        return await _new_job(store, number, folder, plain, fill)

    @app.post("/api/samples/{name}")
    async def sample(name: str) -> dict[str, Any]:
        source = sample_path(name)
        number, folder = store.new(source.name)

        async def fill(target: Path) -> None:
            await run_in_threadpool(shutil.copyfile, source, target)

        return await _new_job(store, number, folder, source.name, fill)


async def _new_job(
    store: JobStore, number: str, folder: Path, name: str, fill: Callable[[Path], Any]
) -> dict[str, Any]:
    """Write a file, look at it, and keep it as a job; nothing is left of one that can't be used."""
    target = folder / "input" / name
    try:
        await fill(target)
        if target.suffix in ARCHIVES:
            target = await run_in_threadpool(unpacked, target)
        stored = str(target.relative_to(folder))
        look = await run_in_threadpool(look_at, folder, stored)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return _shown(store.put(Job(number, name, stored, look, created=time.time())))


def _jobs(app: FastAPI, store: JobStore, runner: Runner) -> None:
    """Begin, watch, stop and remove jobs."""

    @app.get("/api/jobs")
    async def jobs() -> list[dict[str, Any]]:
        return [_shown(job) for job in store.all()]

    @app.get("/api/jobs/{number}")
    async def job(number: str) -> dict[str, Any]:
        return _followed(store, runner, store.get(number))

    @app.post("/api/jobs/{number}/start")
    async def begin(number: str, options: Options) -> dict[str, Any]:
        return _followed(store, runner, runner.submit(number, options))

    @app.post("/api/jobs/{number}/stop")
    async def stop(number: str) -> dict[str, Any]:
        return _shown(await run_in_threadpool(runner.stop, number))

    @app.post("/api/jobs/{number}/copy")
    async def copy(number: str) -> dict[str, Any]:
        return _shown(await run_in_threadpool(store.copy, number))

    @app.delete("/api/jobs/{number}")
    async def remove(number: str) -> dict[str, Any]:
        if store.get(number).state in ("running", "waiting"):
            raise PageError("expected a job that is over, got one that waits or runs; stop it first")
        await run_in_threadpool(store.remove, number)
        return {}

    @app.post("/api/jobs/{number}/choice")
    async def choice(number: str, options: Options) -> dict[str, str]:
        found = await run_in_threadpool(choice_for, store.folder(number), store.get(number), options)
        return {"text": found}


def _results(app: FastAPI, store: JobStore) -> None:
    """Show and hand out what a job made."""

    @app.get("/api/jobs/{number}/layers")
    async def layers(number: str) -> list[dict[str, Any]]:
        return layers_of(store.folder(number))

    @app.get("/api/jobs/{number}/picture.png")
    def plane(
        number: str,
        layer: str,
        axis: Annotated[str, Query(pattern="^[zyx]$")] = "z",
        index: int = 0,
        time: int = 0,
        low: float | None = None,
        high: float | None = None,
        over: str = "",
        minus: str = "",
        project: bool = False,
        turned: bool = False,
    ) -> Response:
        wanted = Wanted(layer, axis, index, time, low, high, over, minus, project, turned)
        return Response(picture(store.folder(number), wanted), media_type="image/png")

    @app.get("/api/jobs/{number}/files/{name:path}")
    def file(number: str, name: str) -> FileResponse:
        folder = store.folder(number) / "output"
        for path in _files(folder):
            if str(path.relative_to(folder)) == name:
                return FileResponse(path, filename=path.name, media_type="application/octet-stream")
        raise NotFoundError("expected a file of this job, got another name")


def _files(folder: Path) -> list[Path]:
    """Files that a job made; folders of many (OME-Zarr) are not taken apart."""
    found = (path for path in sorted(folder.rglob("*")) if path.is_file() and not path.is_symlink())
    plain = [
        path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]
    return [path for path in plain if ".zarr" not in str(path) and ".geff" not in str(path)][:_MOST_FILES]


def _shown(job: Job) -> dict[str, Any]:
    return dataclasses.asdict(job)


def _followed(store: JobStore, runner: Runner, job: Job) -> dict[str, Any]:
    """Return a job with how far it is, what was said and what it made."""
    folder = store.folder(job.id)
    log = folder / "log.txt"
    text = ""
    if log.is_file():
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _LOG_SHOWN))
            text = file.read().decode("utf-8", "replace")
    text = text.replace(f"{folder.resolve()}/", "")
    output = folder / "output"
    files = [
        {"name": str(path.relative_to(output)), "bytes": path.stat().st_size}
        for path in (_files(output) if job.state == "done" else [])
    ]
    return {
        **_shown(job),
        "place": runner.place(job.id) if job.state == "waiting" else 0,
        "progress": runner.progress(job.id) if job.state == "running" else {},
        "log": text,
        "warnings": warnings_in(text),
        "files": files,
        "now": time.time(),
    }
