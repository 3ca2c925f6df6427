"""Records that are no events, in the midst of those that are: each ends where it should, and its neighbours arrive."""

import asyncio
import json
from collections.abc import Callable

from aiokafka import AIOKafkaProducer

from dispatcher.core.records import BadRecord, decode_dead_letter
from tests.deployment import Deployment, deploy, event, event_ids, make_settings, until
from tests.kafka_support import foreign_producer, make_topic
from tests.services import Services

CLOUD = [("ce_specversion", b"1.0"), ("ce_type", b"user.created"), ("ce_source", b"/s"), ("ce_workspaceid", b"acme")]
BAD: dict[str, tuple[bytes | None, list[tuple[str, bytes]], str]] = {
    "not JSON": (b"\x00\xff{not json", [], "undecodable"),
    "cut off": (b'{"type":"user.created","workspace_id":"acme","data":{', [], "undecodable"),
    "no type": (b'{"workspace_id":"acme","data":{}}', [], "undecodable"),
    "an array": (b"[1,2,3]", [], "undecodable"),
    "empty": (b"", [], "undecodable"),
    "null": (None, [], "undecodable"),
    "no workspace": (b'{"type":"user.created","data":{}}', [], "no_workspace"),
    "deep": (b'{"type":"a","workspace_id":"acme","data":' + b"[" * 200 + b"]" * 200 + b"}", [], "undecodable"),
    "NaN": (b'{"type":"a","workspace_id":"acme","data":NaN}', [], "undecodable"),
    "ce_ header not UTF-8": (b'{"n":1}', [*CLOUD, ("ce_id", b"\xff\xfe\xfa")], "undecodable"),
    "ce_ version": (b'{"n":1}', [("ce_specversion", b"9"), *CLOUD[1:], ("ce_id", b"1")], "undecodable"),
    "ce_ without source": (b'{"n":1}', [*CLOUD[:2], ("ce_id", b"1")], "undecodable"),
    "own headers": (b"{}", [("dispatcher-delivery-id", b"\xff"), ("dispatcher-attempt", b"-1")], "undecodable"),
    "too large": (json.dumps(event("big", fill="x" * 5_000_000)).encode(), [], "too_large"),
}


async def test_bad_records_end_as_dead_letters_and_their_neighbours_arrive(
    services: Services, unique_name: Callable[..., str]
) -> None:
    """Each bad record is a dead letter with bytes, key, reason and origin; aborted ones are nowhere; the lag is 0."""
    name = unique_name("bad")
    settings = make_settings(services.kafka_bootstrap, services.mongo_uri, name)
    await make_topic(services.kafka_bootstrap, f"{name}-events", 1, max_message_bytes="8000000")
    async with deploy(settings) as deployment:
        await deployment.webhook("/good")
        good, bad = await publish_all(deployment, name)
        async with deployment.worker():
            await until(lambda: len(deployment.receiver.at("/good")) >= len(good), "the good ones arrive")
            await deployment.until_done()
        arrived = event_ids(deployment.receiver.at("/good"))
        assert sorted(arrived) == sorted(good)
        letters = await deployment.records(deployment.names.dead_letter)
        found = {}
        for letter in letters:
            told = decode_dead_letter(letter.headers)
            assert isinstance(told, BadRecord)
            found[told.origin.offset] = (letter, told)
        assert len(letters) == len(found) == len(bad)
        for offset, what in bad.items():
            value, headers, reason = BAD[what.partition("/")[0]]
            letter, told = found[offset]
            assert (told.reason, told.origin.topic, told.origin.partition) == (reason, deployment.source, 0), what
            assert told.error, what
            assert (letter.key, letter.value) == ((None, None) if reason == "too_large" else (what.encode(), value)), (
                what
            )
            kept = [each for each in letter.headers if each[0].startswith("ce_")]
            assert kept == [each for each in headers if each[0].startswith("ce_")], what


async def publish_all(deployment: Deployment, name: str) -> tuple[list[str], dict[int, str]]:
    """Publish good and bad in turns, by every codec and in transactions; gives good ids, and bad ones by offset."""
    topic, bootstrap = deployment.source, deployment.settings.kafka.bootstrap_servers
    good: list[str] = []
    bad: dict[int, str] = {}

    async def send_good(producer: AIOKafkaProducer) -> None:
        good.append(f"evt_{len(good)}")
        await producer.send_and_wait(topic, json.dumps(event(len(good) - 1)).encode())

    async def send_bad(producer: AIOKafkaProducer, what: str, variant: str = "") -> None:
        value, headers, _ = BAD[what]
        label = f"{what}/{variant}"
        sent = await producer.send_and_wait(topic, value, key=label.encode(), headers=headers)
        bad[sent.offset] = label

    await send_good(deployment.producer)
    for what in BAD:
        await send_bad(deployment.producer, what)
        await send_good(deployment.producer)
    for codec in ("gzip", "snappy", "lz4", "zstd"):
        async with foreign_producer(bootstrap, compression_type=codec, linger_ms=50) as producer:
            # One batch: the bad one has neighbours within it.
            await asyncio.gather(send_good(producer), send_bad(producer, "not JSON", codec), send_good(producer))
    async with foreign_producer(bootstrap, transactional_id=f"{name}-tx") as producer:
        async with producer.transaction():
            await send_good(producer)
            await send_bad(producer, "no type", "committed")
        for value in (json.dumps(event("aborted")).encode(), b"aborted rubbish"):
            await producer.begin_transaction()
            await producer.send_and_wait(topic, value)
            await producer.abort_transaction()
        await producer.begin_transaction()
        await send_good(producer)
        await producer.commit_transaction()
        # An aborted one at the very end must not hold the lag up either.
        await producer.begin_transaction()
        await producer.send_and_wait(topic, b"aborted at the end")
        await producer.abort_transaction()
    return good, bad
