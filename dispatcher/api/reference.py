"""The API's document as JSON, and as a page for people that needs no script and no other server.

Source: W3C Content Security Policy Level 3 (hashes of inline styles).
"""

import base64
import hashlib
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

import orjson
from aiohttp import web

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 60rem; padding: 1rem; color: #1d2433; }
h2 { border-top: 1px solid #ccd2dd; margin-top: 3rem; padding-top: 1rem; }
h3 { margin-top: 2.5rem; } h4 { margin: 1.2rem 0 .3rem; }
code, pre { font-family: ui-monospace, monospace; font-size: .9em; }
pre { background: #f3f5f9; overflow-x: auto; padding: .8rem; }
table { border-collapse: collapse; width: 100%; }
td, th { border-bottom: 1px solid #e2e6ee; padding: .3rem .6rem .3rem 0; text-align: left; vertical-align: top; }
td { overflow-wrap: anywhere; } th { font-weight: 600; }
.method { background: #1f4f9c; border-radius: .2rem; color: #fff; font-size: .8em; padding: .1rem .4rem; }
.required { color: #9c1f1f; } nav li { list-style: none; }
@media (prefers-color-scheme: dark) {
  body { background: #14171f; color: #dfe4ee; } a { color: #8db7ff; } pre { background: #1f2430; }
  .required { color: #ff9a9a; }
}
"""
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_PAGE_HEADERS = {
    "Content-Type": "text/html; charset=utf-8",
    "Content-Security-Policy": (
        f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


def reference_routes(document: Mapping[str, Any]) -> list[web.RouteDef]:
    """Return the two routes, both without a key: `/openapi.json` and `/docs`."""
    as_json, as_page = orjson.dumps(document), make_page(document).encode()

    async def serve_document(_: web.Request) -> web.Response:
        return web.Response(body=as_json, headers={"Content-Type": "application/json"})

    async def serve_page(_: web.Request) -> web.Response:
        return web.Response(body=as_page, headers=_PAGE_HEADERS)

    return [web.get("/openapi.json", serve_document), web.get("/docs", serve_page)]


def make_page(document: Mapping[str, Any]) -> str:
    """Render a document as a page; everything in it is escaped."""
    info = document["info"]
    base = document["servers"][0]["url"]
    paragraphs = "".join(f"<p>{_prose(part)}</p>" for part in info["description"].split("\n\n"))
    calls = list(_calls(document))
    contents = "".join(
        f'<li><a href="#{escape(call["operationId"])}"><code>{method.upper()} {escape(base + path)}</code></a> '
        f"{escape(call['summary'])}</li>"
        for method, path, call in calls
    )
    sections, heading = [], ""
    for method, path, call in calls:
        if call["tags"][0] != heading:
            heading = call["tags"][0]
            sections.append(f"<h2>{escape(heading)}</h2>")
        sections.append(_section(document, base, method, path, call))
    title = escape(f"{info['title']} {info['version']}")
    return (
        f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{_STYLE}</style></head><body>'
        f"<h1>{title}</h1>{paragraphs}"
        f'<p>For programs: <a href="openapi.json">openapi.json</a> (OpenAPI {escape(document["openapi"])}).</p>'
        f"<nav><ul>{contents}</ul></nav>{''.join(sections)}</body></html>"
    )


def _calls(document: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    calls = [(method, path, call) for path, methods in document["paths"].items() for method, call in methods.items()]
    order = {tag["name"]: place for place, tag in enumerate(document["tags"])}
    yield from sorted(calls, key=lambda call: order[call[2]["tags"][0]])


def _section(document: Mapping[str, Any], base: str, method: str, path: str, call: Mapping[str, Any]) -> str:
    name = escape(call["operationId"])
    parts = [f'<h3 id="{name}"><span class="method">{method.upper()}</span> <code>{escape(base + path)}</code></h3>']
    parts.append(f"<p>{escape(call['summary'])}. {_prose(call['description'])}</p>")
    parameters = [_resolved(document, parameter) for parameter in call.get("parameters", ())]
    if parameters:
        rows = [
            (p["name"], p["in"], _limits(p["schema"]), p.get("description", ""), p.get("required", False))
            for p in parameters
        ]
        parts.append(_table("Parameters", ("name", "in", "value", "meaning"), rows))
    if "requestBody" in call:
        media = next(iter(call["requestBody"]["content"].values()))
        schema = _resolved(document, media["schema"])
        parts += (_fields(document, "Body", schema), _example(base, method, path, schema))
    statuses: list[tuple[Any, ...]] = []
    for status, answer in call["responses"].items():
        resolved = _resolved(document, answer)
        headers = ", ".join(f"`{name}`" for name in resolved.get("headers", ()))
        statuses.append((status, resolved["description"], headers, False))
        media = next(iter(resolved.get("content", {}).values()), None)
        if media is not None and status.startswith("2"):
            for each in media["schema"].get("anyOf", (media["schema"],)):
                parts.append(_fields(document, f"Answer {status}", _resolved(document, each)))
            if "example" in media:
                shown = orjson.dumps(media["example"], option=orjson.OPT_INDENT_2).decode()
                parts.append(f"<details><summary>Example</summary><pre>{escape(shown)}</pre></details>")
    parts.append(_table("Statuses", ("status", "meaning", "headers"), statuses))
    return "".join(parts)


def _fields(document: Mapping[str, Any], title: str, schema: Mapping[str, Any]) -> str:
    required = schema.get("required", ())
    rows = []
    for name, field in schema.get("properties", {}).items():
        listed = field.get("items", {})
        if "$ref" in listed:
            inner = _resolved(document, listed)
            value = f"list of {{{', '.join(inner.get('properties', {}))}}}"
        else:
            value = _limits(_resolved(document, field))
        rows.append((name, value, field.get("description", ""), name in required and title == "Body"))
    return _table(title, ("field", "value", "meaning"), rows)


def _table(title: str, heads: tuple[str, ...], rows: list[tuple[Any, ...]]) -> str:
    """Render rows whose last member says whether the first one is required."""
    head = "".join(f"<th>{escape(name)}</th>" for name in heads)
    body = []
    for first, *others, required in rows:
        mark = ' <span class="required">required</span>' if required else ""
        cells = "".join(f"<td>{_prose(str(cell))}</td>" for cell in others)
        body.append(f"<tr><td><code>{escape(str(first))}</code>{mark}</td>{cells}</tr>")
    return f"<h4>{escape(title)}</h4><table><tr>{head}</tr>{''.join(body)}</table>"


def _limits(schema: Mapping[str, Any]) -> str:
    """Say in a line what a schema takes; patterns are left to the document for programs."""
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_limits(each) for each in schema["anyOf"]))
    if "const" in schema:
        return f"`{schema['const']}`"
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    words = [str(schema.get("format") or schema.get("type", "any"))]
    if words == ["array"]:
        words = [f"list of {_limits(schema.get('items', {}))}"]
    for low, high, unit in (
        ("minimum", "maximum", ""),
        ("minLength", "maxLength", " characters"),
        ("minItems", "maxItems", " items"),
    ):
        if high in schema:
            words.append(f"{schema.get(low, 0)} to {schema[high]}{unit}")
    if "default" in schema:
        words.append(f"default {schema['default']}")
    return ", ".join(words)


def _example(base: str, method: str, path: str, schema: Mapping[str, Any]) -> str:
    if not schema.get("examples"):
        return ""
    body = orjson.dumps(schema["examples"][0]).decode()
    line = (
        f'curl -X {method.upper()} http://127.0.0.1:8080{base}{path} -H "Authorization: Bearer $API_KEY" \\\n'
        f"  -H 'Content-Type: application/json' -d '{body}'"
    )
    return f"<h4>Example</h4><pre>{escape(line)}</pre>"


def _resolved(document: Mapping[str, Any], value: Mapping[str, Any]) -> Mapping[str, Any]:
    while "$ref" in value:
        found: Any = document
        for step in value["$ref"].removeprefix("#/").split("/"):
            found = found[step]
        value = found
    return value


def _prose(text: str) -> str:
    """Escape a text, and set what stands between backquotes as code."""
    parts = escape(text).split("`")
    return "".join(f"<code>{part}</code>" if place % 2 else part for place, part in enumerate(parts))
