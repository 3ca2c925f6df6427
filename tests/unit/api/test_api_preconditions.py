"""ETag and If-Match: two people don't overwrite each other's change."""

import dataclasses

import pytest

from tests.fakes.api_stack import URL, problems


async def test_every_answer_about_one_webhook_has_its_version(api):
    """Create, show and change carry a strong ETag that is new after each change, and the same while nothing changes."""
    response = await api.call("POST", "/webhooks", {"url": URL, "events": []})
    path = f"/webhooks/{(await response.json())['id']}"
    first = response.headers["ETag"]
    assert first.startswith('"')
    assert (await api.call("GET", path)).headers["ETag"] == first
    second = (await api.call("PATCH", path, {"name": "n"})).headers["ETag"]
    assert second != first
    assert (await api.call("GET", path)).headers["ETag"] == second
    assert (await api.call("PATCH", path, {})).headers["ETag"] == second


async def test_a_change_on_an_old_version_is_refused(api):
    """The second of two changes made from the same version gets 412, and the first one's stands."""
    created = await api.create()
    path = f"/webhooks/{created['id']}"
    etag = (await api.call("GET", path)).headers["ETag"]
    assert (await api.call("PATCH", path, {"name": "mine"}, headers={"If-Match": etag})).status == 200
    response = await api.call("PATCH", path, {"name": "theirs"}, headers={"If-Match": etag})
    assert response.status == 412
    await problems(response)
    assert (await api.call("DELETE", path, headers={"If-Match": etag})).status == 412
    shown = await api.call("GET", path)
    assert (await shown.json())["name"] == "mine"
    assert (await api.call("DELETE", path, headers={"If-Match": shown.headers["ETag"]})).status == 204


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        ("*", 200),
        ('"1"', 200),
        ('"7", "1"', 200),
        ('"7" ,\t"1"', 200),
        ('W/"1"', 412),
        ('"1", W/"1"', 200),
        ('W/"1", "1', 412),
        ("1", 412),
        ('"1', 412),
        ('"1" "2"', 412),
        ("", 412),
        ('"foreign"', 412),
        ('"' + "9" * 50 + '"', 412),
    ],
)
async def test_if_match_takes_a_list_of_strong_tags_or_a_star(api, sent, status):
    """One of the tags must be the version's own; weak ones and what is no tag never match."""
    path = f"/webhooks/{(await api.create())['id']}"
    response = await api.call("PATCH", path, {"name": "n"}, headers={"If-Match": sent})
    assert response.status == status, await response.text()


@pytest.mark.parametrize("tag", ['"7"', 'W/"1"', "no tag"])
async def test_what_is_wrong_with_a_change_comes_before_its_version(api, tag):
    """A change that would be refused anyway is refused for that, whichever version it names."""
    path = f"/webhooks/{(await api.create())['id']}"
    response = await api.call("PATCH", path, {"max_attempts": 0}, headers={"If-Match": tag})
    assert set(await problems(response)) == {"max_attempts"}
    response = await api.call("POST", f"{path}/rotate-secret", {"overlap_seconds": -1}, headers={"If-Match": tag})
    assert set(await problems(response)) == {"overlap_seconds"}


async def test_what_comes_between_reading_and_writing_is_noticed(api):
    """A change that is overtaken in the last moment is refused where a version was named, else it is made again."""
    created = await api.create()
    path, store = f"/webhooks/{created['id']}", api.webhook_store

    def overtake():
        store.before_replace = lambda: None
        webhook = store.webhooks[created["id"]]
        subscription = dataclasses.replace(webhook.subscription, revision=webhook.subscription.revision + 1)
        store.webhooks[created["id"]] = dataclasses.replace(webhook, subscription=subscription)

    for method, body, bare in (("PATCH", {"name": "n"}, 200), ("DELETE", None, 204)):
        etag = (await api.call("GET", path)).headers["ETag"]
        store.before_replace = overtake
        assert (await api.call(method, path, body, headers={"If-Match": etag})).status == 412
        store.before_replace = overtake
        assert (await api.call(method, path, body)).status == bare


async def test_a_rotation_can_name_its_version(api):
    """A secret is rotated in the version that was named, or not at all; the answer carries the next version."""
    created = await api.create()
    path = f"/webhooks/{created['id']}"
    etag = (await api.call("GET", path)).headers["ETag"]
    rotated = await api.call("POST", f"{path}/rotate-secret", headers={"If-Match": etag})
    assert rotated.status == 200
    assert rotated.headers["ETag"] == (await api.call("GET", path)).headers["ETag"] != etag
    response = await api.call("POST", f"{path}/rotate-secret", headers={"If-Match": etag})
    assert response.status == 412
    await problems(response)
    assert (await api.call("GET", path)).headers["ETag"] == rotated.headers["ETag"]


async def test_no_version_of_nothing(api):
    """If-Match for a webhook that isn't there is a 404 all the same."""
    for tag in ("*", '"1"'):
        assert (await api.call("PATCH", "/webhooks/wh_1", {}, headers={"If-Match": tag})).status == 404
