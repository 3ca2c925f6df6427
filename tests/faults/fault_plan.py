"""What a test asks of a faulty worker, in a folder that both look into while the worker runs.

The test's side is `FaultPlan`; the worker's is `faulty_worker.py`. Each fault is one file: to ask for it is to write
the file. A kill removes its own file first, so that the worker's successor lives.
"""

from pathlib import Path
from typing import Literal

KillPoint = Literal["log", "produced", "commit"]
"""Where a worker kills itself.

`log`: an answer is there, and the delivery log is about to be written. `produced`: Kafka has just acknowledged a retry
or a dead letter, of which the log doesn't know yet. `commit`: such a record was acknowledged since the last commit, and
the next one is about to be sent.
"""


class FaultPlan:
    """The faults of one worker, and of those that are started after it.

    Args:
        folder: Theirs alone; exists.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def command(self) -> tuple[str, ...]:
        """The arguments of a Python that runs a worker with these faults."""
        return ("-m", "tests.faults.faulty_worker", str(self.folder), "worker")

    def kill_at(self, point: KillPoint, count: int) -> None:
        """Let the worker end itself by SIGKILL when it has come to this point so often from now on."""
        self._write(f"kill-{point}", str(count))

    def spare(self, point: KillPoint) -> None:
        """Let it live on after all."""
        self.done(f"kill-{point}")

    def refuse(self, *topics: str) -> None:
        """Let produces to these topics fail, and no others; none: all succeed again."""
        self._write("refused", "\n".join(topics))

    def shift_clock(self, seconds: float) -> None:
        """Let the wall clock be off by so much; the monotonic one goes on as it does."""
        self._write("clock", str(seconds))

    def _write(self, name: str, text: str) -> None:
        # Never seen half written.
        draft = self.folder / f".{name}"
        draft.write_text(text)
        draft.replace(self.folder / name)

    # The worker's side

    def read(self, name: str) -> str:
        """Give what stands in a file; empty where it isn't there."""
        try:
            return (self.folder / name).read_text()
        except FileNotFoundError:
            return ""

    def done(self, name: str) -> None:
        """Remove a file."""
        (self.folder / name).unlink(missing_ok=True)
