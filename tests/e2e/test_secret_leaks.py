"""No secret stands in anything that the system writes: every process, topic, document, answer and page is searched."""

import asyncio
import base64
import gc
import html
import json
import re
import secrets as chance
import socket
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import aiohttp
import pytest
import trustme
from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument

from dispatcher.core.exchange import KEPT_BODY_BYTES
from dispatcher.mongo import connect
from dispatcher.settings import MongoSettings
from tests.contract.endpoints import proxying
from tests.deployment import deploy, event, eventually, make_settings
from tests.fakes.console_stack import Browser
from tests.leaks import Written, forms_of
from tests.receiver import HANG, Answer

ROOT = Path(__file__).parents[2]
WORKSPACE = "leaky"
TRICKY = "/+=&<>'\"%"
"""What each form escapes in its own way."""
PUBLIC = re.compile(r'href="(/console[^"#]*)"')
ENDED = {"delivered", "failed"}


def make_secret(name: str) -> str:
    """Make a text that nobody else has; whoever finds it knows where it came from."""
    return f"{name}-{chance.token_hex(12)}{TRICKY}{chance.token_hex(4)}"


def make_token(name: str) -> str:
    """Make one of URL-safe characters."""
    return f"{name}-{chance.token_hex(12)}"


# What endpoints answer with: the request's headers, as servers show them, and what else they might know.
def _lines(shown: Mapping[str, str]) -> bytes:
    return "\r\n".join(f"{name}: {value}" for name, value in shown.items()).encode()


ECHOES = {
    "raw": lambda shown: Answer(200, body=_lines(shown)),
    "json": lambda shown: Answer(500, body=json.dumps({"error": {"headers": shown}}).encode()),
    "php": lambda shown: Answer(503, body=json.dumps(shown).replace("/", "\\/").encode()),
    "html": lambda shown: Answer(410, body=f"<pre>{html.escape(_lines(shown).decode())}</pre>".encode()),
    "repr": lambda shown: Answer(404, body=repr(shown).encode()),
    "url": lambda shown: Answer(302, body=quote(_lines(shown), safe="").encode()),
    "base64": lambda shown: Answer(200, body=base64.b64encode(_lines(shown))),
    "hex": lambda shown: Answer(200, body=_lines(shown).hex().encode()),
    "cut": lambda shown: Answer(400, body=_cut_within_the_key(shown)),
    "reason": lambda shown: Answer(500, headers={"X-Seen": shown["x-api-key"], "Set-Cookie": shown["x-api-key"]}),
}


def _cut_within_the_key(shown: Mapping[str, str]) -> bytes:
    return b"x" * (KEPT_BODY_BYTES - 12) + shown["x-api-key"].encode()


