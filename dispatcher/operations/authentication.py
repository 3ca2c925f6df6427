"""Whose key a caller names, and how often a client may name a wrong one: the same for the API and the console."""

from dispatcher.core.errors import UnauthorizedError
from dispatcher.operations.api_keys import ApiKeys
from dispatcher.operations.rate_limits import RateLimits
from dispatcher.ports import ApiKey


async def identify(keys: ApiKeys, limits: RateLimits, bearer: str, address: str) -> ApiKey:
    """Return the key that a caller named.

    Args:
        keys: The API keys.
        limits: Counts wrong ones by client.
        bearer: What the caller named.
        address: Whom it came from.

    A valid key is always let through, wherever it comes from: behind a proxy many callers may share an address. While
    too many unknown ones come from there, keys are looked up a few at a time, and who names another unknown one is told
    to wait.

    Raises:
        UnauthorizedError: The key is unknown, revoked or expired.
        TooManyRequestsError: Likewise, and too many such came from this address.
        UnavailableError: The store is out of reach.
    """
    problem = None if keys.has_met(bearer) else limits.guess_problem(address)
    try:
        if problem is None:
            return await keys.authenticate(bearer)
        async with limits.doubtful:
            return await keys.authenticate(bearer)
    except UnauthorizedError:
        limits.count_guess(address)
        if problem is not None:
            raise problem from None
        raise
