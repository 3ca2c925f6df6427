"""Forms as they arrive: bounded in size, time and fields, and sent from one of our own pages."""

import asyncio
import hmac
from urllib.parse import parse_qsl

from aiohttp import web
from multidict import MultiDict, MultiMapping

from dispatcher.console.sessions import Session

TOKEN = "token"  # noqa: S105 - a field's name
FORM_ID = "form_id"
"""Drawn anew for each page: a form that arrives twice has the same one."""
SECRETS = ("secret", "api_key")
"""Fields that are never sent back."""
MAX_FORM_BYTES = 64 * 1024
MAX_FORM_FIELDS = 500
FORM_SECONDS = 10

_OWN_SITES = frozenset({"same-origin", "none"})


class Refusal(Exception):  # noqa: N818 - an answer more than an error
    """A request that ends with a page that says why.

    Args:
        status: 4xx.
        text: What is wrong, and what to do.
    """

    def __init__(self, status: int, text: str) -> None:
        self.status = status
        self.text = text
        super().__init__(text)


async def read_fields(request: web.Request) -> MultiDict[str]:
    """Read a form; whether it is one of ours, its token tells.

    Raises:
        Refusal: Another site sent it, or it is too large, too slow or no form.
    """
    if request.headers.get("Sec-Fetch-Site", "same-origin") not in _OWN_SITES:
        raise Refusal(403, "This form was sent from another site. Open the console and try it from there.")
    if request.content_type != "application/x-www-form-urlencoded":
        raise Refusal(415, "Only forms of the console are taken here.")
    if request.content_length is None:
        raise Refusal(411, "Send the form with its length.")
    if request.content_length > MAX_FORM_BYTES:
        raise Refusal(413, f"The form is larger than {MAX_FORM_BYTES // 1024} KiB. Make its texts shorter.")
    try:
        async with asyncio.timeout(FORM_SECONDS):
            body = await request.read()
        pairs = parse_qsl(
            body.decode("utf-8", "replace"),
            keep_blank_values=True,
            max_num_fields=MAX_FORM_FIELDS,
            errors="replace",
        )
    except TimeoutError:
        raise Refusal(408, "The form took too long to arrive. Send it again.") from None
    except ValueError:
        raise Refusal(413, f"The form has more than {MAX_FORM_FIELDS} fields.") from None
    return MultiDict((name, value.replace("\r\n", "\n")) for name, value in pairs)


def check_token(form: MultiMapping[str], session: Session | None) -> None:
    """See that a form is from one of our pages, as this session has them.

    Raises:
        Refusal: It isn't.
    """
    token = form.get(TOKEN, "").encode()
    if session is None or not hmac.compare_digest(token, session.form_token.encode()):
        raise Refusal(403, "This page was open for too long, or in another session. Go back, reload it and try again.")


def content_of(form: MultiMapping[str]) -> list[tuple[str, str]]:
    """Return what a form says, without what every form carries."""
    return [(name, value) for name, value in form.items() if name not in {TOKEN, FORM_ID}]


def to_type_again(form: MultiMapping[str]) -> dict[str, str]:
    """Return the secret fields that were filled, each with the words that ask for it once more."""
    return {name: "type it again: what is secret is not sent back" for name in SECRETS if form.get(name)}
