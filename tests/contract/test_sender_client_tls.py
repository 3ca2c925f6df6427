"""Mutual TLS, over real sockets: whose certificate an endpoint sees, and that nobody else's request comes with it."""

import asyncio
import dataclasses
import datetime as dt
import shutil
import ssl
import subprocess
from pathlib import Path

import pytest
import trustme

from dispatcher.core.exchange import ClientCertificate, SendFailure
from dispatcher.http import client_tls, pool, sender
from dispatcher.http.client_tls import TlsContexts
from dispatcher.http.sender import Sender
from tests.contract.endpoints import (
    LOOPBACK,
    OK,
    Authority,
    Visit,
    make_request,
    proxying,
    serving,
    serving_in_a_thread,
    wait_until,
)

CLIENTS = trustme.CA()


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
async def sending(authority):
    made = Sender(LOOPBACK, ca_bundle=authority.bundle)
    yield made
    await made.close()


def certificate_of(name: str, *, owner: str = "", by: trustme.CA = CLIENTS, ended: bool = False) -> ClientCertificate:
    """Issue a client's certificate; its id is the owner's."""
    until = dt.datetime.now(dt.UTC) - dt.timedelta(days=1) if ended else None
    leaf = by.issue_cert(common_name=name, not_after=until)
    chain = b"".join(pem.bytes() for pem in leaf.cert_chain_pems)
    return ClientCertificate(owner or name, chain, leaf.private_key_pem.bytes())


