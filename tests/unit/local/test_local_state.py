"""The state file is private, whole at any moment, and one stack's."""

import base64
import os
import stat
import threading
from pathlib import Path

import pytest

from dispatcher.core.errors import LocalServiceError
from dispatcher.local.state import StackLock, StateFile


def test_first_change_makes_a_private_file_with_a_key(tmp_path: Path) -> None:
    """The file is mode 0600 and holds 32 random bytes that later changes keep."""
    file = StateFile(tmp_path / "a" / "b")
    assert file.read() is None
    state = file.change(lambda state: state.update(kafka={"port": 1}))
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    assert len(base64.b64decode(state["encryption_key"], validate=True)) == 32
    assert file.change(lambda _: None) == state == file.read()
    assert StateFile(tmp_path / "c").change(lambda _: None)["encryption_key"] != state["encryption_key"]


def test_writers_take_turns(tmp_path: Path) -> None:
    """No change of several writers at once gets lost."""
    StateFile(tmp_path).change(lambda state: state.update(count=0))

    def count() -> None:
        for _ in range(5):
            StateFile(tmp_path).change(lambda state: state.update(count=state["count"] + 1))

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert StateFile(tmp_path).read()["count"] == 20


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"version": 2, "encryption_key": "x"}', '{"version": 1}'])
def test_damaged_file_is_named_and_left_alone(tmp_path: Path, content: str) -> None:
    """A file that holds no state is never overwritten: it may hold the only key."""
    file = StateFile(tmp_path)
    file.path.write_text(content)
    with pytest.raises(LocalServiceError, match="holds no state"):
        file.change(lambda _: None)
    assert file.path.read_text() == content


def test_folder_that_can_not_be_written_is_named(tmp_path: Path) -> None:
    """A folder that can't be made is answered with a sentence that names the setting."""
    (tmp_path / "file").touch()
    folder = tmp_path / "file" / "folder"
    for act in (StackLock(folder).take, lambda: StateFile(folder).change(lambda _: None)):
        with pytest.raises(LocalServiceError, match="DISPATCHER_LOCAL_DIR") as caught:
            act()
        assert str(folder) in str(caught.value)


def test_second_stack_in_a_folder_is_refused_until_the_first_lets_go(tmp_path: Path) -> None:
    """The lock has one holder, who is named by process id; a released lock can be taken again."""
    first, second = StackLock(tmp_path), StackLock(tmp_path)
    first.take()
    with pytest.raises(LocalServiceError, match=f"process {os.getpid()}"):
        second.take()
    first.release()
    first.release()
    second.take()
    second.release()
