"""Outgoing requests: names, guard, connections, pool, sender."""
