"""``lightsheet serve``, ``serve_app.py``: the page in the browser."""

import socket
import threading
import webbrowser

from lightsheet.cli.args import run_command
from lightsheet.core.errors import EXIT_OK, MissingExtraError, SettingsError
from lightsheet.core.progress import LOG
from lightsheet.operate.web.settings import ServeSettings

_SECONDS_TO_END = 15


def run(settings: ServeSettings) -> int:
    """Serve until Ctrl-C."""
    settings.check()
    try:
        import uvicorn  # an extra

        from lightsheet.operate.web.app import make_app  # needs the extra
    except ImportError as error:
        raise MissingExtraError(
            f"serve: expected the library '{error.name}', got none; install what the page needs with: "
            'pip install "lightsheet[page]"'
        ) from error
    settings.folder.mkdir(parents=True, exist_ok=True)
    listener = _listen(settings)
    app = make_app(settings)
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    key = f"?key={app.state.gate.key}" if app.state.gate.key else ""
    address = f"http://{host}:{listener.getsockname()[1]}/{key}"
    LOG.info("the page is at %s (Ctrl-C ends it; files are in %s)", address, settings.folder.resolve())
    if settings.open_browser:
        threading.Timer(1.0, webbrowser.open, (address,)).start()
    config = uvicorn.Config(
        app, log_level="warning", timeout_graceful_shutdown=_SECONDS_TO_END, server_header=False
    )
    uvicorn.Server(config).run(sockets=[listener])
    return EXIT_OK


def _listen(settings: ServeSettings) -> socket.socket:
    """Open the port before anything is said of it."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
    except OSError as error:
        listener.close()
        raise SettingsError(
            f"--host {settings.host} --port {settings.port}: expected an address to listen on, "
            f"got '{error.strerror}'; --port 0 takes a free one"
        ) from error
    return listener


def main(argv: list[str] | None = None) -> int:
    """Run ``serve_app.py`` with ``argv``."""
    return run_command(ServeSettings, run, argv, prog="serve_app.py")


if __name__ == "__main__":
    raise SystemExit(main())
