"""Real Kafka and MongoDB for a machine that has neither."""

from dispatcher.local.service import LocalService
from dispatcher.local.stack import LocalStack, find_running, start_local

__all__ = ["LocalService", "LocalStack", "find_running", "start_local"]
