"""A client that knows nothing but an OpenAPI document: it holds each request and each answer against it."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import jsonschema_rs
from aiohttp.test_utils import TestClient


@dataclass(frozen=True)
class Answered:
    """What an operation answered: its status, JSON (None without a body) and headers, and the links to go on with."""

    status: int
    body: Any
    headers: Mapping[str, str]
    links: dict[str, Any]
    parameters: dict[str, Any]


class OpenApiClient:
    """Calls operations by their names.

    Args:
        client: Where they are.
        document: The OpenAPI document.
        key: An API key.
    """

    def __init__(self, client: TestClient, document: dict[str, Any], key: str) -> None:
        self._client = client
        self._document = document
        self._key = key
        self.called: set[str] = set()
        self.operations = {
            operation["operationId"]: (method.upper(), path, operation)
            for path, methods in document["paths"].items()
            for method, operation in methods.items()
        }

    async def call(self, name: str, *, body: Any = None, **given: Any) -> Answered:
        """Call an operation; what is given must be among its parameters, the answer must be one that it declares."""
        method, path, operation = self.operations[name]
        declared = {each["name"]: each for each in map(self._resolved, operation.get("parameters", ()))}
        sent: dict[str, dict[str, str]] = {"path": {}, "query": {}, "header": {}}
        for parameter, value in given.items():
            found = declared[parameter]
            self._validate(found["schema"], value)
            sent[found["in"]][parameter] = str(value)
        missing = {each["name"] for each in declared.values() if each.get("required")} - given.keys()
        assert not missing, f"{name} needs {missing}"
        options: dict[str, Any] = {}
        if body is not None:
            media_type, media = next(iter(operation["requestBody"]["content"].items()))
            self._validate(media["schema"], body)
            options["data"] = json.dumps(body)
            sent["header"]["Content-Type"] = media_type
        else:
            assert not operation.get("requestBody", {}).get("required"), f"{name} needs a body"
        url = self._document["servers"][0]["url"] + re.sub(
            r"\{(\w+)\}", lambda match: quote(sent["path"][match[1]], safe=""), path
        )
        headers = {**sent["header"], "Authorization": f"Bearer {self._key}"}
        async with self._client.request(method, url, params=sent["query"], headers=headers, **options) as response:
            answered = Answered(
                response.status,
                json.loads(text) if (text := await response.text()) else None,
                response.headers.copy(),
                {},
                given,
            )
        self.called.add(name)
        return self._checked(name, operation, answered)

    async def follow(self, answered: Answered, link: str, *, body: Any = None, **given: Any) -> Answered:
        """Go on with a link of an answer."""
        found = answered.links[link]
        parameters = {
            name.removeprefix("path.").removeprefix("header."): _evaluated(expression, answered)
            for name, expression in found["parameters"].items()
        }
        return await self.call(found["operationId"], body=body, **{**parameters, **given})

    def _checked(self, name: str, operation: dict[str, Any], answered: Answered) -> Answered:
        assert str(answered.status) in operation["responses"], f"{name} answered {answered.status}: {answered.body}"
        declared = self._resolved(operation["responses"][str(answered.status)])
        for header, described in declared["headers"].items():
            found = self._resolved(described)
            assert header in answered.headers or not found.get("required"), f"{name} answered without {header}"
            if header in answered.headers:
                value = answered.headers[header]
                self._validate(found["schema"], int(value) if found["schema"].get("type") == "integer" else value)
        if "content" in declared:
            media_type = answered.headers["Content-Type"].partition(";")[0]
            self._validate(declared["content"][media_type]["schema"], answered.body)
        else:
            assert answered.body is None
        return Answered(
            answered.status, answered.body, answered.headers, declared.get("links", {}), answered.parameters
        )

    def _resolved(self, value: dict[str, Any]) -> dict[str, Any]:
        found: Any = value
        while "$ref" in found:
            step, found = found["$ref"], self._document
            for name in step.removeprefix("#/").split("/"):
                found = found[name]
        return found

    def _validate(self, schema: dict[str, Any], value: Any) -> None:
        whole = {**schema, "components": self._document["components"]}
        jsonschema_rs.Draft202012Validator(whole, validate_formats=True).validate(value)


def _evaluated(expression: str, answered: Answered) -> Any:
    source, _, rest = expression.removeprefix("$").partition(".")
    if source == "request":
        return answered.parameters[rest.removeprefix("path.")]
    if rest.startswith("header."):
        return answered.headers[rest.removeprefix("header.")]
    found = answered.body
    for step in rest.removeprefix("body#/").split("/"):
        found = found[int(step)] if isinstance(found, list) else found[step]
    return found
