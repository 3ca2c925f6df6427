"""A process is told from a later one with the same id."""

import dataclasses
import os
import signal
import subprocess
import sys

from dispatcher.local.identity import ProcessIdentity

SLEEP = [sys.executable, "-I", "-S", "-c", "import time; time.sleep(60)"]
STUBBORN = "import signal, time; signal.signal(15, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"


def test_own_process_is_alive_and_survives_json() -> None:
    """This very process is found alive, also after a round through JSON."""
    me = ProcessIdentity.of(os.getpid())
    assert me is not None
    assert me.is_alive()
    assert ProcessIdentity.from_json(me.to_json()) == me


def test_same_id_with_another_start_or_boot_is_another_process() -> None:
    """A process id that is used again, or from before a restart of the machine, isn't taken for alive."""
    me = ProcessIdentity.of(os.getpid())
    assert not dataclasses.replace(me, start_ticks=me.start_ticks - 1).is_alive()
    assert not dataclasses.replace(me, boot_id="another").is_alive()


def test_signal_never_reaches_another_process_with_the_same_id() -> None:
    """A signal for the old owner of an id isn't delivered to the new one."""
    with subprocess.Popen(SLEEP) as process:
        identity = ProcessIdentity.of(process.pid)
        dataclasses.replace(identity, start_ticks=identity.start_ticks - 1).send(signal.SIGKILL)
        assert process.poll() is None
        identity.send(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL


def test_process_that_waits_to_be_reaped_is_dead() -> None:
    """A process that has ended counts as dead though its parent hasn't asked yet."""
    with subprocess.Popen([sys.executable, "-I", "-S", "-c", "input()"], stdin=subprocess.PIPE) as process:
        identity = ProcessIdentity.of(process.pid)
        process.stdin.close()
        identity.end(patience_seconds=30)
        assert process.returncode is None
        assert not identity.is_alive()


def test_end_insists_where_the_process_takes_no_notice() -> None:
    """A process that ignores SIGTERM is killed when the patience is over."""
    with subprocess.Popen([sys.executable, "-I", "-S", "-c", STUBBORN], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"deaf\n"
        ProcessIdentity.of(process.pid).end(patience_seconds=0.05)
        assert process.wait() == -signal.SIGKILL


def test_anything_but_an_identity_reads_as_none() -> None:
    """What no identity wrote is no identity."""
    for value in (None, {}, [], "x", {"pid": "a", "start_ticks": 1, "boot_id": ""}):
        assert ProcessIdentity.from_json(value) is None
