"""The document is what the server does: schemathesis makes up requests from it, and all its checks hold."""

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest
from aiohttp.test_utils import TestServer

from dispatcher.api.application import describe_api
from dispatcher.app.api import build_api
from dispatcher.app.clock import SystemClock, draw
from dispatcher.mongo.api_keys import MongoApiKeys
from dispatcher.operations.api_keys import ApiKeys
from dispatcher.operations.rate_limits import Rate, RateLimits
from dispatcher.settings import QuotaSettings
from tests.deployment import Deployment, deploy, event, make_settings
from tests.receiver import Answer
from tests.services import Services

HOOKS = "tests.contract.openapi_requests"
ROOT = Path(__file__).parents[2]
PLENTY = Rate(1e6, 1_000_000)
# What a right request may meet beside success: what it is about can be gone, changed or of another version.
MET = ("2xx", "401", "403", "404", "409", "410", "412")
# How a wrong one is refused: the usual ways, and the one for a header that is made up to be `Expect`.
REFUSED = ("400", "401", "403", "404", "405", "409", "415", "417", "422")


@pytest.fixture(scope="module")
async def deployment(services: Services, unique_name: Callable[..., str]) -> AsyncIterator[Deployment]:
    """A dispatcher whose worker runs in this process."""
    settings = make_settings(services.kafka_bootstrap, services.mongo_uri, unique_name("openapi"))
    async with deploy(settings) as deployment, deployment.worker() as worker:
        deployment.running = worker
        yield deployment


@pytest.fixture
async def configured(
    deployment: Deployment, unique_name: Callable[..., str], tmp_path: Path
) -> AsyncIterator[tuple[Path, str]]:
    """Serve the API with something in it; yields what schemathesis is to know, and where the API is."""
    keys = ApiKeys(MongoApiKeys(deployment.connection.api_keys), SystemClock(), draw)
    workspace, other = unique_name("ws"), unique_name("ws")
    entries = []
    for name, owner in (("owner", workspace), ("stranger", other)):
        key = (await keys.create(owner, name, ("read", "write", "admin"), None)).plaintext
        entries.append({"name": name, "fixedHeaders": [{"name": "Authorization", "value": f"Bearer {key}"}]})
    (tmp_path / "keys.json").write_text(json.dumps({"auth": entries}))
    deployment.receiver.answer("/failing", Answer(500))
    kept = await deployment.webhook_known_to(deployment.running, "/kept", workspace)
    await deployment.webhook_known_to(deployment.running, "/failing", workspace, max_attempts=1)
    await deployment.publish(*(event(f"{workspace}-{number}", workspace=workspace) for number in range(3)))
    delivery_id = deployment.delivery_id(f"evt_{workspace}-1", kept)
    await deployment.until_logged(delivery_id, kept, "delivered")
    config = tmp_path / "schemathesis.toml"
    config.write_text(
        f"""
[auth.wfc]
path = {json.dumps(str(tmp_path / "keys.json"))}
user = "owner"
peers = ["owner", "stranger"]

[checks.positive_data_acceptance]
expected-statuses = {json.dumps(MET)}

[checks.negative_data_rejection]
expected-statuses = {json.dumps(REFUSED)}

[[operations]]
include-operation-id = "redeliver"
parameters = {{ "path.id" = "{kept.subscription.id}", "path.delivery_id" = "{delivery_id}" }}
"""
    )
    limits = RateLimits(SystemClock(), requests=PLENTY, workspaces=PLENTY, guesses=PLENTY)
    settings = replace(deployment.settings, quotas=QuotaSettings(1_000_000, 100_000, 100_000, 6_000))
    async with TestServer(build_api(settings, deployment.connection, limits=limits)) as server:
        yield config, str(server.make_url("/v1/openapi.json"))


async def run(config: Path, url: str, endpoint: str, *options: str) -> str:
    """Run schemathesis to its end; gives what it wrote, which must be without a fault."""
    program = str(Path(sys.executable).with_name("schemathesis"))
    process = await asyncio.create_subprocess_exec(
        program,
        "--config-file",
        str(config),
        "run",
        url,
        "--checks=all",
        "--continue-on-failure",
        "--no-color",
        *options,
        cwd=config.parent,
        env={**os.environ, "SCHEMATHESIS_HOOKS": HOOKS, "PYTHONPATH": str(ROOT), "CONTRACT_ENDPOINT": endpoint},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        written, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    text = written.decode()
    assert process.returncode == 0, text
    return text


@pytest.mark.timeout(300)
async def test_the_server_does_what_the_document_says(deployment: Deployment, configured: tuple[Path, str]) -> None:
    """Made-up requests to every call, right and wrong ones, alone and one after another, find no fault."""
    text = await run(*configured, deployment.receiver.url(""), "--generation-deterministic", "--max-examples=15")
    count = sum(len(methods) for methods in describe_api()["paths"].values())
    assert f"Tested: {count}" in text, text
    for phase in ("Examples", "Coverage", "Fuzzing", "Stateful"):
        assert f"✅ {phase}" in text.replace("  ", " "), text


@pytest.mark.slow
@pytest.mark.timeout(1200)
async def test_the_server_does_so_at_length(deployment: Deployment, configured: tuple[Path, str]) -> None:
    """Many more requests, other ones in each run, find no fault either; the text of a failure names the seed."""
    await run(
        *configured,
        deployment.receiver.url(""),
        "--max-examples=150",
        "--generation-database=none",
        f"--seed={time.time_ns() % 2**32}",
    )
