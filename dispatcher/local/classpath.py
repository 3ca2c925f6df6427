"""Kafka's Java archives: resolved and downloaded once by jgo, then found again without a look at the network."""

import fcntl
import importlib
import json
import os
import zipfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from dispatcher.core.errors import LocalServiceError

KAFKA_VERSION = "4.1.0"
COORDINATES = (f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}", "org.slf4j:slf4j-simple:1.7.36")
_TRIES = 3
_AT_ONCE = 4
_TIMEOUT_SECONDS = 60


class KafkaClasspath:
    """The archives that make up one Kafka, in a cache that every data folder shares.

    Args:
        cache: The cache's folder; by default below the user's cache folder.
        coordinates: What to resolve, as `group:artifact:version`.
    """

    def __init__(self, cache: Path | None = None, coordinates: Sequence[str] = COORDINATES) -> None:
        self._cache = cache or _user_cache() / "webhook-dispatcher" / "kafka"
        self._coordinates = tuple(coordinates)
        self._receipt = self._cache / f"classpath-{KAFKA_VERSION}.json"

    def cached(self) -> list[Path] | None:
        """Give the archives if all of them are here whole, else None; touches no network."""
        try:
            receipt = json.loads(self._receipt.read_bytes())
            if receipt["coordinates"] != list(self._coordinates):
                return None
            jars = [(self._cache / name, size) for name, size in receipt["jars"]]
            return [path for path, _ in jars] if all(path.stat().st_size == size for path, size in jars) else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def fetch(self) -> list[Path]:
        """Give the archives, downloading what is missing; blocks, and takes turns with other processes.

        Raises:
            LocalServiceError: jgo isn't installed, the download failed, or the cache can't be written.
        """
        maven = import_jgo()
        try:
            self._cache.mkdir(parents=True, exist_ok=True)
            with (self._cache / "lock").open("a", encoding="utf-8") as turn:
                fcntl.flock(turn, fcntl.LOCK_EX)
                return self.cached() or self._download(maven)
        except PermissionError as error:
            raise LocalServiceError(
                f"the cache {self._cache} can't be written ({error.strerror}): give it to this user, or choose another "
                "place with XDG_CACHE_HOME"
            ) from error

    def _download(self, maven: Any) -> list[Path]:
        for tries_left in reversed(range(_TRIES)):
            self._drop_broken_files()
            try:
                jars = self._resolve(maven)
                break
            except PermissionError:
                raise
            except Exception as error:  # jgo documents none: RuntimeError, requests' errors, broken XML
                if not tries_left:
                    raise LocalServiceError(
                        f"Apache Kafka {KAFKA_VERSION} could not be downloaded ({error}): its archives come from the "
                        "central Maven repository, once; check the network (HTTPS_PROXY is honoured) and start again, "
                        "or name a running Kafka with DISPATCHER_KAFKA_BOOTSTRAP_SERVERS"
                    ) from error
        names = [[str(jar.relative_to(self._cache)), jar.stat().st_size] for jar in jars]
        draft = self._receipt.with_suffix(".draft")
        draft.write_text(json.dumps({"coordinates": self._coordinates, "jars": names}), encoding="utf-8")
        draft.replace(self._receipt)
        return jars

    def _resolve(self, maven: Any) -> list[Path]:
        # No folders of finished repositories (`local_repos`): the receipt names files of this cache only.
        context = maven.MavenContext(repo_cache=self._cache, local_repos=[], timeout=_TIMEOUT_SECONDS)
        wanted = [context.create_dependency(coordinate) for coordinate in self._coordinates]
        named, transitive = context.resolver.resolve(wanted)
        needed = [*named, *(each for each in transitive if each.scope in {"compile", "runtime"})]
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            return list(pool.map(lambda each: Path(each.artifact.resolve()), needed))

    def _drop_broken_files(self) -> None:
        """Remove what an interrupted download left: jgo takes any file that is there for whole."""
        for jar in self._cache.rglob("*.jar"):
            if not zipfile.is_zipfile(jar):
                jar.unlink()
        for pom in self._cache.rglob("*.pom"):
            if not pom.read_bytes().rstrip().endswith(b"</project>"):
                pom.unlink()


def import_jgo() -> Any:
    """Import jgo's Maven layer.

    Raises:
        LocalServiceError: it isn't installed.
    """
    try:
        return importlib.import_module("jgo.maven")
    except ImportError as error:
        raise LocalServiceError(
            "Kafka on this machine needs the package jgo: pip install 'webhook-dispatcher[local]', or name a running "
            "Kafka with DISPATCHER_KAFKA_BOOTSTRAP_SERVERS"
        ) from error


def _user_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
