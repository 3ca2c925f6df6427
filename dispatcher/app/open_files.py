"""How many files, and so connections, this process may have open."""

import contextlib
import resource


def allow_open_files() -> None:
    """Raise the bound on open files to what the system allows: each connection, in or out, is one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def open_files_allowed() -> int:
    """Return how many files this process may have open."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return soft
