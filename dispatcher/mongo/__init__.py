"""What speaks to MongoDB, on Motor: webhooks and their feed, the delivery log, API keys."""

from dispatcher.mongo.api_keys import MongoApiKeys
from dispatcher.mongo.client import Connection, connect
from dispatcher.mongo.delivery_log import MongoDeliveryLog
from dispatcher.mongo.delivery_pages import MongoDeliveryPages
from dispatcher.mongo.subscription_feed import SubscriptionFeed
from dispatcher.mongo.webhooks import MongoWebhooks

__all__ = [
    "Connection",
    "MongoApiKeys",
    "MongoDeliveryLog",
    "MongoDeliveryPages",
    "MongoWebhooks",
    "SubscriptionFeed",
    "connect",
]
