"""One process at a time on a run folder."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from types import TracebackType

from ipvit.errors import InputError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None


class FolderLock:
    """Hold a run folder; the operating system lets go of it when the process ends, however it ends.

    Raises:
        InputError: another process holds the folder.
    """

    def __init__(self, root: Path) -> None:
        self.path = root / ".lock"
        self._file = None

    def __enter__(self) -> FolderLock:
        file = self.path.open("a+")
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                file.seek(0)
                holder = file.read().strip() or "another process"
                file.close()
                raise InputError(
                    f"the run folder {str(self.path.parent)!r} is in use by {holder}; wait, or give another --out"
                ) from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        self._file = file
        os.register_at_fork(after_in_child=self._forget)  # a worker that outlives us must not hold the folder
        return self

    def _forget(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
