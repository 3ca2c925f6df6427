"""Kafka's archives are downloaded once, whole, and found again without a network."""

import importlib
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dispatcher.core.errors import LocalServiceError
from dispatcher.local import classpath
from dispatcher.local.classpath import KafkaClasspath


class FakeMaven:
    """Stands for jgo's Maven layer: two needed archives and one that only tests of Kafka need."""

    def __init__(self, failures: int = 0) -> None:
        self.failures = failures
        self.downloads: list[str] = []

    def MavenContext(self, *, repo_cache: Path, **_: Any) -> Any:  # noqa: N802
        """Give a context that resolves whatever is asked for."""

        def dependency(name: str, scope: str = "compile") -> Any:
            def resolve() -> Path:
                path = repo_cache / name.replace(":", "-") / "a.jar"
                if not path.exists():
                    path.parent.mkdir(parents=True, exist_ok=True)
                    if self.failures:
                        self.failures -= 1
                        path.write_bytes(b"PK half of it")
                        raise ConnectionError("the line broke")
                    self.downloads.append(name)
                    with zipfile.ZipFile(path, "w") as jar:
                        jar.writestr("x", name)
                return path

            return SimpleNamespace(scope=scope, artifact=SimpleNamespace(resolve=resolve))

        resolver = SimpleNamespace(
            resolve=lambda wanted: (wanted, [dependency("lib:1", "runtime"), dependency("junit:1", "test")])
        )
        return SimpleNamespace(create_dependency=dependency, resolver=resolver)


@pytest.fixture
def maven(monkeypatch: pytest.MonkeyPatch) -> FakeMaven:
    fake = FakeMaven()
    monkeypatch.setattr(classpath, "import_jgo", lambda: fake)
    return fake


def test_archives_are_downloaded_once(maven: FakeMaven, tmp_path: Path) -> None:
    """The second look finds what the first downloaded, in the same order, without jgo."""
    assert KafkaClasspath(tmp_path, ["kafka:1"]).cached() is None
    jars = KafkaClasspath(tmp_path, ["kafka:1"]).fetch()
    assert sorted(maven.downloads) == ["kafka:1", "lib:1"]
    assert KafkaClasspath(tmp_path, ["kafka:1"]).cached() == jars
    assert KafkaClasspath(tmp_path, ["kafka:1"]).fetch() == jars
    assert KafkaClasspath(tmp_path, ["kafka:2"]).cached() is None
    assert sorted(maven.downloads) == ["kafka:1", "lib:1"]


def test_lost_or_cut_archive_is_downloaded_again(maven: FakeMaven, tmp_path: Path) -> None:
    """An archive that is gone or shorter than it was makes the cache incomplete, and is mended."""
    first, second = KafkaClasspath(tmp_path, ["kafka:1"]).fetch()
    first.write_bytes(first.read_bytes()[:9])
    assert KafkaClasspath(tmp_path, ["kafka:1"]).cached() is None
    assert KafkaClasspath(tmp_path, ["kafka:1"]).fetch() == [first, second]
    second.unlink()
    assert KafkaClasspath(tmp_path, ["kafka:1"]).cached() is None
    assert KafkaClasspath(tmp_path, ["kafka:1"]).fetch() == [first, second]
    assert sorted(maven.downloads) == ["kafka:1", "kafka:1", "lib:1", "lib:1"]


def test_interrupted_download_leaves_nothing_that_is_taken_for_whole(maven: FakeMaven, tmp_path: Path) -> None:
    """Half an archive and half a description are removed, and the next try succeeds."""
    maven.failures = 1
    half = tmp_path / "x" / "half.pom"
    half.parent.mkdir()
    half.write_text("<project><artif")
    jars = KafkaClasspath(tmp_path, ["kafka:1"]).fetch()
    assert all(zipfile.is_zipfile(jar) for jar in jars)
    assert not half.exists()


def test_download_that_keeps_failing_says_what_to_do(maven: FakeMaven, tmp_path: Path) -> None:
    """After the last try the message names the cause and the way around."""
    maven.failures = 99
    with pytest.raises(LocalServiceError, match=r"the line broke.*DISPATCHER_KAFKA_BOOTSTRAP_SERVERS"):
        KafkaClasspath(tmp_path, ["kafka:1"]).fetch()
    assert KafkaClasspath(tmp_path, ["kafka:1"]).cached() is None


def test_missing_jgo_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without jgo the message names the extra to install."""

    def absent(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(LocalServiceError, match=r"webhook-dispatcher\[local\]"):
        classpath.import_jgo()


def test_cache_follows_the_users_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The cache lies below XDG_CACHE_HOME."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert KafkaClasspath()._cache == tmp_path / "webhook-dispatcher" / "kafka"
