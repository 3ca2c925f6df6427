"""A process whose event loop stands still."""

import signal
import subprocess
import sys
import time

import pytest

PROGRAM = """
import asyncio, sys, time
from dispatcher.app.stuck_loop import stuck_loop_watch

async def main():
    with stuck_loop_watch(1.0):
        for _ in range(15):
            await asyncio.sleep(0.1)
        print("turned", flush=True)
        {then}

asyncio.run(main())
time.sleep(1.5)
print("ended", flush=True)
"""


@pytest.mark.parametrize(
    ("then", "code", "printed"), [("time.sleep(60)", 70, ["turned"]), ("pass", 0, ["turned", "ended"])]
)
def test_only_a_loop_that_stands_still_ends_its_process(then, code, printed):
    """A loop that turns is left alone, as is what comes after the watch; one that is held up ends with code 70."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(then=then)], capture_output=True, text=True, check=False, timeout=40
    )
    assert (done.returncode, done.stdout.split()) == (code, printed), done.stderr
    assert ("has not turned" in done.stderr) is (code == 70)


def test_a_process_that_was_stopped_as_a_whole_goes_on():
    """Whoever was paused for longer than the loop may stand still isn't ended when he goes on."""
    program = [sys.executable, "-c", PROGRAM.format(then="await asyncio.sleep(3)")]
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "turned\n"
        process.send_signal(signal.SIGSTOP)
        time.sleep(2.5)
        process.send_signal(signal.SIGCONT)
        assert process.communicate(timeout=40)[0] == "ended\n"
    assert process.returncode == 0