class Process:
    """A role of the dispatcher as a process, or a command; all that it prints is kept.

    Args:
        environment: All that it gets.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.environment = dict(environment)
        self.output = tempfile.NamedTemporaryFile(prefix="leaks-", suffix=".log")  # noqa: SIM115 - ends with it

    async def run(self, *arguments: str) -> tuple[int, str]:
        """Run a command to its end; gives its exit code and what it printed."""
        process = await self._start(arguments)
        await asyncio.wait_for(process.wait(), 60)
        return process.returncode or 0, self.said().decode()

    @asynccontextmanager
    async def serve(self, *arguments: str) -> AsyncIterator[None]:
        """Run it for the time of the `async with`, then end it with SIGTERM."""
        process = await self._start(arguments)
        try:
            yield
            process.terminate()
            await asyncio.wait_for(process.wait(), 40)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()

    def said(self) -> bytes:
        """Give what it has printed so far."""
        return Path(self.output.name).read_bytes()

    async def _start(self, arguments: tuple[str, ...]) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", "dispatcher", *arguments,
            env=self.environment, cwd=ROOT, stdin=asyncio.subprocess.DEVNULL,
            stdout=self.output, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


class Run:
    """One run: the deployment, its secrets by name, and what was written."""

    def __init__(self, deployment, environment, secrets):
        self.deployment = deployment
        self.environment = environment
        self.secrets = secrets
        self.written = Written()
        self.sessions = AsyncExitStack()

    async def command(self, *arguments, code=0, kept=True, **environment):
        """Run a command, and keep what it printed; gives that."""
        changed = {f"DISPATCHER_{name}": value for name, value in environment.items()}
        found, output = await Process({**self.environment, **changed}).run(*arguments)
        assert found == code, output
        if kept:
            self.written.add(f"dispatcher {' '.join(arguments)} {sorted(environment)}", output)
        return output

    async def call(self, method, path, *, status=None, kept=True, headers=None, **options):
        """Call the API, as soon as it lets one, and keep its answer, headers included; gives its JSON."""
        sent = {"Authorization": f"Bearer {self.secrets['API key']}"} | (headers or {})
        while True:
            async with self.client.request(method, f"/v1{path}", headers=sent, **options) as response:
                text = await response.text()
                if response.status == 429:
                    await asyncio.sleep(int(response.headers["Retry-After"]))
                    continue
                assert response.status == status if status else response.status < 400, text
                if kept:
                    self.written.add(f"{method} {path}", f"{dict(response.headers)}\n{text}")
                return json.loads(text) if text and response.content_type.endswith("json") else text

    async def create(self, path, **fields):
        """Create a webhook with a secret and a key of its own; gives its id."""
        scheme = fields.pop("scheme", "http")
        self.secrets[f"secret of {path}"] = make_secret("sign")
        self.secrets[f"key of {path}"] = make_secret("key")
        sent = {
            "url": self.deployment.receiver.url(f"/{path}").replace("http:", f"{scheme}:"),
            "events": ["user.*"],
            "secret": self.secrets[f"secret of {path}"],
            "api_key": self.secrets[f"key of {path}"],
            "max_attempts": 2,
            **fields,
        }
        headers = {"Idempotency-Key": make_token("once")}
        # The answer is the one place where a secret may stand.
        return (await self.call("POST", "/webhooks", json=sent, headers=headers, kept=False))["id"]


@pytest.fixture
async def run(services, unique_name):
    """A worker and an API as processes, behind a proxy that wants a password, on a MongoDB that wants one."""
    name, user = unique_name("leaks"), make_token("user")
    passwords = {kind: make_token(kind) for kind in ("mongo", "proxy", "sasl")}
    keys = [chance.token_bytes(32), chance.token_bytes(32)]
    address = services.mongo_uri.replace("mongodb://", f"mongodb://{user}:{passwords['mongo']}@")
    address += f"{'&' if '?' in address else '?'}authSource={name}"
    plain = connect(MongoSettings(services.mongo_uri, name))
    # The dispatcher's processes may read and write; only the test may drop the database.
    for login, role in ((user, "dbOwner"), (f"{user}-rw", "readWrite")):
        await plain.database.command("createUser", login, pwd=passwords["mongo"], roles=[role])
    try:
        async with proxying() as proxy:
            settings = make_settings(services.kafka_bootstrap, address, name, outcomes=True)
            proxied = f"http://proxy-user:{passwords['proxy']}@127.0.0.1:{proxy.port}"
            settings = replace(settings, encryption_keys=tuple(keys), send=replace(settings.send, egress_proxy=proxied))
            async with deploy(settings) as deployment:
                environment = dict(deployment.process().environment) | {
                    "DISPATCHER_MONGO_URI": address.replace(user, f"{user}-rw"),
                    "DISPATCHER_ENCRYPTION_KEYS": ",".join(base64.b64encode(key).decode() for key in reversed(keys)),
                    "DISPATCHER_EGRESS_PROXY": proxied,
                    "DISPATCHER_OUTCOMES_TOPIC": "true",
                    "DISPATCHER_LOG_LEVEL": "debug",
                    "DISPATCHER_METRICS_PORT": str(free_port()),
                    "DISPATCHER_API_PORT": str(free_port()),
                    "DISPATCHER_API_HOST": "127.0.0.1",
                    "DISPATCHER_METRICS_HOST": "127.0.0.1",
                }
                secrets = {f"{kind} password": password for kind, password in passwords.items()}
                secrets |= {"encryption key": keys[0], "former encryption key": keys[1]}
                secrets |= {f"{name} as set": base64.b64encode(secrets[name]).decode() for name in list(secrets)[-2:]}
                yield Run(deployment, environment, secrets)
                assert proxy.heads
    finally:
        for login in (user, f"{user}-rw"):
            await plain.database.command("dropUser", login)
        plain.close()


@pytest.mark.timeout(300)
async def test_no_secret_is_written_anywhere(run):
    """Every secret of a run that delivers, fails, echoes, tests, rotates, refuses and breaks is found nowhere again."""
    made = await run.command("api-keys", "create", "--workspace", WORKSPACE, "--scope", "read,write,admin", kept=False)
    run.secrets["API key"] = re.search(r"^whk_\S+$", made, re.MULTILINE)[0]
    worker, api = (Process(run.environment | changed) for changed in (
        {"DISPATCHER_METRICS_PORT": str(free_port())}, {},
    ))  # fmt: skip
    base = f"http://127.0.0.1:{run.environment['DISPATCHER_API_PORT']}"
    pages = [f"http://127.0.0.1:{each.environment['DISPATCHER_METRICS_PORT']}" for each in (worker, api)]
    jar = aiohttp.CookieJar(unsafe=True)
    async with (
        worker.serve("worker"),
        api.serve("api"),
        aiohttp.ClientSession(base) as run.client,
        aiohttp.ClientSession(base, cookie_jar=jar) as cookies,
    ):
        for page in pages:
            await eventually(lambda page=page: _is_ready(run.client, page), bool, f"{page} is ready", 60)
        webhooks = await make_webhooks(run)
        await deliver(run, webhooks)
        await use_the_api(run, webhooks)
        await use_the_console(run, Browser(cookies, {}), webhooks)
        await use_the_commands(run)
        for page in pages:
            for path in ("/metrics", "/healthz", "/readyz"):
                async with run.client.get(f"{page}{path}") as response:
                    run.written.add(f"{page}{path}", await response.text())
    run.written.add("the worker's log", worker.said())
    run.written.add("the API's log", api.said())
    await keep_topics_and_documents(run)
    await keep_live_objects(run)
    assert run.written.leaks(run.secrets) == []
    assert_complete(run)


async def make_webhooks(run):
    """Make a webhook for each kind of endpoint."""
    receiver, webhooks = run.deployment.receiver, {}

    def echoing(path, echo):
        def rule(request):
            known = {"SECRET": run.secrets[f"secret of {path}"]}
            return echo({**request.headers, **known})

        return rule

    for path, echo in ECHOES.items():
        receiver.answer(f"/{path}", echoing(path, echo))
        webhooks[path] = await run.create(path)
    receiver.answer("/hang", HANG)
    receiver.answer("/bearer", echoing("bearer", ECHOES["raw"]))
    webhooks["hang"] = await run.create("hang", timeout_seconds=1)
    webhooks["tls"] = await run.create("tls", scheme="https", **make_client_certificate(run.secrets))
    webhooks["bearer"] = await run.create("bearer", api_key_header="Authorization", payload_format="cloudevents")
    return webhooks


def make_client_certificate(secrets):
    """Make a client certificate; its key is a secret as a file's line and as bytes."""
    leaf = trustme.CA().issue_cert(common_name="leaky")
    key = leaf.private_key_pem.bytes().decode()
    lines = key.splitlines()[1:-1]
    secrets |= {"client key's line": lines[1], "client key": base64.b64decode("".join(lines))}
    chain = b"".join(pem.bytes() for pem in leaf.cert_chain_pems).decode()
    return {"client_certificate": chain, "client_key": key}


