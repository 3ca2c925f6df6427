"""The endpoint URLs that are accepted, as a pattern for the API's document; `dispatcher.core.urls` decides.

Source: RFC 3986 section 3.2.2 (IPv6 addresses).
"""

_HEX = "[0-9A-Fa-f]{1,4}"
_BYTE = "(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_IPV4 = rf"{_BYTE}(?:\.{_BYTE}){{3}}"
_IPV6 = "|".join(
    (
        f"(?:{_HEX}:){{7}}{_HEX}",
        f"(?:{_HEX}:){{1,7}}:",
        *(f"(?:{_HEX}:){{1,{left}}}(?::{_HEX}){{1,{7 - left}}}" for left in range(6, 0, -1)),
        f":(?::{_HEX}){{1,7}}",
        "::",
    )
)
_NAME = r"(?:[A-Za-z0-9_][A-Za-z0-9_-]{0,62}\.(?:[A-Za-z0-9_-]{1,63}\.)*)?"
_LAST_LABEL = r"[A-Za-z](?:[A-Za-z0-9_-]{0,62})\.?"
_PORT = "(?::(?:6553[0-5]|655[0-2][0-9]|65[0-4][0-9]{2}|6[0-4][0-9]{3}|[1-5][0-9]{4}|[1-9][0-9]{0,3})?)?"
_TARGET = r"(?:[/?][!$-;=?-\[\]_a-z~]*)?"

URL_PATTERN = f"^[Hh][Tt][Tt][Pp][Ss]?://(?:{_IPV4}|\\[(?:{_IPV6})\\]|{_NAME}{_LAST_LABEL}){_PORT}{_TARGET}$"
"""An absolute http or https URL in ASCII without user information and fragment, of any address and port.

Notations of addresses that only resolvers take (`127.1`) and exotic names are accepted as well, and not shown.
"""

LONG_HOST_PATTERN = "^[^:]*://[^:/?]{254}"
"""What the one above takes and is refused all the same: a name of more than 253 characters.

A pattern of its own: as a look-ahead in the other, it would keep tools from making up long addresses.
"""
