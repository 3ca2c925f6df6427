"""The egress proxy's setting."""

import pytest

from dispatcher.core.errors import SettingsError
from dispatcher.http.proxy import EgressProxy, parse_egress_proxy


@pytest.mark.parametrize(
    ("text", "proxy"),
    [
        ("http://proxy:3128", EgressProxy("proxy", 3128)),
        ("http://proxy:3128/", EgressProxy("proxy", 3128)),
        ("http://[::1]:3128", EgressProxy("::1", 3128)),
        ("http://u:p%40%3A@10.0.0.1:80", EgressProxy("10.0.0.1", 80, "Basic dTpwQDo=")),
        ("http://u@proxy:3128", EgressProxy("proxy", 3128, "Basic dTo=")),
    ],
)
def test_the_setting_is_read(text, proxy):
    """Host, port and percent-encoded credentials come out of the setting."""
    assert parse_egress_proxy(text) == proxy


@pytest.mark.parametrize(
    "text",
    ["", "proxy:3128", "https://proxy:3128", "socks5://proxy:1080", "http://proxy", "http://:3128", "http://proxy:0",
     "http://proxy:99999", "http://proxy:3128/path", "http://proxy:3128?x=1", "http://u:secret@proxy:x"],
)  # fmt: skip
def test_other_forms_are_refused_without_repeating_them(text):
    """The error says the form that is wanted and repeats no password."""
    with pytest.raises(SettingsError, match="DISPATCHER_EGRESS_PROXY") as caught:
        parse_egress_proxy(text)
    assert "secret" not in str(caught.value)


def test_credentials_are_not_shown():
    """The credentials don't show where the object is printed."""
    assert "dTpw" not in repr(parse_egress_proxy("http://u:p@proxy:3128"))
