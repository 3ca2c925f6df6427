"""The code that the console shows verifies what the dispatcher really sends, run as it stands in its own language."""

import base64
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from dispatcher.console.snippets import HEADERS, LANGUAGES, all_snippets, snippet
from dispatcher.core.decoding import decode
from dispatcher.core.model import Origin, SealedSecret, Subscription
from dispatcher.core.rendering import RequestTemplate
from dispatcher.core.sealing import Keyring, SealPurpose, binding
from dispatcher.core.urls import parse_endpoint_url
from tests.fakes.event_records import ENVELOPE, raw

SECRET = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
COMMANDS = {"Node": "node", "Python": sys.executable, "Go": "go", "PHP": "php"}

_NODE = """
import {{ readFileSync }} from "node:fs";
const cases = JSON.parse(readFileSync(0, "utf8"));
console.log(JSON.stringify(cases.map(({{ headers, body }}) => isGenuine(Buffer.from(body, "base64"), headers))));
"""
_PYTHON = """
import base64, json, sys

class Headers(dict):
    def get(self, name, default=None):
        return super().get(name.lower(), default)

cases = json.load(sys.stdin)
print(json.dumps([is_genuine(base64.b64decode(each["body"]), Headers(each["headers"])) for each in cases]))
"""
_PHP = """
$verdicts = [];
foreach (json_decode(stream_get_contents(STDIN), true) as $each) {
    $verdicts[] = is_genuine(base64_decode($each['body']), $each['headers']);
}
echo json_encode($verdicts);
"""
_GO = """package main

import (
	"encoding/json"
	"net/http"
	"os"
)

func main() {
	var cases []struct {
		Headers map[string]string
		Body    []byte
	}
	if err := json.NewDecoder(os.Stdin).Decode(&cases); err != nil {
		panic(err)
	}
	verdicts := []bool{}
	for _, each := range cases {
		header := http.Header{}
		for name, value := range each.Headers {
			header.Set(name, value)
		}
		verdicts = append(verdicts, IsGenuine(each.Body, header))
	}
	json.NewEncoder(os.Stdout).Encode(verdicts)
}
"""

Run = Callable[[str, list[dict[str, object]]], list[bool]]


@pytest.fixture(params=LANGUAGES)
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Run:
    """Run the snippet of a header over cases, in one language."""
    language = request.param
    if shutil.which(COMMANDS[language]) is None:
        pytest.skip(f"{language} is not installed: its snippets are not run here")

    def verdicts(header: str, cases: list[dict[str, object]]) -> list[bool]:
        command = _program(language, snippet(header, language), tmp_path)
        environment = {**os.environ, "WEBHOOK_SECRET": SECRET}
        given = json.dumps(cases).encode()
        done = subprocess.run(command, input=given, env=environment, capture_output=True, check=True, timeout=60)
        return json.loads(done.stdout)

    return verdicts


def _program(language: str, code: str, folder: Path) -> list[str]:
    """Write a program around a snippet; gives its command."""
    if language == "Go":
        (folder / "snippet.go").write_text(code.replace("package receiver", "package main"))
        (folder / "main.go").write_text(_GO)
        environment = {**os.environ, "GO111MODULE": "off", "GOTOOLCHAIN": "local", "CGO_ENABLED": "0"}
        command = ["go", "build", "-p", "1", "-o", "verify", "snippet.go", "main.go"]
        subprocess.run(command, env=environment, cwd=folder, check=True)
        return [str(folder / "verify")]
    name, driver = {"Node": ("s.mjs", _NODE.format()), "Python": ("s.py", _PYTHON), "PHP": ("s.php", _PHP)}[language]
    (folder / name).write_text(code + driver)
    return [COMMANDS[language], str(folder / name)]


def case(*, forged: bytes = b"", **changes: str | None) -> dict[str, object]:
    """Give a delivery as a receiver gets it, header names in lower case; changes and a forged end make it another."""
    keyring, now_ms = Keyring([bytes(32)]), int(time.time() * 1000)
    aad = binding("acme", "wh_1", SealPurpose.SIGNING_SECRET)
    sealed = SealedSecret(keyring.seal(SECRET.encode(), nonce=bytes(12), aad=aad))
    url = parse_endpoint_url("https://hooks.example.com/in")
    template = RequestTemplate(Subscription("wh_1", "acme", url, ("*",), (sealed,)), keyring, "Dispatcher-Webhooks/1.0")
    event = decode(raw(ENVELOPE), (), Origin("events", 0, 7, now_ms), None)
    request = template.render(event, "del_5lbqgedzfrx45ptzpqs2pttdot", 1, now_ms)
    lines = request.head.decode("ascii").split("\r\n")[1:-2]
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    headers |= {name.replace("_", "-"): value for name, value in changes.items() if value is not None}
    for name in (name.replace("_", "-") for name, value in changes.items() if value is None):
        headers.pop(name, None)
    return {"headers": headers, "body": base64.b64encode(request.body + forged).decode()}


@pytest.mark.parametrize("header", HEADERS)
def test_a_snippet_tells_a_real_delivery_from_a_forged_one(run, header):
    """What was sent is genuine; another body, another signature, one that is none, and none at all are not."""
    name = header.lower().replace("-", "_")
    forgeries = [case(forged=b" "), case(**{name: "sha256=" + "0" * 64}), case(**{name: "é"}), case(**{name: None})]
    assert run(header, [case(), *forgeries]) == [True, False, False, False, False]


def test_the_standard_snippet_refuses_what_is_old_or_another_delivery(run):
    """A signature counts for five minutes and for one id; a second signature beside it does no harm."""
    good = case()
    both = case(webhook_signature=f"v1,AAAA {good['headers']['webhook-signature']}")
    now = int(time.time())
    assert run(
        "webhook-signature",
        [
            good,
            case(webhook_timestamp=str(now - 400)),
            case(webhook_timestamp="soon"),
            case(webhook_timestamp=None),
            case(webhook_id="del_other"),
        ],
    ) == [True, False, False, False, False]
    both["headers"]["webhook-timestamp"] = good["headers"]["webhook-timestamp"]
    assert run("webhook-signature", [both]) == [True]


def test_there_is_one_for_each_header_and_language():
    """Sixteen, none of which has a place left to fill in."""
    made = all_snippets()
    assert len({(each.header, each.language) for each in made}) == len(HEADERS) * len(LANGUAGES)
    assert not any("@" in each.text for each in made)
