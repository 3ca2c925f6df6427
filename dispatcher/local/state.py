"""What a local stack keeps between runs: ports, keys and who runs it, in one private file."""

import base64
import fcntl
import json
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from dispatcher.core.errors import LocalServiceError

_VERSION = 1


class StateFile:
    """The file `state.json` of a data folder: a JSON object that only the user can read.

    Every change replaces the file as a whole, so a reader sees the old one or the new one. Writers in several
    processes take turns.

    Args:
        folder: The data folder; made when first written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "state.json"

    def read(self) -> dict[str, Any] | None:
        """Read the state; None where nothing was ever written.

        Raises:
            LocalServiceError: the file can't be read, or holds no state.
        """
        try:
            state = json.loads(self.path.read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise LocalServiceError(
                f"{self.path} can't be read ({error.strerror}): run this as the user whose stack it is"
            ) from error
        except ValueError as error:
            raise LocalServiceError(self._damaged()) from error
        if not isinstance(state, dict) or state.get("version") != _VERSION or "encryption_key" not in state:
            raise LocalServiceError(self._damaged())
        return state

    def change(self, edit: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
        """Apply one edit to the newest state, and write it; the first makes the encryption key.

        Args:
            edit: Changes the state in place.

        Returns:
            The state as written.

        Raises:
            LocalServiceError: the folder can't be written, or the file holds no state.
        """
        with writable(self.folder):
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with (self.folder / "state.lock").open("a", encoding="utf-8") as turn:
                fcntl.flock(turn, fcntl.LOCK_EX)
                state = self.read() or _fresh()
                edit(state)
                self._replace(state)
        return state

    def _replace(self, state: dict[str, Any]) -> None:
        draft = self.path.with_suffix(".draft")
        draft.unlink(missing_ok=True)
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            json.dump(state, file, indent=2, sort_keys=True)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self.path)

    def _damaged(self) -> str:
        return (
            f"{self.path} holds no state that this version reads: mend it, or remove the folder {self.folder} "
            "with its data to start afresh"
        )


class StackLock:
    """The right to run the one stack of a data folder; it ends with the process that holds it.

    Args:
        folder: The data folder; made if missing.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file: IO[str] | None = None

    def take(self) -> None:
        """Take the lock, or say who has it.

        Raises:
            LocalServiceError: another stack runs in this folder, or the folder can't be written.
        """
        with writable(self._folder):
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            file = (self._folder / "lock").open("a+", encoding="utf-8")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            holder = file.read().strip() or "unknown"
            file.close()
            raise LocalServiceError(
                f"another local stack (process {holder}) runs in {self._folder}: stop it, or choose another folder "
                "with DISPATCHER_LOCAL_DIR"
            ) from error
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        self._file = file

    def release(self) -> None:
        """Give the lock back; nothing happens where it isn't held."""
        if self._file is not None:
            self._file.close()
            self._file = None


@contextmanager
def writable(folder: Path) -> Iterator[None]:
    """Turn an operating system's refusal to write below a folder into a sentence.

    Raises:
        LocalServiceError: the block ran into an OSError.
    """
    try:
        yield
    except OSError as error:
        raise LocalServiceError(
            f"the folder {folder} can't be written ({error.strerror or error}): "
            "give it to this user, or choose another with DISPATCHER_LOCAL_DIR"
        ) from error


def _fresh() -> dict[str, Any]:
    return {
        "version": _VERSION,
        "encryption_key": base64.b64encode(secrets.token_bytes(32)).decode("ascii"),
        "remembered": {},
    }
