"""TLS contexts by client certificate: each certificate has one of its own, and none is ever shared.

A context holds a certificate's key, so that a context that served two webhooks could answer one endpoint's question
with the other one's certificate.
"""

import asyncio
import os
import re
import ssl
import tempfile
from collections import OrderedDict
from pathlib import Path

from dispatcher.core.errors import NoConnectionError
from dispatcher.core.exchange import ClientCertificate, SendFailure
from dispatcher.http.tls import make_context, make_strict_context

MAX_LIGHT_CONTEXTS = 1_000
"""How many contexts are kept that look authorities up by need, about 25 KiB each."""
MAX_HEAVY_CONTEXTS = 50
"""How many are kept that have all authorities loaded, about 1 MiB each."""

_HASHED = re.compile(r"[0-9a-f]{8}\.\d+")
_CERTIFICATE = re.compile("-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)
_UNUSABLE = "the client certificate can't be used; set client_certificate and client_key again"


class TlsContexts:
    """The contexts of one sender, which all verify alike.

    Args:
        ca_bundle: PEM file of authorities to trust beside the system's.

    Attributes:
        plain: The context of every request without a client certificate.

    Raises:
        OSError: The bundle can't be read, or holds no certificate (ssl.SSLError).
    """

    def __init__(self, ca_bundle: Path | None = None) -> None:
        self.plain = make_context(ca_bundle)
        self._ca_bundle = ca_bundle
        self._folder: str | None = None
        self._most = 0
        self._kept: OrderedDict[str, ssl.SSLContext] = OrderedDict()

    async def of(self, client: ClientCertificate | None) -> ssl.SSLContext:
        """Return the context of a client certificate; made at its first use, in a thread.

        Raises:
            NoConnectionError: The certificate or its key can't be used; its failure is `tls`.
        """
        if client is None:
            return self.plain
        context = self._kept.get(client.id)
        if context is None:
            try:
                if not self._most:
                    self._folder = await asyncio.to_thread(_hashed_authorities)
                    self._most = MAX_HEAVY_CONTEXTS if self._folder is None else MAX_LIGHT_CONTEXTS
                context = await asyncio.to_thread(self._make, client)
            except (OSError, ValueError):
                # The error's own words may quote a path and nothing else of use.
                raise NoConnectionError(SendFailure.TLS, _UNUSABLE) from None
            self._kept[client.id] = context
            if len(self._kept) > self._most:
                self._kept.popitem(last=False)
        self._kept.move_to_end(client.id)
        return context

    def _make(self, client: ClientCertificate) -> ssl.SSLContext:
        if self._folder is None:
            context = make_context(self._ca_bundle)
        else:
            context = make_strict_context()
            context.load_verify_locations(cafile=self._ca_bundle, capath=self._folder)
        _load(context, client.certificate + b"\n" + client.key)
        return context


def _load(context: ssl.SSLContext, pem: bytes) -> None:
    """Give a context its certificate and key, which the ssl module reads from files alone."""
    if not hasattr(os, "memfd_create"):
        with tempfile.NamedTemporaryFile() as file:  # only the owner can read it
            file.write(pem)
            file.flush()
            context.load_cert_chain(file.name, password=_refuse)
        return
    descriptor = os.memfd_create("client-certificate", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, pem)
        context.load_cert_chain(f"/proc/self/fd/{descriptor}", password=_refuse)
    finally:
        os.close(descriptor)


def _refuse() -> str:
    """Stand for a pass phrase: OpenSSL would ask for one on the terminal."""
    raise ValueError("the key has a pass phrase")


def _hashed_authorities() -> str | None:
    """Return the folder in which OpenSSL finds each of the system's authorities by its hash, where there is one.

    Contexts look into that folder in any case, so that it never adds an authority; where it lacks one of those that
    come from the system's one file, all are loaded into each context.
    """
    folder = ssl.get_default_verify_paths().capath
    if folder is None or not Path(folder).is_dir():
        return None
    loaded = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    loaded.load_default_certs(ssl.Purpose.SERVER_AUTH)
    hashed = {_read(path) for path in Path(folder).iterdir() if _HASHED.fullmatch(path.name)}
    return folder if hashed and hashed.issuperset(loaded.get_ca_certs(binary_form=True)) else None


def _read(path: Path) -> bytes | None:
    try:
        return ssl.PEM_cert_to_DER_cert(_CERTIFICATE.search(path.read_text("latin-1"))[0])  # type: ignore[index]
    except (OSError, TypeError, ValueError):
        return None
