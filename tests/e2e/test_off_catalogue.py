"""Events that the shipped catalogue rejects, through real services, under both policies."""

import json
from pathlib import Path

from jsonschema_rs import Draft202012Validator

from dispatcher.core.records import BadRecord, decode_dead_letter
from dispatcher.operations.catalogue import load_catalogue
from dispatcher.settings import CatalogueSettings
from tests.deployment import deploy, event_ids, make_settings, until
from tests.kafka_support import make_topic

PUBLISHED = Path(__file__).parents[2] / "schemas" / "records" / "dead-letter.json"


def events():
    sample = load_catalogue(None).types["user.created"].sample
    each = {"good": ("user.created", sample), "schema": ("user.created", {}), "unknown_type": ("user.creatd", sample)}
    return [
        {"id": event_id, "type": event_type, "workspace_id": "acme", "data": data}
        for event_id, (event_type, data) in each.items()
    ]


async def test_the_policy_decides_what_becomes_of_them(services, unique_name):
    """They are delivered as long as the operator doesn't ask for dead letters, and then say what is wrong with them."""
    name = unique_name("off")
    await make_topic(services.kafka_bootstrap, f"{name}-events", 1)
    async with deploy(make_settings(services.kafka_bootstrap, services.mongo_uri, name)) as deployment:
        await deployment.webhook("/all")
        await deployment.publish(*events())
        async with deployment.worker() as worker:
            await until(lambda: len(deployment.receiver.at("/all")) == 3, "all arrive")
            await deployment.until_done()
            assert worker.metrics.off_catalogue.counts == {"unknown_type": 1, "schema": 1}
        assert await deployment.records(deployment.names.dead_letter) == []
        await deployment.publish(*({**each, "id": f"{each['id']} again"} for each in events()))
        async with deployment.worker(catalogue=CatalogueSettings(policy="dead-letter")) as worker:
            await deployment.until_done()
            assert worker.metrics.off_catalogue.counts == {"unknown_type": 1, "schema": 1}
        arrived = event_ids(deployment.receiver.at("/all"))
        assert sorted(arrived) == ["good", "good again", "schema", "unknown_type"]
        letters = await deployment.records(deployment.names.dead_letter)
        told = [decode_dead_letter(each.headers) for each in letters]
        assert all(isinstance(each, BadRecord) for each in told)
        assert {each.reason: each.error for each in told} == {
            "schema": 'data: "user" is a required property',
            "unknown_type": "the event catalogue has no type user.creatd; add a file for it, or check its spelling",
        }
        assert sorted(json.loads(each.value)["id"] for each in letters) == ["schema again", "unknown_type again"]
        published = Draft202012Validator(json.loads(PUBLISHED.read_text()))
        for each in letters:
            published.validate({name: value.decode() for name, value in each.headers})
