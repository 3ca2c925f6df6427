"""The document: what is committed, served and shown is the same, and it holds together."""

from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import jsonschema_rs
import orjson
import pytest
import schemathesis

from dispatcher.api.application import describe_api
from dispatcher.api.links import LINKS
from dispatcher.api.reference import make_page
from dispatcher.cli.openapi import document
from dispatcher.operations.catalogue import load_catalogue
from tests.fakes.api_stack import api_stack

COMMITTED = Path(__file__).parents[3] / "schemas" / "openapi.json"
API = describe_api()


def calls() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Give method, path and operation of each call."""
    for path, methods in API["paths"].items():
        for method, operation in methods.items():
            yield method, path, operation


def validator(schema: dict[str, Any]) -> jsonschema_rs.Draft202012Validator:
    """Make a validator of one of the document's schemas."""
    return jsonschema_rs.Draft202012Validator({**schema, "components": API["components"]}, validate_formats=True)


def resolved(value: dict[str, Any]) -> dict[str, Any]:
    """Follow a reference within the document."""
    found: Any = API
    if "$ref" not in value:
        return value
    for step in value["$ref"].removeprefix("#/").split("/"):
        found = found[step]
    return found


def test_the_committed_document_is_current():
    """schemas/openapi.json is what the code makes today."""
    message = "run `dispatcher openapi > schemas/openapi.json` and commit what changed"
    assert COMMITTED.read_text() == document(), message


def test_the_document_is_an_openapi_document():
    """It is valid by OpenAPI 3.1's own schema, and each of its schemas by JSON Schema 2020-12."""
    schemathesis.openapi.from_dict(orjson.loads(document())).validate()
    for name, schema in API["components"]["schemas"].items():
        jsonschema_rs.meta.validate({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}), name


async def test_the_document_is_served_without_a_key():
    """/v1/openapi.json is the committed document, where the catalogue is the shipped one."""
    async with api_stack(catalogue=load_catalogue(None)) as stack:
        response = await stack.call("GET", "/openapi.json", key=None)
        assert response.status == 200
        assert response.content_type == "application/json"
        assert await response.json() == orjson.loads(COMMITTED.read_bytes())


async def test_the_operators_own_event_types_are_in_the_served_document():
    """A test event's type is one of the catalogue that this server has."""
    async with api_stack(catalogue=load_catalogue(None)) as stack:
        served = await (await stack.call("GET", "/openapi.json", key=None)).json()
    wanted = served["components"]["schemas"]["EventTestInput"]["properties"]["type"]["anyOf"][0]
    assert wanted["enum"] == sorted(load_catalogue(None).types)
    async with api_stack() as stack:
        served = await (await stack.call("GET", "/openapi.json", key=None)).json()
    assert "enum" not in served["components"]["schemas"]["EventTestInput"]["properties"]["type"]["anyOf"][0]


def test_every_example_fits_its_schema():
    """Examples of bodies, answers, problems and headers are right by the schemas they stand beside."""
    seen = 0
    for _, _, operation in calls():
        parts = [*operation["responses"].values(), operation.get("requestBody", {}), *operation.get("parameters", ())]
        for part in map(resolved, parts):
            for media in (*part.get("content", {}).values(), part):
                schema = media.get("schema", {})
                examples = [media["example"]] if "example" in media else []
                examples += [each["value"] for each in media.get("examples", {}).values()]
                for example in (*examples, *resolved(schema).get("examples", ())):
                    validator(schema).validate(example)
                    seen += 1
    assert seen > 50


def test_every_body_and_answer_has_an_example():
    """Whoever reads the document sees what goes in and comes out of each call."""
    for method, path, operation in calls():
        body = operation.get("requestBody")
        if body is not None:
            for media in body["content"].values():
                assert resolved(media["schema"]).get("examples"), (method, path)
        success = next(answer for status, answer in operation["responses"].items() if status.startswith("2"))
        for media in success.get("content", {}).values():
            assert "example" in media, (method, path)


