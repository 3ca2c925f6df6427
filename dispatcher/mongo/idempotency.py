"""Requests that came with an idempotency key, in MongoDB; a TTL index forgets them."""

from bson.datetime_ms import DatetimeMS
from pymongo.errors import DuplicateKeyError

from dispatcher.core.errors import ConflictError
from dispatcher.mongo.absence import unavailable_errors
from dispatcher.mongo.client import Collection, Document
from dispatcher.ports import Claim, ClaimedRequest

_TRIES = 5


class MongoIdempotency:
    """Keeps requests and their answers; implements `dispatcher.ports.IdempotencyStore`.

    Args:
        idempotency: The collection; majority reads and writes, so that no two processes hold one key.
    """

    def __init__(self, idempotency: Collection) -> None:
        self._idempotency = idempotency

    async def claim(self, claim: Claim) -> ClaimedRequest | None:
        """Take an idempotency key, unless somebody has it.

        Free is a key that nobody used, whose time is over, or whose same request never came to an answer within
        its lease.

        Returns:
            None where the key is this claim's now; else what stands there.

        Raises:
            ConflictError: Others kept taking it and giving it back.
            UnavailableError: MongoDB is out of reach; the key may or may not be taken.
        """
        now = DatetimeMS(claim.now_ms)
        given_up = {"request_hash": claim.request_hash, "answer": None, "leased_until": {"$lte": now}}
        free = {"_id": claim.id, "$or": [{"expires_at": {"$lte": now}}, given_up]}
        document = {
            "_id": claim.id,
            "request_hash": claim.request_hash,
            "ticket": claim.ticket,
            "answer": None,
            "leased_until": DatetimeMS(claim.leased_until_ms),
            "expires_at": DatetimeMS(claim.expires_at_ms),
        }
        for _ in range(_TRIES):
            with unavailable_errors():
                try:
                    await self._idempotency.insert_one(dict(document))
                except DuplicateKeyError:
                    pass
                else:
                    return None
                if (await self._idempotency.replace_one(free, document)).matched_count:
                    return None
                stored = await self._idempotency.find_one({"_id": claim.id})
            if stored is not None:
                # A write that was sent again after a broken connection meets itself.
                own = stored["ticket"] == claim.ticket
                return None if own else ClaimedRequest(stored["request_hash"], stored["answer"])
        raise ConflictError("other requests kept using this Idempotency-Key; send the request again")

    async def finish(self, claim: Claim, answer: bytes) -> None:
        """Store the sealed answer, if the key is still this claim's.

        Raises:
            UnavailableError: MongoDB is out of reach; it may or may not have been stored.
        """
        with unavailable_errors():
            await self._idempotency.update_one(_held(claim), {"$set": {"answer": answer}})

    async def abandon(self, claim: Claim) -> None:
        """Give the key back, if it is still this claim's.

        Raises:
            UnavailableError: MongoDB is out of reach; the lease ends by itself.
        """
        with unavailable_errors():
            await self._idempotency.delete_one(_held(claim))


def _held(claim: Claim) -> Document:
    return {"_id": claim.id, "ticket": claim.ticket}
