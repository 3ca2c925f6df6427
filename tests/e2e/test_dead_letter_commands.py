"""`dispatcher dead-letters` as an operator calls it: in its own process, on real services."""

import asyncio
import base64
import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from tests.deployment import KEY, WORKSPACE, Deployment, deploy, event, make_settings, until
from tests.receiver import Answer
from tests.services import Services

SECRET = "whsec_" + base64.b64encode(b"s" * 32).decode()


async def dispatcher(deployment: Deployment, *words: str) -> tuple[int, str, str]:
    """Run a command; gives its exit code, and what it printed to both."""
    settings = deployment.settings
    environ = {
        **{name: value for name, value in os.environ.items() if not name.startswith("DISPATCHER_")},
        "DISPATCHER_KAFKA_BOOTSTRAP_SERVERS": settings.kafka.bootstrap_servers,
        "DISPATCHER_MONGO_URI": settings.mongo.uri,
        "DISPATCHER_MONGO_DATABASE": settings.mongo.database,
        "DISPATCHER_ENCRYPTION_KEYS": base64.b64encode(KEY).decode(),
        "DISPATCHER_TOPIC_PREFIX": settings.topics.prefix,
        "DISPATCHER_SOURCE_TOPICS": deployment.source,
        "DISPATCHER_CONSUMER_GROUP": settings.topics.consumer_group,
    }
    command = [sys.executable, "-m", "dispatcher", "dead-letters", *words]
    done = await asyncio.to_thread(
        subprocess.run, command, env=environ, capture_output=True, text=True, timeout=60, check=False
    )
    return done.returncode, done.stdout, done.stderr


async def told(deployment: Deployment, *words: str) -> Any:
    """Run a command that must succeed, with --json; gives what it told."""
    code, output, errors = await dispatcher(deployment, *words, "--json")
    assert code == 0, errors
    return json.loads(output)


def counted(listed: Any, kind: str) -> dict[Any, int]:
    """Give one count of a listing as a dictionary."""
    return {row["value"]: row["count"] for row in listed["by"][kind]}


async def test_on_call_at_night(services: Services, unique_name: Callable[..., str]) -> None:
    """What a worker gave up is counted, shown with its attempts and without a secret, and purged only when asked to."""
    settings = make_settings(services.kafka_bootstrap, services.mongo_uri, unique_name("oncall"), tiers=("100ms",))
    async with deploy(settings) as deployment:
        broken = await deployment.webhook("/broken", max_attempts=2, secret=SECRET)
        fine = await deployment.webhook("/fine", events=["user.*"])
        answer = f'{{"error": "\x1b[31mno room", "signed_with": "{SECRET}"}}'
        deployment.receiver.answer("/broken", Answer(503, body=answer.encode()))
        await deployment.publish(event("a"), event("b"), b'{"type": "user.created",, "data": {}}')
        async with deployment.worker():
            await until(lambda: len(deployment.receiver.at("/broken")) == 4, "all attempts are made")
            await deployment.until_done()
        listed = await told(deployment, "list")
        assert (listed["count"], listed["handled"], listed["superseded"]) == (3, 0, 0)
        assert counted(listed, "reason") == {"attempts_exhausted": 2, "undecodable": 1}
        assert counted(listed, "status") == {503: 2, "none": 1}
        assert counted(listed, "subscription") == {broken.subscription.id: 2, None: 1}
        delivery_id = deployment.delivery_id("evt_a", broken)
        code, output, _ = await dispatcher(deployment, "show", delivery_id)
        assert code == 0
        assert "whsec_" not in output.replace("whsec_***", "")
        assert "\x1b" not in output
        assert output.count("the endpoint answered 503") >= 3
        shown = await told(deployment, "show", delivery_id)
        assert [each["response_code"] for each in shown["delivery"]["attempts"]] == [503, 503]
        (bad,) = [each for each in listed["newest"] if each["reason"] == "undecodable"]
        record = (await told(deployment, "show", bad["place"]))["record"]
        assert (record["kept"], record["fault"]["byte"]) == (True, 24)
        only = ("--subscription", broken.subscription.id, "--status", "5xx", "--since", "1h")
        code, output, errors = await dispatcher(deployment, "purge", *only)
        assert (code, "--yes" in errors) == (2, True)
        assert (await told(deployment, "list"))["count"] == 3
        assert await told(deployment, "purge", *only, "--yes") == {
            "topic": deployment.names.dead_letter,
            "chosen": 2,
            "purged": 2,
        }
        listed = await told(deployment, "list")
        assert (listed["count"], listed["handled"]) == (1, 2)
        assert counted(await told(deployment, "list", "--all"), "workspace") == {WORKSPACE: 2, None: 1}
        assert (await told(deployment, "list", "--type", "user.*", "--workspace", "other"))["count"] == 0
        assert (await told(deployment, "show", delivery_id))["handled"]
        assert len(deployment.receiver.at("/fine")) == 2
        assert fine.subscription.status == "active"


async def test_wrong_usage_says_what_to_write(services: Services, unique_name: Callable[..., str]) -> None:
    """Filters that mean nothing, and places that hold nothing, end in a sentence and their exit code."""
    settings = make_settings(services.kafka_bootstrap, services.mongo_uri, unique_name("oncall"))
    async with deploy(settings) as deployment:
        for words, code, text in (
            (("list", "--status", "50"), 2, "such as 503"),
            (("list", "--reason", "because"), 2, "attempts_exhausted"),
            (("list", "--type", "user.*.x"), 2, "user.*"),
            (("purge", "--since", "yesterday"), 2, "how long ago"),
            (("show", "nonsense"), 2, "del_"),
            (("show", "0-99"), 1, "there is no dead letter"),
        ):
            ended, _, errors = await dispatcher(deployment, *words)
            assert (ended, text in errors, "Traceback" in errors) == (code, True, False), (words, errors)
