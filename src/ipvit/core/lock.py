"""One run at a time on a run folder."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path
from types import TracebackType

from ipvit.core.links import open_in_place
from ipvit.errors import InputError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

_HELD = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES)


class FolderLostError(OSError):
    """The folder of a run was deleted, moved or replaced while it was held."""

    def __init__(self, root: Path) -> None:
        super().__init__(
            f"the folder {str(root)!r} was deleted or replaced while the run went on, and what it held is lost; "
            "run the same command again"
        )


class FolderLock:
    """Hold a run folder; the operating system lets go of it when the process ends, however it ends.

    Args:
        root: the run folder.
        shared: hold it together with others who hold it shared, as the processes of one run do; nobody else gets it.

    Attributes:
        supported: False where the file system has no locks; then nobody is kept out.

    Raises:
        InputError: another process holds the folder.
    """

    def __init__(self, root: Path, *, shared: bool = False) -> None:
        self.path = root / ".lock"
        self.supported = fcntl is not None
        self._shared = shared
        self._file = None

    def __enter__(self) -> FolderLock:
        self._file = os.fdopen(open_in_place(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND), "a+")
        if os.fstat(self._file.fileno()).st_nlink > 1:  # what is written here would be in another file too
            self._close()
            raise InputError(f"{str(self.path)!r} is another file under a second name; remove it")
        self._lock(shared=self._shared)
        if not self._shared:
            self._file.truncate(0)
            self._file.write(f"process {os.getpid()} on {socket.gethostname()}")
            self._file.flush()
        os.register_at_fork(after_in_child=self._close)  # a worker that outlives us must not hold the folder
        return self

    def check(self) -> None:
        """Make sure that the folder is still the one that is held.

        Raises:
            FolderLostError: it is not: another process may hold what has its name now.
        """
        if self._file is None:
            return
        try:
            same = os.path.samestat(os.fstat(self._file.fileno()), self.path.stat())
        except (FileNotFoundError, NotADirectoryError):
            same = False
        if not same:
            raise FolderLostError(self.path.parent)

    def share(self) -> None:
        """Let the other processes of this run hold the folder too."""
        self._lock(shared=True)

    def _lock(self, *, shared: bool) -> None:
        if fcntl is None or self._file is None:
            return
        try:
            fcntl.flock(self._file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in _HELD:  # ENOLCK, ENOSYS, EOPNOTSUPP: some network drives
                self.supported = False
                return
            self._file.seek(0)
            holder = self._file.read().strip() or "another process"
            self._close()
            raise InputError(
                f"the run folder {str(self.path.parent)!r} is in use by {holder}; wait, or give another --out"
            ) from None

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()
