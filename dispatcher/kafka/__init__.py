"""Everything that speaks to Kafka."""

from dispatcher.kafka.broken_connections import mend

mend()
