"""Replaces itself with a command that ends when the process that started it ends.

Run as a script, never imported for its function: `python -I -S launcher.py PARENT_PID COMMAND [ARGUMENT...]`.
It takes a session of its own, so that Ctrl-C in the terminal reaches only the parent, which drains first; asks
the kernel for SIGTERM at the parent's death; and makes the files private to the user. All three outlive `exec`,
so the command keeps this process's id. A script of its own rather than code between fork and exec, where a
process with threads must not run Python.

The kernel watches the parent's *thread*: start the command from one that lasts, best the main thread.

Source: prctl(2), PR_SET_PDEATHSIG.
"""

import ctypes
import os
import signal
import sys
from collections.abc import Sequence

_PR_SET_PDEATHSIG = 1


def become(parent_pid: int, command: Sequence[str]) -> None:
    """Turn this process into the command, tied to the parent's life; never returns.

    Args:
        parent_pid: The process that asked for the command.
        command: The program's path and its arguments.

    Raises:
        OSError: the command can't be run.
        SystemExit: the parent has ended already.
    """
    os.setsid()
    os.umask(0o077)
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent_pid:  # it ended before the kernel was asked: nobody would tell
        raise SystemExit(1)
    os.execv(command[0], list(command))  # noqa: S606  # a path of our own and a list: no shell reads it


if __name__ == "__main__":
    become(int(sys.argv[1]), sys.argv[2:])