def test_every_call_says_what_it_does_and_what_it_may_answer():
    """Each has a name of its own, a summary, its scope, the usual refusals, and headers with each answer."""
    names = [operation["operationId"] for _, _, operation in calls()]
    assert len(set(names)) == len(names)
    for method, path, operation in calls():
        assert operation["summary"], path
        assert "scope" in operation["description"], path
        assert {"401", "403", "422", "429", "500", "503"} <= operation["responses"].keys(), path
        assert ("404" in operation["responses"]) == ("{" in path), path
        assert (
            ("412" in operation["responses"])
            == any(resolved(each)["name"] == "If-Match" for each in operation["parameters"])
            if "parameters" in operation
            else "412" not in operation["responses"]
        ), path
        for answer in map(resolved, operation["responses"].values()):
            assert answer["description"], path
            assert "X-Request-Id" in answer["headers"], path
        if method == "post":
            assert any(resolved(each)["name"] == "Idempotency-Key" for each in operation["parameters"]), path


@pytest.mark.parametrize("status", ["429", "503"])
def test_whoever_is_to_come_back_is_told_when(status):
    """Answers that ask for patience promise Retry-After."""
    headers = API["components"]["responses"][f"Problem{status}"]["headers"]
    assert resolved(headers["Retry-After"])["required"]


def test_every_link_leads_to_a_call_and_fills_its_path():
    """A link names a call that there is, and gives each parameter of its path, and no parameter that it hasn't."""
    by_name = {operation["operationId"]: operation for _, _, operation in calls()}
    assert LINKS.keys() <= by_name.keys()
    for links in LINKS.values():
        for link in links.values():
            target = [resolved(each) for each in by_name[link["operationId"]].get("parameters", ())]
            given = {name.removeprefix(f"{name.partition('.')[0]}.") for name in link["parameters"]}
            assert {each["name"] for each in target if each["in"] == "path"} <= given
            assert given <= {each["name"] for each in target}


class _Page(HTMLParser):
    """Collects what a page would load, and where its links lead."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.ids: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag in {"script", "link", "img", "iframe", "object"} or "src" in given:
            self.loads.append(tag)
        if tag == "a":
            self.links.append(given["href"] or "")
        if "id" in given:
            self.ids.add(given["id"] or "")


async def test_the_page_needs_nothing_from_elsewhere():
    """/v1/docs loads no script, style or picture, its policy forbids any, and each of its links leads somewhere."""
    async with api_stack() as stack:
        response = await stack.call("GET", "/docs", key=None)
        text = await response.text()
    assert response.status == 200
    assert response.headers["Content-Security-Policy"].startswith("default-src 'none'")
    page = _Page()
    page.feed(text)
    assert page.loads == []
    assert page.links
    assert all(link == "openapi.json" or link.removeprefix("#") in page.ids for link in page.links)


def test_the_page_shows_every_call_parameter_and_status():
    """A reader of the page finds each call with its parameters, body fields, statuses and answers' headers."""
    text = make_page(API)
    for method, path, operation in calls():
        section = text.split(f'id="{operation["operationId"]}"')[1].split("<h3", 1)[0]
        assert method.upper() in section
        assert f"/v1{path}" in section
        for parameter in map(resolved, operation.get("parameters", ())):
            assert f"<code>{parameter['name']}</code>" in section, (path, parameter["name"])
        for status in operation["responses"]:
            assert f"<code>{status}</code>" in section, (path, status)
        for answer in map(resolved, operation["responses"].values()):
            for header in answer["headers"]:
                assert header in section, (path, header)


def test_the_page_escapes_what_it_shows():
    """Text of the document can't become markup."""
    paths = {"/x": {"get": {**API["paths"]["/webhooks"]["get"], "summary": "<script>alert(1)</script>"}}}
    text = make_page({**API, "paths": paths})
    assert "<script>" not in text
    assert "&lt;script&gt;" in text
