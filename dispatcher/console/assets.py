"""Style sheet, script and icon: read once, and named by their content so that browsers keep them for ever."""

import hashlib
from collections.abc import Mapping
from importlib.resources import files
from types import MappingProxyType

from aiohttp import web

_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_FOR_EVER = {"Cache-Control": "public, max-age=31536000, immutable", "X-Content-Type-Options": "nosniff"}
_HASH_CHARS = 12


class Assets:
    """The files under `static/`."""

    def __init__(self) -> None:
        self._files: dict[str, tuple[bytes, str]] = {}
        urls = {}
        for file in files("dispatcher.console").joinpath("static").iterdir():
            stem, dot, suffix = file.name.rpartition(".")
            content_type = _TYPES.get(dot + suffix)
            if content_type is None:
                continue
            content = file.read_bytes()
            served = f"{stem}.{hashlib.sha256(content).hexdigest()[:_HASH_CHARS]}.{suffix}"
            self._files[served] = (content, content_type)
            urls[file.name] = f"/console/static/{served}"
        self.urls: Mapping[str, str] = MappingProxyType(urls)

    async def serve(self, request: web.Request) -> web.Response:
        """Serve one of them; a name of former content is not found."""
        found = self._files.get(request.match_info["name"])
        if found is None:
            raise web.HTTPNotFound
        content, content_type = found
        return web.Response(body=content, content_type=content_type, charset="utf-8", headers=_FOR_EVER)
