"""The samples that the README shows to publishers, each run as it stands there against a real broker.

Only the broker's address and the topic are put into them. The packages that they need come from their languages'
ordinary clients, as locked in `publishers/`, into a folder of the test's own. Where those can't be had, a sample's
syntax is checked all the same, and a warning says that it was not run, and why.
"""

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

from dispatcher.core.decoding import decode
from dispatcher.core.model import Event, Origin
from dispatcher.local.classpath import KafkaClasspath
from dispatcher.operations.catalogue import load_catalogue
from tests.kafka_support import make_topic
from tests.services import Services

ROOT = Path(__file__).parents[2]
LOCKED = Path(__file__).parent / "publishers"
README = (ROOT / "schemas" / "README.md").read_text()
KEY = b"usr_8sJ2kLq0Vb"
DATA = {"user": {"id": "usr_8sJ2kLq0Vb", "email": "grace@example.com"}}
DOWNLOAD_SECONDS = 60
RUN_SECONDS = 110


def samples(language: str) -> list[str]:
    """Return the README's code in a language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def run(command: list[str | Path], folder: Path, seconds: float = RUN_SECONDS, **environment: str) -> None:
    """Run a command to its end, and show what it wrote if it failed."""
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True, check=False,
        timeout=seconds,
    )  # fmt: skip
    assert done.returncode == 0, f"{command[0]} failed:\n{done.stdout}{done.stderr}"


def not_run(reason: str) -> NoReturn:
    """Skip the test, and say so where nobody has to ask for it: among the warnings."""
    said = f"a sample of schemas/README.md is not run here: {reason}"
    warnings.warn(said, stacklevel=2)
    pytest.skip(said)


def download(command: list[str | Path], folder: Path, **environment: str) -> None:
    """Fetch a sample's packages, or skip the test with the reason."""
    try:
        run(command, folder, DOWNLOAD_SECONDS, **environment)
    except subprocess.TimeoutExpired:
        not_run(f"{command[0]} did not fetch its packages within {DOWNLOAD_SECONDS} s")
    except AssertionError as error:
        not_run(f"its packages can't be fetched: {error}")


def tool(name: str) -> Path:
    """Find a language's tool, or skip the test."""
    found = shutil.which(name)
    if found is None:
        not_run(f"{name} is not installed")
    return Path(found)


def run_python(folder: Path, code: str) -> None:
    (folder / "publish.py").write_text(code)
    run([Path(sys.executable), "publish.py"], folder)


def run_java(folder: Path, code: str) -> None:
    java = tool("java")
    modules = subprocess.run([java, "--list-modules"], capture_output=True, text=True, check=False).stdout
    if "jdk.compiler@" not in modules:
        not_run(f"{java} comes without a compiler; install a JDK of version 17 or later")
    jars = KafkaClasspath().cached()
    if jars is None:
        not_run("Kafka's Java archives are not in the cache; a test that starts the local Kafka puts them there")
    (folder / "Publish.java").write_text(code)
    run([java, "-cp", os.pathsep.join(map(str, jars)), "-XX:TieredStopAtLevel=1", "Publish.java"], folder)


def run_go(folder: Path, code: str) -> None:
    go = tool("go")
    for name in ("go.mod", "go.sum"):
        shutil.copy(LOCKED / name, folder)
    (folder / "main.go").write_text(code)
    run([tool("gofmt"), "-e", "main.go"], folder)
    environment = {"GOTOOLCHAIN": "local", "CGO_ENABLED": "0", "GOFLAGS": "-buildvcs=false"}
    download([go, "mod", "download", "github.com/twmb/franz-go"], folder, **environment)
    run([go, "build", "-o", "publish", "."], folder, **environment)
    run([folder / "publish"], folder)


def run_node(folder: Path, code: str) -> None:
    node, npm = tool("node"), tool("npm")
    for name in ("package.json", "package-lock.json"):
        shutil.copy(LOCKED / name, folder)
    (folder / "publish.js").write_text(code)
    run([node, "--check", "publish.js"], folder)
    download([npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--silent"], folder)
    run([node, "publish.js"], folder)


RUNNERS: dict[str, Callable[[Path, str], None]] = {
    "python": run_python, "java": run_java, "go": run_go, "javascript": run_node,
}  # fmt: skip


@pytest.mark.parametrize("language", list(RUNNERS))
async def test_the_readmes_samples_publish_events(services: Services, unique_name, tmp_path, language) -> None:
    """What each sample puts on Kafka, plainly and as a CloudEvent, is taken for the event that it means to be."""
    topic = await make_topic(services.kafka_bootstrap, unique_name("publish"))
    code = samples(language)
    for number, sample in enumerate(code):
        assert sample.count("localhost:9092") == 1
        assert '"events"' in sample
        here = sample.replace("localhost:9092", services.kafka_bootstrap).replace('"events"', f'"{topic}"')
        folder = tmp_path / str(number)
        folder.mkdir()
        await asyncio.to_thread(RUNNERS[language], folder, here)
    records = await everything(services.kafka_bootstrap, topic)
    assert {record.key for record in records} == {KEY}
    plain, *cloud = [decoded(record) for record in records]
    assert plain.source == ""
    assert len(cloud) == len(code)
    assert {event.source for event in cloud} == {"/users"}
    assert len({event.id for event in (plain, *cloud)}) == len(records)
    catalogue = load_catalogue(None)
    for event in (plain, *cloud):
        assert (event.type, event.workspace_id) == ("user.created", "acme")
        assert json.loads(event.data_json) == DATA
        assert re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]+(Z|\+00:00)", event.created_at)
        assert catalogue.fault(event.type, DATA) is None


def test_python_shows_both_modes_of_cloudevents() -> None:
    """Each language has a sample; only Python's needs a second, for which there is a package."""
    assert {language: len(samples(language)) for language in RUNNERS} == {
        "python": 2, "java": 1, "go": 1, "javascript": 1,
    }  # fmt: skip


def test_the_shown_envelope_is_an_event() -> None:
    """The JSON at the top of the page decodes, and its data is what the catalogue expects."""
    (envelope,) = samples("json")
    event = decode(envelope.encode(), (), Origin("events", 0, 0, 0), None)
    assert (event.id, event.created_at) == ("evt_5fQ2mZx8sJ", "2026-01-15T10:30:00Z")
    assert load_catalogue(None).fault(event.type, json.loads(event.data_json)) is None


async def everything(bootstrap: str, topic: str) -> list[ConsumerRecord]:
    """Read a topic of one partition to its end."""
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="earliest")
    await consumer.start()
    try:
        partition = TopicPartition(topic, 0)
        consumer.assign([partition])
        end = (await consumer.end_offsets([partition]))[partition]
        return [await asyncio.wait_for(consumer.getone(), 20) for _ in range(end)]
    finally:
        await consumer.stop()


def decoded(record: ConsumerRecord) -> Event:
    """Take a record up as a worker does, where no default workspace is set."""
    origin = Origin(record.topic, record.partition, record.offset, record.timestamp, record.key)
    return decode(record.value, record.headers, origin, None)
