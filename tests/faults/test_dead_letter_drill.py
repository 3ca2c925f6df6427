"""The drill for the person on call: an endpoint was down for hours, and the dead letters of one webhook go out again.

The replaying command is killed in the middle and gone on with. No worker runs then, so the replay topic holds just what
the command put there.
"""

import asyncio
import json
import re
import sys
from collections import Counter
from typing import Any

import pytest

from dispatcher.core.records import decode_dead_letter
from dispatcher.pipeline.dead_letter_replay import BATCH_DELIVERIES
from tests.deployment import Deployment, event, eventually, until

LETTERS = {"ours": 2_600, "theirs": 1_400, "others": 800}
BAD = 100
KINDS = {"attempts_exhausted", "circuit_open", "undecodable", "no_workspace"}
RATE = 1_000


class Command:
    """Runs `dispatcher` as a process with a deployment's settings."""

    def __init__(self, deployment: Deployment) -> None:
        self._environment = deployment.process().environment

    async def start(self, *arguments: str) -> asyncio.subprocess.Process:
        """Start it; both outputs are pipes."""
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "dispatcher",
            *arguments,
            env=self._environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

    async def run(self, *arguments: str) -> tuple[int, str, str]:
        """Run it to its end; gives exit code and both outputs."""
        process = await self.start(*arguments)
        out, err = await process.communicate()
        assert process.returncode is not None
        return process.returncode, out.decode(), err.decode()

    async def json(self, *arguments: str) -> Any:
        """Run it to its end, and read what it prints."""
        code, out, err = await self.run(*arguments, "--json")
        assert code == 0, err
        return json.loads(out)


async def replayed(deployment: Deployment) -> Counter[str]:
    """Count what the replay topic holds of each delivery."""
    return Counter(each.delivery_id for each in await deployment.carried(deployment.names.replay))


async def an_hour_without_endpoints(deployment: Deployment) -> tuple[str, set[str]]:
    """Let a worker make 5,000 dead letters; gives the webhook that is to get its own again, and their deliveries."""
    webhooks = {name: await deployment.webhook(f"/{name}", events=[f"{name}.*"], max_attempts=1) for name in LETTERS}
    async with deployment.process(CIRCUIT_WAIT="200ms"):
        for name, count in LETTERS.items():
            deployment.receiver.answer(f"/{name}", 503)
            await deployment.publish(*(event(f"{name}-{number}", f"{name}.failed") for number in range(count)))
        await deployment.publish(*([b"no event"] * BAD), *([{"type": "ours.failed", "data": {}}] * BAD))
        await eventually(
            lambda: deployment.records(deployment.names.dead_letter), lambda found: len(found) == 5_000, "5,000", 60
        )
        await deployment.until_done()
    letters = await deployment.records(deployment.names.dead_letter)
    by_kind = Counter(decode_dead_letter(each.headers).reason for each in letters)
    assert by_kind.keys() == KINDS
    assert by_kind["undecodable"] == by_kind["no_workspace"] == BAD
    ours = {deployment.delivery_id(f"evt_ours-{number}", webhooks["ours"]) for number in range(LETTERS["ours"])}
    return webhooks["ours"].subscription.id, ours


@pytest.mark.timeout(150)
async def test_dead_letters_of_one_webhook_go_out_once_though_the_command_is_killed(
    deployment: Deployment, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of 5,000 dead letters of four kinds, those of one webhook reach the replay topic once, and no others."""
    receiver, command = deployment.receiver, Command(deployment)
    webhook_id, ours = await an_hour_without_endpoints(deployment)

    # First, look.
    listed = await command.json("dead-letters", "list")
    assert listed["count"] == 5_000
    chosen = ("dead-letters", "replay", "--subscription", webhook_id, "--rate", f"{RATE}/s")
    planned = await command.json(*chosen, "--dry-run")
    assert planned["chosen"] == planned["would_replay"] == len(ours)
    assert {(row["subscription_id"], row["fate"]) for row in planned["rows"]} == {(webhook_id, "replayed")}
    assert not await replayed(deployment)

    # Then begin, and be killed in the middle.
    process = await command.start(*chosen)
    assert process.stderr is not None
    said = (await process.stderr.readline()).decode()
    replay_id = re.search(r"rpl_\w+", said)
    assert replay_id, said
    await eventually(lambda: replayed(deployment), lambda found: len(found) > len(ours) // 3, "a third is replayed")
    process.kill()
    await process.communicate()
    before = await replayed(deployment)
    assert len(before) < len(ours)

    # What was begun is not begun anew by mistake.
    code, _, refused = await command.run(*chosen)
    assert code == 1
    assert f"--resume {replay_id[0]}" in refused

    # Go on.
    ended = await command.json("dead-letters", "replay", "--resume", replay_id[0], "--rate", "100000")
    assert (ended["stage"], ended["fates"]) == ("done", {"replayed": len(ours)})
    found = await replayed(deployment)
    assert found.keys() == ours
    twice = found.total() - len(ours)
    assert twice <= BATCH_DELIVERIES
    assert {each.replay_id for each in await deployment.carried(deployment.names.replay)} == {replay_id[0]}
    with capsys.disabled():
        sys.stdout.write(f"\nkilled after {len(before)} of {len(ours)} dead letters; {twice} were repeated\n")

    # They have left the list; with the endpoint mended, each arrives.
    assert (await command.json("dead-letters", "list"))["count"] == 5_000 - len(ours)
    receiver.answer("/ours", 200)
    known = len(receiver.received)
    async with deployment.process():
        await until(lambda: ours <= {request.delivery_id for request in receiver.received[known:]}, "all arrived")
        await deployment.until_done()
    since = receiver.received[known:]
    assert {request.path for request in since} == {"/ours"}
    assert {request.attempt for request in since} == {1}
