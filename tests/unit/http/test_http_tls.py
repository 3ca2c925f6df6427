"""TLS contexts and their errors in words."""

import re
import ssl

import pytest
import trustme

from dispatcher.config.table import SETTINGS
from dispatcher.http.tls import explain_tls_error, make_context
from dispatcher.operations.webhook_fields import NewWebhook, WebhookChange


def test_the_context_verifies_and_starts_at_tls_1_2():
    """Certificates and names are verified, and nothing older than TLS 1.2 is spoken."""
    context = make_context()
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert not context.hostname_checks_common_name
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2


def test_the_environment_does_not_log_keys(monkeypatch, tmp_path):
    """SSLKEYLOGFILE of the environment doesn't make the context write session keys."""
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys"))
    assert make_context().keylog_filename is None


def test_a_bundle_is_trusted_beside_the_systems_authorities(tmp_path, monkeypatch):
    """A bundle adds its authorities and takes none away; one that can't be read is an error at once."""
    systems = tmp_path / "systems.pem"
    trustme.CA().cert_pem.write_to_path(str(systems))
    monkeypatch.setenv("SSL_CERT_FILE", str(systems))
    assert make_context().cert_store_stats()["x509_ca"] == 1
    with pytest.raises(FileNotFoundError):
        make_context(tmp_path / "missing.pem")
    bundle = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(str(bundle))
    assert make_context(bundle).cert_store_stats()["x509_ca"] == 2
    empty = tmp_path / "empty.pem"
    empty.write_text("no certificate")
    with pytest.raises(ssl.SSLError):
        make_context(empty)


def test_errors_are_told_in_words():
    """A known reason has a sentence, an unknown one its name in plain letters, a bare break its own words."""
    known = ssl.SSLError(1, "x")
    known.reason = "WRONG_VERSION_NUMBER"
    unknown = ssl.SSLError(1, "x")
    unknown.reason = "SOME_NEW_REASON"
    assert explain_tls_error(known) == "the endpoint doesn't speak TLS on this port"
    assert explain_tls_error(unknown) == "the TLS handshake failed: some new reason"
    assert "closed" in explain_tls_error(ConnectionResetError())


def test_nothing_switches_verification_off():
    """Neither a webhook's fields nor the settings have a word for trusting what doesn't verify."""
    names = [*NewWebhook.model_fields, *WebhookChange.model_fields, *(setting.name for setting in SETTINGS)]
    assert names
    for name in names:
        assert not re.search(
            "verif|insecure|skip|unsafe|self_?signed|tls|ssl_(?!cafile|certfile|keyfile)", name.lower()
        )
