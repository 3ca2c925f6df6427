"""The README says what the code says."""

import re
from ipaddress import ip_network
from pathlib import Path

from dispatcher.cli.metrics import markdown as metrics_catalogue
from dispatcher.cli.settings import markdown
from dispatcher.core import addresses

README = Path(__file__).parents[2] / "README.md"


def test_the_settings_are_those_of_the_code():
    """The table of settings is the generated one (mend it with: dispatcher settings --markdown)."""
    _, _, behind = README.read_text().partition("<!-- settings -->\n")
    assert behind.partition("\n<!-- /settings -->")[0] == markdown()


def test_an_egress_proxy_is_told_what_the_guard_refuses():
    """What the documentation asks of a proxy has every network that the guard refuses, or one that it is in."""
    text = (README.parent / "deploy" / "README.md").read_text().partition("## Behind an egress proxy")[2]
    text = text.partition("\n## ")[0]
    told = [ip_network(found) for found in re.findall(r"[0-9a-f.:]+/[0-9]+", text)]
    public = ip_network("2000::/3")
    for network, _ in (*addresses._FORBIDDEN_V4, *addresses._FORBIDDEN_V6):
        if network.prefixlen == 32 and network.version == 4:
            continue  # a cloud's own service, which the text names in words
        if network.version == 6 and not network.subnet_of(public):
            continue  # outside of what the text leaves open
        assert any(network.version == other.version and network.subnet_of(other) for other in told), network


def test_the_catalogue_of_metrics_is_that_of_the_code():
    """The catalogue of metrics is the generated one (dispatcher metrics --markdown > deploy/METRICS.md)."""
    assert (README.parent / "deploy" / "METRICS.md").read_text() == metrics_catalogue() + "\n"
