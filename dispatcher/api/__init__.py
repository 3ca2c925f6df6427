"""The REST API under /v1, on aiohttp."""
