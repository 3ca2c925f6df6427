"""TLS to endpoints through a worker and the API: the reason in the attempt, and whose certificate is shown."""

import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import trustme

from dispatcher.app.worker import Worker
from dispatcher.core.model import Webhook
from tests.contract.endpoints import LOOPBACK, OK, Authority, Endpoint, Visit, repeat, self_signed, serving
from tests.deployment import Deployment, deploy, event, eventually, make_settings
from tests.services import Services


@dataclass
class Site:
    """A dispatcher whose operator trusts one more authority."""

    deployment: Deployment
    worker: Worker
    authority: Authority

    async def webhook(self, endpoint: Endpoint, workspace: str, host: str = "localhost", **fields: Any) -> Webhook:
        """Make a webhook for an endpoint."""
        url = endpoint.url_for(host)
        return await self.deployment.webhook_known_to(self.worker, "/", workspace, url=url, max_attempts=1, **fields)

    async def attempt(self, webhook: Webhook, name: str) -> Any:
        """Publish an event and give its one attempt, as the API shows it."""
        workspace, own = webhook.subscription.workspace_id, f"/webhooks/{webhook.subscription.id}/deliveries"
        await self.deployment.publish(event(name, workspace=workspace))
        wanted = self.deployment.delivery_id(f"evt_{name}", webhook)
        async with self.deployment.api(workspace) as call:

            async def look() -> Any:
                rows = (await call("GET", own))["data"]
                found = [row for row in rows if row["id"] == wanted and row["attempts_made"]]
                return (await call("GET", f"{own}/{wanted}"))["attempts"] if found else []

            (attempt,) = await eventually(look, bool, f"an attempt of {name}")
        return attempt


@pytest.fixture(scope="module")
async def site(
    services: Services, unique_name: Callable[..., str], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Site]:
    """A running worker with `DISPATCHER_CA_BUNDLE`."""
    authority = Authority(tmp_path_factory.mktemp("authority"))
    settings = make_settings(services.kafka_bootstrap, services.mongo_uri, unique_name("tls"))
    settings = replace(
        settings, send=replace(settings.send, ca_bundle=authority.bundle, allowed_networks=LOOPBACK.allowed_networks)
    )
    async with deploy(settings) as deployment, deployment.worker() as worker:
        yield Site(deployment, worker, authority)


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("wrong name", "Hostname mismatch"),
        ("expired", "certificate has expired"),
        ("unknown authority", "unable to get local issuer certificate"),
        ("signed by itself", "self-signed certificate"),
        ("no TLS", "the endpoint doesn't speak TLS on this port"),
    ],
)
async def test_the_attempt_says_why_tls_failed(
    site: Site, workspace: str, tmp_path: Any, case: str, words: str
) -> None:
    """The log's attempt of an endpoint whose TLS is refused has the reason, and the request never left."""
    contexts = {
        "wrong name": lambda: site.authority.context("other.example"),
        "expired": lambda: site.authority.context("localhost", expired=True),
        "unknown authority": lambda: Authority(tmp_path).context("localhost"),
        "signed by itself": lambda: self_signed("localhost", tmp_path),
        "no TLS": lambda: None,
    }
    async with serving(_plain if case == "no TLS" else repeat(OK), tls=contexts[case]()) as endpoint:
        endpoint.scheme = "https"
        attempt = await site.attempt(await site.webhook(endpoint, workspace), workspace)
        assert attempt["response_code"] is None
        assert attempt["error"].startswith("tls: ")
        assert words in attempt["error"]
        assert endpoint.requests == []


async def _plain(visit: Visit) -> None:
    await visit.reader.read(100)
    visit.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    await visit.until_closed()


async def test_each_webhook_shows_its_own_certificate(site: Site, unique_name: Callable[..., str]) -> None:
    """Two workspaces with certificates and one without share an endpoint: each request comes under its own name.

    Deliveries and test events alike; the keys are in no document and in no answer.
    """
    clients, seen = trustme.CA(), []

    async def script(visit: Visit) -> None:
        while True:
            head, body = await visit.request()
            seen.append((head + body, visit.client_name))
            visit.send(OK)

    context = site.authority.context("localhost")
    clients.configure_trust(context)
    context.verify_mode = ssl.CERT_OPTIONAL
    workspaces, keys, webhooks = [unique_name("ws") for _ in range(3)], [], []
    async with serving(script, tls=context) as endpoint:
        for workspace in workspaces:
            fields = {}
            if workspace != workspaces[2]:
                leaf = clients.issue_cert(common_name=workspace)
                chain = b"".join(pem.bytes() for pem in leaf.cert_chain_pems).decode()
                fields = {"client_certificate": chain, "client_key": leaf.private_key_pem.bytes().decode()}
                keys.append(fields["client_key"].splitlines()[1])
            webhooks.append(await site.webhook(endpoint, workspace, **fields))
        for number in range(3):
            for webhook in webhooks:
                workspace = webhook.subscription.workspace_id
                attempt = await site.attempt(webhook, f"{workspace}-{number}")
                assert attempt["error"] is None
                async with site.deployment.api(workspace) as call:
                    own = f"/webhooks/{webhook.subscription.id}"
                    assert (await call("POST", f"{own}/test"))["status"] == "delivered"
                    shown = str(await call("GET", own))
                    assert not any(key in shown for key in keys)
    assert len(seen) == 18
    for sent, name in seen:
        (owner,) = [each.subscription for each in webhooks if each.subscription.id.encode() in sent]
        assert name == (owner.workspace_id if owner.client_certificate else "")
    stored = [str(document) async for document in site.deployment.connection.webhooks.find({})]
    assert len(stored) >= 3
    assert not any(key in document for key in keys for document in stored)
