"""Readers: each turns the text of one setting into its value.

A reader raises ValueError whose text says what is wrong and what to write instead; it follows the setting's name.
The texts of secrets are never repeated.
"""

import base64
import binascii
import datetime as dt
import ipaddress
import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from urllib.parse import urlsplit

from dispatcher.core.model import WORKSPACE_ID, RetryTier
from dispatcher.core.retry import parse_tier
from dispatcher.settings import Network

Reader = Callable[[str], object]

_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")
_SERVER = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]+):([0-9]{1,5})")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_DATABASE = re.compile(r'[^/\\. "$*<>:|?\x00-\x1f]{1,63}')
_TRUE = frozenset({"true", "1", "yes", "on"})
_FALSE = frozenset({"false", "0", "no", "off"})
_KEY_BYTES = 32
_LONGEST_TIER_MS = 365 * 86_400_000
_HIGHEST_PORT = 65_535


def comma_list(text: str) -> list[str]:
    """Split at commas; blanks around and empty members are left out."""
    return [part.strip() for part in text.split(",") if part.strip()]


def integer(low: int, high: int) -> Reader:
    """Read a whole number within bounds, both included."""

    def read(text: str) -> int:
        if re.fullmatch(r"-?[0-9]{1,18}", text) is None or not low <= int(text) <= high:
            raise ValueError(f"is {shown(text)}; write a whole number from {low} to {high}")
        return int(text)

    return read


def port(text: str) -> int:
    """Read a port to listen on; 0 takes a free one."""
    if text.startswith("tcp://"):
        raise ValueError(
            f"is {shown(text)}, which Kubernetes made for a service of that name; "
            "set enableServiceLinks: false in the pod's specification"
        )
    if re.fullmatch(r"[0-9]{1,5}", text) is None or int(text) > _HIGHEST_PORT:
        raise ValueError(f"is {shown(text)}; write a port from 0 (a free one) to {_HIGHEST_PORT}")
    return int(text)


def ports(text: str) -> frozenset[int]:
    """Read a comma list of ports."""
    found = comma_list(text)
    for part in found:
        if re.fullmatch(r"[0-9]{1,5}", part) is None or not 0 < int(part) <= _HIGHEST_PORT:
            raise ValueError(f"has {shown(part)}; write ports from 1 to {_HIGHEST_PORT}, such as 25,8443")
    return frozenset(int(part) for part in found)


def boolean(text: str) -> bool:
    """Read true or false."""
    if text.lower() not in _TRUE | _FALSE:
        raise ValueError(f"is {shown(text)}; write true or false")
    return text.lower() in _TRUE


def choice(*allowed: str, upper: bool = False) -> Reader:
    """Read one of some words, in any case."""

    def read(text: str) -> str:
        word = text.upper() if upper else text.lower()
        if word not in allowed:
            raise ValueError(f"is {shown(text)}; write one of {', '.join(allowed)}")
        return word

    return read


def text_up_to(length: int) -> Reader:
    """Read a text without control characters."""

    def read(text: str) -> str:
        if len(text) > length or _CONTROL.search(text):
            raise ValueError(f"is too long or has control characters; write at most {length} printable characters")
        return text

    return read


def workspace(text: str) -> str:
    """Read the id of a workspace."""
    if WORKSPACE_ID.fullmatch(text) is None:
        raise ValueError(
            f"is {shown(text)}; write 1 to 64 letters, digits, dots, hyphens and underscores, "
            "a letter, digit or underscore first"
        )
    return text


def secret(text: str) -> str:
    """Read a text that is never shown."""
    return text


def header_text(text: str) -> str:
    """Read the value of a request header."""
    if not text.isascii() or not text.isprintable() or len(text) > 200:  # noqa: PLR2004 - far beyond any product name
        raise ValueError("is no header value; write at most 200 printable ASCII characters, such as Acme-Webhooks/1.0")
    return text


def host(text: str) -> str:
    """Read a name or address to listen on."""
    if re.fullmatch(r"[A-Za-z0-9_.:%-]{1,255}", text) is None:
        raise ValueError(f"is {shown(text)}; write a host name or an IP address without brackets, such as 0.0.0.0")
    return text


def servers(text: str) -> str:
    """Read a comma list of `host:port`; returned as it is given to a client, without blanks."""
    found = comma_list(text)
    for part in found:
        match = _SERVER.fullmatch(part)
        if match is None or not 0 < int(match[2]) <= _HIGHEST_PORT:
            raise ValueError(f"has {shown(part)}; write host:port, several separated by commas, such as kafka-1:9092")
    if not found:
        raise ValueError("names no server; write host:port, several separated by commas, such as kafka-1:9092")
    return ",".join(found)


def mongo_uri(text: str) -> str:
    """Read a MongoDB connection string; never shown, for it may hold a password."""
    if re.fullmatch(r"mongodb(\+srv)?://[^\s\x00-\x1f/][^\s\x00-\x1f]*", text) is None:
        raise ValueError(
            "is no MongoDB address; write mongodb://host:port/?replicaSet=name or mongodb+srv://name "
            "(and percent-encode what is special in a password)"
        )
    return text


def database(text: str) -> str:
    """Read the name of a MongoDB database."""
    if _DATABASE.fullmatch(text) is None:
        raise ValueError(f'is {shown(text)}; write up to 63 characters without blanks and without /\\."$*<>:|?')
    return text


