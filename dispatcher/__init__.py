"""Webhook dispatcher: domain events from Kafka, delivered as signed webhooks."""