def asking(authority: Authority, *, required: bool = True, tls: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    """Make the context of an endpoint that wants a client certificate."""
    context = authority.context("localhost")
    CLIENTS.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED if required else ssl.CERT_OPTIONAL
    if tls is not None:
        context.maximum_version = tls
    return context


class Names:
    """The script of a keep-alive endpoint that notes, for each request, who the client said it was."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, int]] = []

    async def __call__(self, visit: Visit) -> None:
        """Answer every request; note its body, the certificate's common name and the connection's number."""
        while True:
            _, body = await visit.request()
            self.seen.append((body.decode(), visit.client_name, visit.number))
            visit.send(OK)


def request(url: str, body: str, client: ClientCertificate | None):
    """Make a request whose body says for whom it is."""
    return dataclasses.replace(make_request(url, body.encode(), workspace_id=body), client=client)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_an_endpoint_sees_the_certificate_of_each_request_and_no_other(sending, authority, version):
    """Tenants of one endpoint take turns over kept connections: each request has its own certificate, or none."""
    names, clients = Names(), {"a": certificate_of("a"), "b": certificate_of("b"), "": None}
    async with serving(names, tls=asking(authority, required=False, tls=version)) as endpoint:
        url = endpoint.url_for("localhost")
        for _ in range(3):
            for body, client in clients.items():
                assert (await sending.exchange(request(url, body, client))).status == 200
        many = [sending.exchange(request(url, body, clients[body])) for body in ["a", "b", ""] * 20]
        assert {answer.status for answer in await asyncio.gather(*many)} == {200}
        for body, client in clients.items():
            assert (await sending.exchange(request(url, body, client))).status == 200
    assert len(names.seen) == 72
    assert all(body == name for body, name, _ in names.seen)
    assert len({number for _, _, number in names.seen[:9]}) == 3


async def test_without_the_identity_in_the_pools_key_tenants_are_mixed(sending, authority, monkeypatch):
    """The same with connections told apart by URL alone: one tenant's request arrives under another's name."""
    monkeypatch.setattr(pool.Pool, "take", _without_identity(pool.Pool.take))
    monkeypatch.setattr(sender, "Connection", _connection_without_identity(sender.Connection))
    names = Names()
    async with serving(names, tls=asking(authority)) as endpoint:
        url = endpoint.url_for("localhost")
        for body in "ab":
            assert (await sending.exchange(request(url, body, certificate_of(body)))).status == 200
    assert names.seen == [("a", "a", 1), ("b", "a", 1)]


def _without_identity(take):
    return lambda self, key, now: take(self, (*key[:3], None), now)


def _connection_without_identity(make):
    return lambda key, *others, **options: make((*key[:3], None), *others, **options)


async def test_another_certificate_of_the_same_webhook_uses_a_new_connection(sending, authority):
    """After a change of the certificate nothing goes over the connections of the old one."""
    names = Names()
    async with serving(names, tls=asking(authority)) as endpoint:
        url = endpoint.url_for("localhost")
        for name in ("old", "old", "new", "new"):
            assert (await sending.exchange(request(url, "", certificate_of(name, owner=name)))).status == 200
    assert [(name, number) for _, name, number in names.seen] == [("old", 1), ("old", 1), ("new", 2), ("new", 2)]


async def test_an_endpoint_that_does_not_ask_sees_none(sending, authority):
    """A certificate is shown only where the endpoint asks for one."""
    names = Names()
    async with serving(names, tls=authority.context("localhost")) as endpoint:
        answer = await sending.exchange(request(endpoint.url_for("localhost"), "", certificate_of("a")))
    assert (answer.status, names.seen) == (200, [("", "", 1)])


async def test_the_endpoint_is_verified_before_anything_is_shown(sending, authority, tmp_path):
    """With a client certificate the endpoint's own is checked like any: name and authority count."""
    for context in (Authority(tmp_path).context("localhost"), authority.context("other.example")):
        CLIENTS.configure_trust(context)
        context.verify_mode = ssl.CERT_REQUIRED
        names = Names()
        async with serving(names, tls=context) as endpoint:
            answer = await sending.exchange(request(endpoint.url_for("localhost"), "", certificate_of("a")))
        assert answer.failure is SendFailure.TLS
        assert "the certificate is not accepted" in answer.detail
        assert names.seen == []


async def test_contexts_with_a_certificate_verify_like_the_plain_one(authority, monkeypatch):
    """Whether authorities are looked up by need or loaded, each context verifies, from TLS 1.2 up."""
    for folder in (client_tls._hashed_authorities(), None):
        monkeypatch.setattr(client_tls, "_hashed_authorities", lambda folder=folder: folder)
        contexts = TlsContexts(authority.bundle)
        made = await contexts.of(certificate_of("a"))
        for name in ("verify_mode", "check_hostname", "minimum_version", "hostname_checks_common_name", "options"):
            assert getattr(made, name) == getattr(contexts.plain, name), name
        assert made is not contexts.plain
        assert made is await contexts.of(certificate_of("a"))
        assert made is not await contexts.of(certificate_of("b"))
        assert await contexts.of(None) is contexts.plain


def subject_hash(pem: Path) -> str:
    """Name an authority as OpenSSL looks it up."""
    command = ("openssl", "x509", "-noout", "-subject_hash", "-in", str(pem))
    return subprocess.run(command, capture_output=True, check=True, text=True).stdout.strip()


@pytest.mark.skipif(
    shutil.which("openssl") is None, reason="openssl, which names authorities by hash, is not installed"
)
async def test_authorities_are_found_by_need(authority, tmp_path, monkeypatch):
    """Where the system has its authorities by hash, a context loads none and finds the one that it needs."""
    (tmp_path / f"{subject_hash(authority.bundle)}.0").write_bytes(authority.bundle.read_bytes())
    for folder, status in ((tmp_path, 200), (tmp_path / "none", 0)):
        monkeypatch.setattr(client_tls, "_hashed_authorities", lambda folder=folder: str(folder))
        sending, names = Sender(LOOPBACK), Names()
        async with serving(names, tls=asking(authority)) as endpoint:
            answer = await sending.exchange(request(endpoint.url_for("localhost"), "a", certificate_of("a")))
        (kept,) = sending._dialer._contexts._kept.values()
        assert (answer.status, kept.cert_store_stats()["x509_ca"]) == (status, 1 if status else 0)
        await sending.close()


def test_the_systems_folder_is_used_only_where_it_has_every_authority(monkeypatch, tmp_path):
    """A folder by hash counts where each authority of the system's file is in it as well."""
    folder, file = tmp_path / "folder", tmp_path / "authorities.pem"
    folder.mkdir()
    monkeypatch.setenv("SSL_CERT_DIR", str(folder))
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    pems = [trustme.CA().cert_pem.bytes() for _ in range(3)]
    file.write_bytes(pems[0] + pems[1])
    assert client_tls._hashed_authorities() is None
    (folder / "00000000.0").write_bytes(b"of whom\n" + pems[0])
    (folder / "garbage.pem").write_bytes(pems[1])
    (folder / "00000001.0").write_bytes(b"no certificate")
    assert client_tls._hashed_authorities() is None
    (folder / "00000001.1").write_bytes(pems[1])
    (folder / "00000002.0").write_bytes(pems[2])
    assert client_tls._hashed_authorities() == str(folder)
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "none"))
    assert client_tls._hashed_authorities() is None


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("none", {"wants a client certificate", "refused the TLS handshake"}),
        ("of another authority", {"doesn't know the authority of the client certificate"}),
        ("expired", {"refused the client certificate: it has expired"}),
    ],
)
async def test_a_refused_certificate_is_told_in_words(sending, authority, case, words, version):
    """An endpoint that wants another certificate, or any, makes a failure that says so, with both versions of TLS."""
    client = {
        "none": None,
        "of another authority": certificate_of("a", by=trustme.CA()),
        "expired": certificate_of("a", ended=True),
    }[case]
    with serving_in_a_thread(asking(authority, tls=version)) as (port, requests):
        answer = await sending.exchange(request(f"https://localhost:{port}/", "", client))
    assert (answer.status, answer.failure, requests) == (0, SendFailure.TLS, [])
    assert any(each in answer.detail for each in words)
    assert sending.stats().open == 0


