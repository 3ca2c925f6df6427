"""The child's side of supervision: announce where the metrics are, and end with the parent.

The parent hands each child one end of a socket pair. The child writes JSON lines to it; the end of file on it
says that the parent is gone, however it went.
"""

import ctypes
import json
import os
import signal
import socket
import sys
import threading
import time
from dataclasses import dataclass

_PR_SET_PDEATHSIG = 1
GRACE_SECONDS = 22.0


@dataclass(slots=True)
class ControlChannel:
    """A child's end of the channel to its supervisor.

    Attributes:
        channel: The connected socket.
    """

    channel: socket.socket

    def announce(self, *, metrics_port: int) -> None:
        """Tell the supervisor on which loopback port `/metrics` and `/readyz` are.

        A parent that is gone is no error here: this process is about to be told to end.
        """
        try:
            self.channel.sendall(json.dumps({"metrics_port": metrics_port}).encode() + b"\n")
        except OSError:
            return


def join_supervisor(control_fd: int, parent_pid: int, *, grace_seconds: float = GRACE_SECONDS) -> ControlChannel:
    """Take up the channel and see to it that this process ends with its parent.

    When the parent goes, this process gets SIGTERM, so that it can drain; if it is still there after the grace
    time, SIGKILL. Call it first thing, from the main thread.

    Args:
        control_fd: The number of the inherited descriptor.
        parent_pid: The process that started this one.
        grace_seconds: From SIGTERM to SIGKILL.

    Raises:
        SystemExit: The parent is gone already.
    """
    signalled = _terminate_with_parent()
    if os.getppid() != parent_pid:
        sys.exit(1)
    os.set_inheritable(control_fd, False)
    channel = socket.socket(fileno=control_fd)
    channel.setblocking(True)
    watch = threading.Thread(
        target=_end_after_parent, args=(channel, signalled, grace_seconds), name="parent-watch", daemon=True
    )
    watch.start()
    return ControlChannel(channel)


def _terminate_with_parent() -> bool:
    """Ask the kernel for SIGTERM at the parent's death; False where it has no such thing.

    Source: prctl(2), PR_SET_PDEATHSIG.
    """
    if sys.platform != "linux":
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    return bool(libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0) == 0)


def _end_after_parent(channel: socket.socket, signalled: bool, grace_seconds: float) -> None:  # noqa: FBT001 - thread's args
    try:
        while channel.recv(1024):
            pass
    except OSError:
        pass
    if not signalled:
        os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(grace_seconds)
    os.kill(os.getpid(), signal.SIGKILL)
