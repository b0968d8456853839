"""Settings of the page's server."""

from dataclasses import dataclass
from pathlib import Path

from lightsheet.core.errors import SettingsError
from lightsheet.training.settings import check_numbers

LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class ServeSettings:
    """Serve a page on which stacks are fused, segmented and tracked, in a browser of this machine.

    The page needs no connection and shows nothing to other machines, unless --host says so; then a key is
    asked for, which is part of the address that is printed. Files that are dropped on the page, results and
    the list of jobs are kept in --folder, where they are found again after a restart. One job runs at a time;
    others wait.
    """

    folder: Path = Path("lightsheet_page")
    """folder of uploads and results"""
    host: str = "127.0.0.1"
    """address to listen on; default: this machine only"""
    port: int = 8737
    """port; 0: any that is free"""
    max_upload_gb: float = 8.0
    """largest file that is taken, GiB"""
    max_minutes: float = 120.0
    """longest time that a job may take"""
    most_waiting: int = 20
    """jobs that may wait; more are turned away"""
    keep_days: float = 14.0
    """finished jobs are removed after so many days"""
    open_browser: bool = False
    """open the page in a browser"""

    def check(self) -> None:
        """Raise when settings make no sense.

        Raises
        ------
        SettingsError
            Naming the flag.
        """
        check_numbers(
            self,
            positive=("max_upload_gb", "max_minutes", "most_waiting", "keep_days"),
            not_negative=("port",),
        )
        if self.port > 65535:
            raise SettingsError(f"--port: expected a number up to 65535, got {self.port}")

    @property
    def asks_for_key(self) -> bool:
        """Whether other machines can reach the page."""
        return self.host not in LOOPBACK