@pytest.mark.parametrize("broken", ["key", "certificate"])
async def test_a_pair_that_can_not_be_used_fails_in_words(sending, authority, broken):
    """A stored pair that OpenSSL doesn't take fails its own attempts, and no connection is made."""
    other = certificate_of("b")
    client = dataclasses.replace(certificate_of("a"), **{broken: getattr(other, broken)})
    async with serving(Names(), tls=asking(authority)) as endpoint:
        answer = await sending.exchange(request(endpoint.url_for("localhost"), "", client))
        assert answer.failure is SendFailure.TLS
        assert "client certificate can't be used" in answer.detail
        assert endpoint.connections == 0


async def test_it_works_through_the_proxy(authority):
    """Behind an egress proxy the endpoint sees the certificate, and the proxy doesn't."""
    names = Names()
    async with proxying() as proxy, serving(names, tls=asking(authority)) as endpoint:
        through = Sender(LOOPBACK, ca_bundle=authority.bundle, egress_proxy=f"http://127.0.0.1:{proxy.port}")
        answer = await through.exchange(request(endpoint.url_for("localhost"), "a", certificate_of("a")))
        await through.close()
    assert (answer.status, names.seen) == (200, [("a", "a", 1)])


async def test_contexts_are_bounded(authority, monkeypatch):
    """Of many certificates the least recently used contexts are dropped."""
    monkeypatch.setattr(client_tls, "MAX_LIGHT_CONTEXTS", 2)
    monkeypatch.setattr(client_tls, "MAX_HEAVY_CONTEXTS", 2)
    contexts = TlsContexts(authority.bundle)
    for name in ("a", "b", "a", "c"):
        await contexts.of(certificate_of(name))
    assert list(contexts._kept) == ["a", "c"]


async def test_no_file_is_left_and_the_key_is_in_no_repr(sending, authority, tmp_path, monkeypatch):
    """The key reaches OpenSSL without a file that stays, with and without memory files, and shows in no repr."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    client = certificate_of("a")
    assert "PRIVATE KEY" not in repr(client)
    assert "PRIVATE KEY" not in repr(request("https://localhost/", "", client))
    await TlsContexts(authority.bundle).of(client)
    monkeypatch.delattr("os.memfd_create", raising=False)
    await TlsContexts(authority.bundle).of(client)
    assert list(tmp_path.iterdir()) == []
    await wait_until(lambda: sending.stats().open == 0, "nothing was connected")
