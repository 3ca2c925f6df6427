"""A delivery as MongoDB stores it: the only place that knows the short field names.

```
_id delivery id      w workspace id   s subscription id   e event id   o CloudEvents source
c   earliest step    u latest step
g   the latest occurrence of the event: ts timestamp, t topic, p partition, o offset, y event type, x test
r   latest run       m highest attempt number in it       st status in it
h   where its failure was handled: l whether on the dead-letter topic too, r the run that failed, at time; dropped
    when another run begins
a   steps by run and number: r run, k rank of the status, n number, at time, s status, d duration in ms,
    c response code, e error, x reason, nx next attempt, b response body
```

Times are dates. The order of the fields of `g` and `a` is part of the format: MongoDB compares sub-documents field
by field in order, and the merging update chooses between them with `$max`, as `dispatcher.core.delivery_log` does.
"""

from typing import Any

import bson
from bson.raw_bson import RawBSONDocument

from dispatcher.core.delivery_log import (
    DeliveryDocument,
    DeliveryStatus,
    LogEntry,
    LoggedState,
    Occurrence,
    Step,
)
from dispatcher.mongo.delivery_encoding import encode_entry

STATE_FIELDS = {"r": 1, "m": 1, "st": 1}
WITHOUT_BODIES = {"a.b": 0}

# `$$d` is the document that the entry alone would make (see `encode_entry`).
_OTHERS = {
    "$filter": {
        "input": {"$ifNull": ["$a", []]},
        "as": "known",
        "cond": {"$not": {"$and": [{"$eq": ["$$known.r", "$$d.r"]}, {"$eq": ["$$known.n", "$$d.m"]}]}},
    }
}
_RIVALS = {
    "$filter": {
        "input": {"$ifNull": ["$a", []]},
        "as": "known",
        "cond": {"$and": [{"$eq": ["$$known.r", "$$d.r"]}, {"$eq": ["$$known.n", "$$d.m"]}]},
    }
}
_STEPS = {"$concatArrays": [_OTHERS, [{"$max": {"$concatArrays": [_RIVALS, "$$d.a"]}}]]}

_MERGE_STAGES: list[dict[str, Any]] = [
    {
        "$set": {
            "w": "$$d.w",
            "s": "$$d.s",
            "e": "$$d.e",
            "o": "$$d.o",
            "c": {"$min": ["$c", "$$d.c"]},
            "u": {"$max": ["$u", "$$d.u"]},
            "g": {"$max": ["$g", "$$d.g"]},
            "a": {"$sortArray": {"input": _STEPS, "sortBy": {"r": 1, "n": 1}}},
        }
    },
    {"$set": {"r": {"$last": "$a.r"}, "m": {"$last": "$a.n"}, "st": {"$max": "$a"}}},
    {"$set": {"st": "$st.s", "h": {"$cond": [{"$eq": ["$h.r", "$r"]}, "$h", "$$REMOVE"]}}},
]
# The update that merges an entry into what is stored, or stores it; encoded once, as it goes out with every entry.
_MERGE = [RawBSONDocument(bson.encode(stage)) for stage in _MERGE_STAGES]


def merge_statement(entry: LogEntry) -> dict[str, Any]:
    """Return the statement of an `update` command that merges this entry.

    Raises:
        UnicodeError: A text can't be UTF-8.
        struct.error: A number is out of its range.
    """
    return {"q": {"_id": entry.delivery_id}, "u": _MERGE, "c": {"d": encode_entry(entry)}, "upsert": True}


def delivery_of(stored: dict[str, Any]) -> DeliveryDocument:
    """Read a stored document; response bodies that were not fetched are empty."""
    occurrence = stored["g"]
    return DeliveryDocument(
        delivery_id=stored["_id"],
        workspace_id=stored["w"],
        subscription_id=stored["s"],
        event_id=stored["e"],
        source=stored["o"],
        occurrence=Occurrence(
            timestamp_ms=int(occurrence["ts"]),
            topic=occurrence["t"],
            partition=occurrence["p"],
            offset=occurrence["o"],
            event_type=occurrence["y"],
            test=occurrence["x"],
        ),
        created_at_ms=int(stored["c"]),
        updated_at_ms=int(stored["u"]),
        steps=tuple(_step_of(step) for step in stored["a"]),
    )


def state_of(stored: dict[str, Any]) -> LoggedState:
    """Read the state of a stored document of which at least `STATE_FIELDS` were fetched."""
    return LoggedState(stored["r"], stored["m"], DeliveryStatus(stored["st"]))


def _step_of(stored: dict[str, Any]) -> Step:
    due = stored["nx"]
    return Step(
        run=stored["r"],
        number=stored["n"],
        status=DeliveryStatus(stored["s"]),
        at_ms=int(stored["at"]),
        duration_ms=stored["d"],
        response_code=stored["c"],
        error=stored["e"],
        reason=stored["x"],
        next_attempt_at_ms=None if due is None else int(due),
        response_body=bytes(stored.get("b", b"")),
    )
