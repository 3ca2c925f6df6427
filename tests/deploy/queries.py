"""What the queries of rules and panels ask for."""

import re
from pathlib import Path

import yaml

from dispatcher.metrics import instruments

ALERTS = Path(__file__).parents[2] / "deploy" / "alerts.yaml"


def rules():
    """Give all rules, alerts and recorded ones."""
    return [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]


def known_names():
    """Give the names of all series that there are: of the catalogue, and what rules record."""
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    return recorded | {name for each in instruments() for name in _series(each)}


def metrics_in(query):
    """Give the dispatcher's metrics that a query names."""
    return set(re.findall(r"\bdispatcher[_:][a-z0-9_:]+", re.sub(r'"[^"]*"', "", query)))


def _series(instrument):
    suffixes = ("_bucket", "_sum", "_count") if instrument.type == "histogram" else ("",)
    return [f"{instrument.name}{suffix}" for suffix in suffixes]
