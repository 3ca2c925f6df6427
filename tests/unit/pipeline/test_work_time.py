"""Work is told from rest, with Linux's count and without."""

import os
import time

import pytest

from dispatcher.pipeline.work_time import WorkTime


@pytest.mark.parametrize("counted", [True, False])
def test_work_counts_and_rest_does_not(counted, monkeypatch):
    """What a thread does is counted, what it sleeps isn't."""
    if not counted:
        monkeypatch.setattr(os, "open", lambda *_: (_ for _ in ()).throw(FileNotFoundError))
    work = WorkTime()
    began = work.seconds()
    until = time.thread_time() + 0.05
    while time.thread_time() < until:
        pass
    worked = work.seconds() - began
    assert worked >= 0.045
    began, slept = work.seconds(), time.monotonic()
    time.sleep(0.3)
    # Waiting for a processor behind others may be counted in, the sleep itself never is.
    assert work.seconds() - began <= time.monotonic() - slept - 0.25
    work.close()
    work.close()
