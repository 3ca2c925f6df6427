"""How a replay of dead letters is cut: pages that are looked into at once, and of these batches that go out."""

import contextlib
from collections.abc import AsyncGenerator, Sequence

from dispatcher.core.dead_letter_replays import LetterReplay, ReplayChoice
from dispatcher.core.dead_letters import DeadLetter
from dispatcher.core.reruns import SourceSpan
from dispatcher.pipeline.dead_letter_deliveries import Prepared
from dispatcher.ports import ChosenLetters

PAGE_LETTERS = 500
"""So many letters are looked into at once at most: those of about a second, where the rate is low."""
PAGE_BYTES = 4 * 1024 * 1024


async def pages(
    letters: ChosenLetters, spans: Sequence[SourceSpan], most: int = PAGE_LETTERS
) -> AsyncGenerator[Sequence[DeadLetter], None]:
    """Yield letters in pages of `most` at most, and bounded in bytes."""
    page: list[DeadLetter] = []
    held = 0
    async with contextlib.aclosing(letters.read(spans)) as read:
        async for some in read:
            for letter in some:
                page.append(letter)
                held += len(letter.value or b"")
                if len(page) == most or held >= PAGE_BYTES:
                    yield page
                    page, held = [], 0
    if page:
        yield page


def second_of(choice: ReplayChoice, most: int) -> int:
    """Return how many go out in about a second, where the rate is low; else `most`."""
    return min(max(int(choice.rate), 1), most)


def next_batch(letters: Sequence[Prepared], size: int, replay: LetterReplay) -> Sequence[Prepared]:
    """Return the first of some letters: about `size` deliveries, a letter not parted, and no more than may go out."""
    deliveries = 0
    left = len(letters) if replay.choice.most is None else replay.choice.most - replay.replayed
    for index, letter in enumerate(letters):
        if left <= 0 or (deliveries and deliveries + len(letter.outgoing) > size):
            return letters[:index]
        deliveries += len(letter.outgoing)
        left -= bool(letter.outgoing)
    return letters


def is_full(replay: LetterReplay) -> bool:
    """Say whether as many letters went out as were asked for."""
    return replay.choice.most is not None and replay.replayed >= replay.choice.most