async def deliver(run, webhooks):
    """Rotate a secret, publish an event, and wait until every delivery has ended."""
    sent = {"overlap_seconds": 3600}
    for number, kind in enumerate(("raw", "json")):
        answer = await run.call("POST", f"/webhooks/{webhooks[kind]}/rotate-secret", json=sent, kept=False)
        run.secrets[f"new secret {number}"] = answer["secret"]
    await asyncio.sleep(1)  # what the product promises: one second after the answer, a worker knows
    await run.deployment.publish(event("1", workspace=WORKSPACE))

    async def statuses():
        found = {}
        for kind, webhook_id in webhooks.items():
            rows = (await run.call("GET", f"/webhooks/{webhook_id}/deliveries", kept=False))["data"]
            found[kind] = {row["status"] for row in rows}
        return found

    ended = await eventually(
        statuses, lambda found: all(rows and rows <= ENDED for rows in found.values()), "every delivery has ended", 60
    )
    assert ended["raw"] == ended["base64"] == ended["hex"] == ended["bearer"] == {"delivered"}
    assert all(rows == {"failed"} for kind, rows in ended.items() if kind not in {"raw", "base64", "hex", "bearer"})


async def use_the_api(run, webhooks):
    """Call what shows webhooks, deliveries and dead letters, send tests, and be refused for bad secrets."""
    run.secrets["unknown API key"] = f"whk_{chance.token_urlsafe(32)}"
    run.secrets["refused secret"] = make_secret("refused") + "\0"
    run.secrets["refused key"] = make_secret("refused") + " with blanks"
    wrong = {"secret": run.secrets["refused secret"], "api_key": run.secrets["refused key"], "url": "no url"}
    await run.call(
        "GET", "/webhooks", status=401, headers={"Authorization": f"Bearer {run.secrets['unknown API key']}"}
    )
    await run.call("POST", "/webhooks", json=wrong, status=422)
    await run.call(
        "POST", "/webhooks", data=json.dumps(wrong)[:-1], status=400, headers={"Content-Type": "application/json"}
    )
    await run.call("PATCH", f"/webhooks/{webhooks['raw']}", json={"api_key": wrong["api_key"]}, status=422)
    elsewhere = {"url": "http://127.0.0.1:9/", "secret": wrong["secret"]}
    await run.call("PATCH", f"/webhooks/{webhooks['raw']}", json=elsewhere, status=422)
    run.secrets["second API key"] = (
        await run.call("POST", "/api-keys", json={"name": "second", "scopes": ["read"]}, kept=False)
    )["key"]
    for webhook_id in webhooks.values():
        await run.call("GET", f"/webhooks/{webhook_id}")
        await run.call("POST", f"/webhooks/{webhook_id}/test", json={})
        for row in (await run.call("GET", f"/webhooks/{webhook_id}/deliveries"))["data"]:
            await run.call("GET", f"/webhooks/{webhook_id}/deliveries/{row['id']}")
    for path in ("/webhooks", "/dead-letters", "/dead-letters/summary", "/audit-log", "/api-keys", "/replays"):
        await run.call("GET", path)
    for row in (await run.call("GET", "/dead-letters"))["data"]:
        await run.call("GET", f"/dead-letters/{row['id']}")
    run.secrets["changed key"] = make_secret("changed")
    await run.call("PATCH", f"/webhooks/{webhooks['hang']}", json={"api_key": run.secrets["changed key"], "name": "n"})


