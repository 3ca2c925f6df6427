"""Whose key a caller names, and how often an address may name a wrong one: the same for the API and the console."""

from dispatcher.core.errors import UnauthorizedError
from dispatcher.operations.api_keys import ApiKeys
from dispatcher.operations.rate_limits import RateLimits
from dispatcher.ports import ApiKey


async def identify(keys: ApiKeys, limits: RateLimits, bearer: str, address: str) -> ApiKey:
    """Return the key that a caller named.

    Args:
        keys: The API keys.
        limits: Counts wrong ones by address.
        bearer: What the caller named.
        address: Whom it came from.

    Raises:
        UnauthorizedError: The key is unknown, revoked or expired.
        TooManyRequestsError: The address named too many unknown ones.
        UnavailableError: The store is out of reach.
    """
    if not keys.has_met(bearer):
        # Behind a proxy many callers share an address: those who are known don't pay for one who guesses.
        limits.check_address(address)
    try:
        return await keys.authenticate(bearer)
    except UnauthorizedError:
        limits.count_guess(address)
        raise