def topic(text: str) -> str:
    """Read one topic name."""
    if _TOPIC.fullmatch(text) is None or text in {".", ".."}:
        raise ValueError(f"has {shown(text)}; a topic name is 1 to 249 letters, digits, dots, underscores and dashes")
    return text


def topic_prefix(text: str) -> str:
    """Read the prefix of the own topics; it leaves room for their last parts."""
    if len(topic(text)) > 200:  # noqa: PLR2004 - 249 less what follows it
        raise ValueError("is too long; write at most 200 characters")
    return text


def sources(text: str) -> str | tuple[str, ...]:
    """Read the source topics: a pattern starting with `^`, or a comma list of names."""
    if text.startswith("^"):
        try:
            re.compile(text)
        except (re.error, OverflowError, RecursionError) as error:
            problem = shown(str(error))
            raise ValueError(f"is no regular expression ({problem}); write one such as ^events[.].*") from None
        return text
    names = tuple(topic(part) for part in comma_list(text))
    if not names:
        raise ValueError("names no topic; write names separated by commas, or a pattern starting with ^")
    if len(set(names)) < len(names):
        raise ValueError("names a topic twice; write each once")
    return names


def start_from(text: str) -> str | dt.datetime:
    """Read `latest`, `earliest` or a time with an offset, returned as UTC."""
    if text.lower() in {"latest", "earliest"}:
        return text.lower()
    try:
        at = dt.datetime.fromisoformat(text)
        if at.tzinfo is not None:
            return at.astimezone(dt.UTC)
    except (ValueError, OverflowError):
        pass
    raise ValueError(f"is {shown(text)}; write latest, earliest or a time such as 2026-01-15T10:30:00Z")


def tiers(text: str) -> tuple[RetryTier, ...]:
    """Read the retry schedule: delays, each longer than the one before."""
    found = tuple(parse_tier(part) for part in comma_list(text))
    if not found:
        raise ValueError("has no delay; write some, such as 1m,5m,30m,1h,6h")
    for before, after in pairwise(found):
        if after.delay_ms <= before.delay_ms:
            raise ValueError(
                f"has {after.name} after {before.name}; write every delay once, the shortest first, such as 1m,5m,30m"
            )
    if found[-1].delay_ms > _LONGEST_TIER_MS:
        raise ValueError(f"has {found[-1].name}; write delays of at most 365d")
    return found


def duration_ms(text: str) -> int:
    """Read a duration such as `30m`, as milliseconds."""
    return parse_tier(text.strip()).delay_ms


def networks(text: str) -> tuple[Network, ...]:
    """Read a comma list of networks in CIDR notation."""
    found: list[Network] = []
    for part in comma_list(text):
        try:
            loose = ipaddress.ip_network(part, strict=False)
        except ValueError:
            raise ValueError(f"has {shown(part)}; write networks such as 10.0.0.0/8,fd00::/8") from None
        try:
            found.append(ipaddress.ip_network(part))
        except ValueError:
            raise ValueError(f"has {shown(part)}, an address within a network; write {loose}") from None
    return tuple(found)


def proxy(text: str) -> str:
    """Read the address of an HTTP proxy; never shown, for it may hold a password."""
    wrong = "is no proxy address; write http://host:port or http://user:password@host:port"
    try:
        parts = urlsplit(text)
        complete = parts.scheme == "http" and parts.hostname and parts.port
    except ValueError:
        raise ValueError(wrong) from None
    if not complete or parts.path not in {"", "/"} or parts.query or parts.fragment or not text.isprintable():
        raise ValueError(wrong)
    return text


def encryption_keys(text: str) -> tuple[bytes, ...]:
    """Read a comma list of base64 keys of 32 bytes; the first encrypts, all decrypt. Never shown."""
    keys = []
    for number, part in enumerate(comma_list(text), start=1):
        try:
            key = base64.b64decode(part.translate(str.maketrans("-_", "+/")), validate=True)
        except (binascii.Error, ValueError):
            key = b""
        if len(key) != _KEY_BYTES:
            raise ValueError(f"has a key (number {number}) that isn't base64 of 32 bytes; make one with: {MAKE_KEY}")
        keys.append(key)
    if not keys:
        raise ValueError(f"has no key; make one with: {MAKE_KEY}")
    return tuple(keys)


MAKE_KEY = "openssl rand -base64 32"


def file(text: str) -> Path:
    """Read the path of a file that exists."""
    return _existing(text, Path.is_file, "file")


def folder(text: str) -> Path:
    """Read the path of a folder that exists."""
    return _existing(text, Path.is_dir, "folder")


def path(text: str) -> Path:
    """Read a path, whether something is there or not."""
    if _CONTROL.search(text):
        raise ValueError("has a control character; write a path")
    return Path(text)


def _existing(text: str, is_there: Callable[[Path], bool], kind: str) -> Path:
    try:
        found = is_there(Path(text))
    except (OSError, ValueError):
        found = False
    if not found:
        raise ValueError(f"is {shown(text)}, where no {kind} is (or none that may be read); write the path of one")
    return Path(text)


def shown(text: str) -> str:
    """Quote a text for a message, in one line and cut to a length that a line bears."""
    return ascii(text if len(text) <= 80 else text[:77] + "...")  # noqa: PLR2004 - a line's worth
