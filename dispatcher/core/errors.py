"""Every error that this package raises on purpose.

```
DispatcherError
├── SettingsError         a setting is missing or wrong; exit code 2
├── UndecodableError      a record's bytes are no event, or its headers can't be read
├── SealError             a sealed secret can't be opened with the configured keys
├── InvalidUrlError       an endpoint URL that is never acceptable
├── ForbiddenAddressError an endpoint resolves to an address that the guard refuses
├── NoConnectionError     no connection to an endpoint came about: look-up, connect, proxy or TLS
├── NotFoundError         what was asked for isn't in this workspace
├── GoneError             what was asked for is kept no more; says why
├── ConflictError         somebody changed it in between
│   ├── ChangedError      it is no longer in the version that the caller named
│   └── QuotaError        the workspace has as many as it may; says who can change that
├── InvalidInputError     fields that the caller sent are wrong; names each of them
├── UnauthorizedError     no key, an unknown one, or one without the scope
├── TooManyRequestsError  a caller sends too many requests, or tries too many keys; says how long to wait
├── UnavailableError      Kafka or MongoDB is out of reach; trying again is right
├── MisconfiguredError    Kafka refuses for good (authorisation, unknown topic); exit code 1
├── TopicsError           topics differ from what the settings ask for; names the command that mends it
└── LocalServiceError     the local Kafka or MongoDB can't start; says what is missing
```

Expected outcomes of a delivery are values (`dispatcher.core.outcome`), never exceptions.
"""

from collections.abc import Sequence


class DispatcherError(Exception):
    """The root of the tree; its text says what is wrong and what to do."""


class SettingsError(DispatcherError):
    """Settings are missing or wrong.

    Args:
        problems: One line for each setting, with its name and what to write instead.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


class UndecodableError(DispatcherError):
    """A record is no event.

    Args:
        message: What is wrong, and where.
        reason: The dead letter's reason, one of `DeadLetterReason`'s values.
    """

    def __init__(self, message: str, *, reason: str = "undecodable") -> None:
        self.reason = reason
        super().__init__(message)


class SealError(DispatcherError):
    """A sealed secret can't be opened: its key is not configured, or its bytes were changed."""


class InvalidUrlError(DispatcherError):
    """An endpoint URL that is never acceptable; the text says why."""


class ForbiddenAddressError(DispatcherError):
    """The guard refuses an address that an endpoint's name resolves to; the text names the rule, not the address."""


class NoConnectionError(DispatcherError):
    """No connection to an endpoint came about; the text says why, in words that a subscriber may read.

    Args:
        failure: One of `SendFailure`'s values.
        message: What went wrong, at which step.
    """

    def __init__(self, failure: str, message: str) -> None:
        self.failure = failure
        super().__init__(message)


class NotFoundError(DispatcherError):
    """What was asked for does not exist in this workspace."""


class GoneError(DispatcherError):
    """What was asked for was there and is kept no more; the text says why and what to do instead."""


class ConflictError(DispatcherError):
    """Somebody else changed the thing in between: read it again."""


class ChangedError(ConflictError):
    """The thing is no longer in the version that the caller named; nothing was changed."""


class QuotaError(ConflictError):
    """A workspace has as many of something as it may; nothing was made.

    Args:
        what: What it has, in the plural.
        most: How many it may have.
        setting: What the operator sets for more.
    """

    def __init__(self, what: str, most: int, setting: str) -> None:
        super().__init__(
            f"this workspace has as many {what} as it may, {most}; delete one that isn't needed, "
            f"or ask the operator to raise {setting}"
        )


class InvalidInputError(DispatcherError):
    """Fields that the caller sent are wrong.

    Args:
        fields: Field path (`events.0`) to what is wrong and what to send instead.
    """

    def __init__(self, fields: dict[str, str]) -> None:
        self.fields = fields
        super().__init__("; ".join(f"{name}: {problem}" for name, problem in fields.items()))


class UnauthorizedError(DispatcherError):
    """No API key, an unknown one, or one without the scope.

    Args:
        message: What to send instead.
        forbidden: True where the key is known and lacks the scope (403), else False (401).
    """

    def __init__(self, message: str, *, forbidden: bool = False) -> None:
        self.forbidden = forbidden
        super().__init__(message)


class TooManyRequestsError(DispatcherError):
    """A caller sends too many requests, or tries too many unknown keys.

    Args:
        message: What there were too many of, and when to come back.
        retry_after_seconds: How long to wait, at least 1.
    """

    def __init__(self, message: str, retry_after_seconds: int) -> None:
        self.retry_after_seconds = retry_after_seconds
        super().__init__(message)


class UnavailableError(DispatcherError):
    """Kafka or MongoDB is out of reach for now.

    Args:
        message: What is out of reach, for the operator.
        shown: What a caller of the API may be told instead; empty: the usual words.
    """

    def __init__(self, message: str, *, shown: str = "") -> None:
        self.shown = shown
        super().__init__(message)


class MisconfiguredError(DispatcherError):
    """Kafka refuses for good: no authorisation, or a topic that doesn't exist."""


class TopicsError(DispatcherError):
    """Topics differ from what the settings ask for.

    Args:
        problems: One line for each difference.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join((*self.problems, "Own topics are mended with: dispatcher topics ensure")))


class LocalServiceError(DispatcherError):
    """The local Kafka or MongoDB can't start; the text says what is missing."""
