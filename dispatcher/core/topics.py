"""The names of the own topics and consumer groups."""

from collections.abc import Sequence
from dataclasses import dataclass

from dispatcher.core.model import RetryTier


@dataclass(frozen=True, slots=True)
class TopicNames:
    """Names under one prefix.

    Attributes:
        prefix: `webhooks` unless configured otherwise.
        tiers: The retry schedule, shortest first.
    """

    prefix: str
    tiers: tuple[RetryTier, ...]

    @property
    def overflow(self) -> str:
        """What a lane could not take, to be sent as soon as it can."""
        return f"{self.prefix}.overflow"

    @property
    def replay(self) -> str:
        """What is sent again on purpose."""
        return f"{self.prefix}.replay"

    @property
    def dead_letter(self) -> str:
        """What will not be tried again."""
        return f"{self.prefix}.dead-letter"

    @property
    def outcomes(self) -> str:
        """Operational events, and finished deliveries where switched on."""
        return f"{self.prefix}.outcomes"

    def retry(self, tier: RetryTier) -> str:
        """Return the delay topic of a tier."""
        return f"{self.prefix}.retry.{tier.name}"

    def own(self) -> Sequence[str]:
        """Return every topic that `topics ensure` makes."""
        return (
            *(self.retry(tier) for tier in self.tiers),
            self.overflow,
            self.replay,
            self.dead_letter,
            self.outcomes,
        )

    def is_own(self, topic: str) -> bool:
        """Say whether a topic stands under the own prefix, and so never is a source."""
        return topic.startswith(f"{self.prefix}.")


def group_of(consumer_group: str, role: str) -> str:
    """Return the consumer group of a role: the configured one for the source, a suffixed one for the others."""
    return consumer_group if role == "source" else f"{consumer_group}.{role}"
