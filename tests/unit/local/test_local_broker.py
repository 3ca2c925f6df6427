"""Kafka's settings, and its first start."""

from pathlib import Path

import pytest

from dispatcher.local import broker

JAVA = """#!/bin/sh
for word in "$@"; do [ "$word" = format ] && mkdir -p "$DATA" && touch "$DATA/meta.properties" && echo formatted; done
exit 0
"""


def test_every_listener_is_on_the_loopback_address(tmp_path: Path) -> None:
    """Nobody outside this machine reaches Kafka, and topics aren't made by accident."""
    properties = broker.server_properties(tmp_path, port=1, controller_port=2)
    assert properties["listeners"] == "PLAINTEXT://127.0.0.1:1,CONTROLLER://127.0.0.1:2"
    assert properties["advertised.listeners"] == "PLAINTEXT://127.0.0.1:1"
    assert properties["controller.quorum.voters"] == "1@127.0.0.1:2"
    assert properties["auto.create.topics.enable"] == "false"
    assert properties["group.initial.rebalance.delay.ms"] == "0"


def test_extra_properties_win(tmp_path: Path) -> None:
    """A caller's setting replaces the stack's, and others are added."""
    extra = {"group.initial.rebalance.delay.ms": "5", "num.partitions": "3"}
    properties = broker.server_properties(tmp_path, port=1, controller_port=2, extra=extra)
    assert {name: properties[name] for name in extra} == extra


def test_cluster_ids_look_like_kafkas() -> None:
    """An id has 22 characters, never a dash in front, which Kafka's tools take for an option."""
    drawn = {broker.new_cluster_id() for _ in range(500)}
    assert len(drawn) == 500
    assert {len(each) for each in drawn} == {22}
    assert not any(each.startswith("-") for each in drawn)


async def test_data_is_formatted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first preparation formats, also over what an interrupted one left; later ones leave the data alone."""
    data, java = tmp_path / "kafka", tmp_path / "java"
    java.write_text(JAVA)
    java.chmod(0o755)
    monkeypatch.setenv("DATA", str(data))
    data.mkdir()
    (data / "half").touch()
    for port in (1, 3):
        service = await broker.make_broker(
            tmp_path,
            java=java,
            jars=[Path("/a.jar"), Path("/b.jar")],
            cluster_id="id",
            properties=broker.server_properties(data, port=port, controller_port=2),
            port=port,
            on_change=lambda _: None,
        )
        (data / "record").touch()
    assert (tmp_path / "logs" / "kafka.log").read_text() == "formatted\n"
    assert sorted(path.name for path in data.iterdir()) == ["meta.properties", "record"]
    assert service.command[-2:] == ("kafka.Kafka", str(tmp_path / "server.properties"))
    assert "/a.jar:/b.jar" in service.command
    assert "advertised.listeners=PLAINTEXT://127.0.0.1:3\n" in (tmp_path / "server.properties").read_text()


async def test_silent_port_is_no_broker() -> None:
    """Where nobody answers in time, the wait ends with the address."""
    with pytest.raises(TimeoutError, match=r"127\.0\.0\.1:1"):
        await broker.wait_until_serving(1, timeout_seconds=0.1)