async def use_the_console(run, browser, webhooks):
    """Sign in, make a webhook, be refused, and open every page that a link leads to."""
    run.secrets["key of the console"], run.secrets["secret of the console"] = (
        make_token("console"),
        make_token("console"),
    )
    run.secrets["wrong sign-in"] = f"whk_{chance.token_urlsafe(32)}"
    await browser.get("/sign-in")
    refused = await browser.post("/sign-in", {"api_key": run.secrets["wrong sign-in"]})
    run.written.add("refused sign-in", refused.text)
    signed_in = await browser.post("/sign-in", {"api_key": run.secrets["API key"]})
    assert signed_in.status == 200, signed_in.words
    form = {
        "name": "", "url": run.deployment.receiver.url("/console"), "method": "POST", "max_attempts": "2",
        "content_type": "application/json", "status": "active", "payload_format": "event", "timeout_seconds": "10",
        "api_key_header": "X-API-Key", "notification_type": "REST", "events": "user.created",
        "api_key": run.secrets["key of the console"], "secret": run.secrets["secret of the console"],
    }  # fmt: skip
    await browser.get("/webhooks/new")
    refused = await browser.post("/webhooks/new", form)
    assert refused.status == 422, refused.words
    run.written.add("refused form", refused.text)
    shown = await browser.post("/webhooks/new", {**form, "name": "console"})
    assert run.secrets["secret of the console"] in shown.text  # the one time
    await browser.get(f"/webhooks/{webhooks['raw']}/test")
    run.written.add("test in the console", (await browser.post(f"/webhooks/{webhooks['raw']}/test", {})).text)
    seen, ahead, kinds = set(), ["/console", *(f"/console/webhooks/{each}" for each in webhooks.values())], Counter()
    while ahead:
        path = ahead.pop(0)
        kind = re.sub(r"(?<=_)[a-z0-9]{20,}|(?<=\?).*", "", path)
        if path in seen or kinds[kind] >= len(webhooks) or "sign-out" in path or "/static/" in path:
            continue
        seen.add(path)
        kinds[kind] += 1
        page = await browser.get(path.removeprefix("/console"))
        run.written.add(path, f"{dict(page.headers)}\n{page.text}")
        ahead += [html.unescape(found) for found in PUBLIC.findall(page.text)]
    assert any("/deliveries/del_" in path for path in seen), seen
    assert any("/dead-letters/del_" in path for path in seen), seen


