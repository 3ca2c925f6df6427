"""The launcher ties a command to its parent's life."""

import os
import signal
import subprocess
import sys
import time

from dispatcher.local import launcher
from dispatcher.local.identity import ProcessIdentity

SLEEP = "import os, time; print(os.getpid(), os.getsid(0), flush=True); time.sleep(60)"
PARENT = (
    "import subprocess, sys, os\n"
    "subprocess.Popen([sys.executable, '-I', '-S', sys.argv[1], str(os.getpid()), *sys.argv[2:]])\n"
    "import time; time.sleep(60)\n"
)


def test_command_ends_when_its_parent_is_killed() -> None:
    """SIGKILL of the parent ends the command, which has a session and its launcher's process id."""
    command = [sys.executable, "-I", "-S", "-c", SLEEP]
    with subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", PARENT, launcher.__file__, *command], stdout=subprocess.PIPE
    ) as parent:
        pid, session = map(int, parent.stdout.readline().split())
        child = ProcessIdentity.of(pid)
        assert session == pid
        assert child.is_alive()
        parent.kill()
        parent.wait()
        deadline = time.monotonic() + 20
        while child.is_alive():
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_command_of_a_dead_parent_never_runs() -> None:
    """A parent that ended before the kernel was asked leaves no command behind."""
    done = subprocess.run(
        [sys.executable, "-I", "-S", launcher.__file__, "1", sys.executable, "-c", "print('ran')"],
        stdout=subprocess.PIPE,
        check=False,
    )
    assert os.getpid() != 1
    assert (done.returncode, done.stdout) == (1, b"")


def test_files_of_the_command_are_private() -> None:
    """The command's files are readable by this user only, and SIGTERM still ends it."""
    code = "import os, time; print(oct(os.umask(0)), flush=True); time.sleep(60)"
    with subprocess.Popen(
        [sys.executable, "-I", "-S", launcher.__file__, str(os.getpid()), sys.executable, "-I", "-S", "-c", code],
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout.readline() == b"0o77\n"
        process.terminate()
        assert process.wait() == -signal.SIGTERM