async def use_the_commands(run):
    """Run the commands that show something, and some that fail over what they were given."""
    letters = [row["id"] for row in (await run.call("GET", "/dead-letters"))["data"][:2]]
    mongo, proxy = run.environment["DISPATCHER_MONGO_URI"], run.environment["DISPATCHER_EGRESS_PROXY"]
    keys = ",".join(run.environment["DISPATCHER_ENCRYPTION_KEYS"].split(",")[::-1])
    run.secrets["wrong mongo password"] = wrong = make_token("wrong")
    sasl = {
        "KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT",
        "KAFKA_SASL_USERNAME": "me",
        "KAFKA_SASL_PASSWORD": run.secrets["sasl password"],
    }
    wanted = [
        ("settings", 0, {}),
        ("settings --json", 0, sasl),
        ("settings", 2, {"ENCRYPTION_KEYS": keys + "x", "EGRESS_PROXY": f"{proxy}/x"}),
        ("api-keys list", 0, {}),
        ("api-keys list", 1, {"MONGO_URI": mongo.replace(run.secrets["mongo password"], wrong)}),
        ("api-keys list", 2, {"MONGO_URI": mongo.replace("mongodb://", "mongodb:// ")}),
        ("topics check", 0, {}),
        ("topics check", 1, sasl),
        ("dead-letters list", 0, {}),
        ("dead-letters list --json", 0, {}),
        ("dead-letters replay --dry-run", 0, {}),
        (f"dead-letters show {letters[0]}", 0, {}),
        (f"dead-letters show {letters[1]} --json", 0, {}),
        ("secrets rotate-key", 0, {"ENCRYPTION_KEYS": keys}),
    ]
    gate = asyncio.Semaphore(3)

    async def command(words, code, environment):
        async with gate:
            await run.command(*words.split(), code=code, **environment)

    await asyncio.gather(*(command(*each) for each in wanted))


async def keep_topics_and_documents(run):
    """Keep every record of every topic, and every document of the database as MongoDB has it."""
    deployment = run.deployment
    for topic in (*deployment.names.own(), deployment.source):
        for record in await deployment.records(topic):
            parts = [
                record.key or b"",
                record.value or b"",
                *(name.encode() + b"=" + text for name, text in record.headers),
            ]
            run.written.add(f"topic {topic}", b"\n".join(parts))
    raw = CodecOptions(document_class=RawBSONDocument)
    database = deployment.connection.database
    for name in await database.list_collection_names():
        async for document in database.get_collection(name, codec_options=raw).find({}):
            run.written.add(f"collection {name}", bytes(document.raw))


async def keep_live_objects(run):
    """Let a worker of this process deliver, then keep what each of its objects says of itself."""
    receiver = run.deployment.receiver
    before = len(receiver.at("/raw"))
    async with run.deployment.worker():
        await run.deployment.publish(event("2", workspace=WORKSPACE))
        await eventually(_later(lambda: len(receiver.at("/raw")) > before), bool, "a delivery from this process")
        gc.unfreeze()  # what a worker holds from its start is among the objects again
        kinds = set()
        for thing in gc.get_objects():
            if str(type(thing).__module__).startswith("dispatcher."):
                kinds.add(type(thing).__name__)
                run.written.add(f"repr of {type(thing).__name__}", repr(thing))
    assert {"Settings", "MongoSettings", "Keyring", "RequestTemplate", "Subscription", "SealedSecret"} <= kinds


def _later(ask):
    async def answer():
        return ask()

    return answer


async def _is_ready(client, page):
    try:
        async with client.get(f"{page}/readyz") as response:
            return response.status == 200
    except aiohttp.ClientError:
        return False


def assert_complete(run):
    """See that the search has something to search: every kind of place, and a mark where endpoints echoed."""
    places = {place.split(" ")[0] for place, _ in run.written.texts}
    assert {"topic", "collection", "repr", "GET", "POST", "dispatcher", "the", "/console"} <= places
    collections = {place for place, _ in run.written.texts if place.startswith("collection")}
    assert {
        f"collection {name}" for name in ("webhooks", "deliveries", "audit", "idempotency", "api_keys")
    } <= collections
    topics = {place.rpartition(".")[2] for place, _ in run.written.texts if place.startswith("topic")}
    assert {"dead-letter", "outcomes", "300ms"} <= topics
    deliveries = b"".join(text for place, text in run.written.texts if place == "collection deliveries")
    assert deliveries.count(b"***") > len(ECHOES), "what endpoints echoed is not in the log"
    debug = b"".join(text for place, text in run.written.texts if place.startswith("the "))
    assert b'"debug"' in debug
    for place in ("the worker's log", "the API's log"):
        assert any(text for where, text in run.written.texts if where == place), f"{place} is empty"


@pytest.mark.parametrize("secret", ["plain-0123456789", f"tricky{TRICKY}0123456789", b"\xff\x00raw bytes\xfe" * 2])
def test_the_search_finds_each_form(secret):
    """Whatever the form, and wherever within other text, a secret is found and named with its place."""
    raw = secret.encode() if isinstance(secret, str) else secret
    for form, text in forms_of(raw).items():
        written = Written()
        written.add("somewhere", b"before " + text + b" after")
        assert any(found.startswith(f"it ({form}) in somewhere") for found in written.leaks({"it": secret})), form
    for before in range(3):
        written = Written()
        written.add("a cookie", base64.urlsafe_b64encode(b"b" * before + raw + b"after"))
        assert written.leaks({"it": secret})
