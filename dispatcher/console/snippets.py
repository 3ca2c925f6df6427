"""Code that verifies a delivery's signature, in the languages that receivers are written in most.

Every snippet reads the secret from `WEBHOOK_SECRET` and verifies the raw body.
"""

from collections.abc import Sequence
from dataclasses import dataclass

HEADERS = ("X-Webhook-Signature", "X-Signature-256", "X-Signature", "webhook-signature")
"""The headers that carry a signature; the last is Standard Webhooks 1.0 and signs id and time too."""
LANGUAGES = ("Node", "Python", "Go", "PHP")

_BARE = "X-Signature"
_STANDARD = "webhook-signature"

_NODE = """\
import { createHmac, timingSafeEqual } from "node:crypto";

// body: the raw request body, a Buffer; headers: req.headers
export function isGenuine(body, headers) {
  const digest = createHmac("sha256", process.env.WEBHOOK_SECRET).update(body).digest("hex");
  const given = Buffer.from(headers["@lower@"] ?? "");
  const expected = Buffer.from(`@prefix@${digest}`);
  return given.length === expected.length && timingSafeEqual(given, expected);
}
"""

_NODE_STANDARD = """\
import { createHmac, timingSafeEqual } from "node:crypto";

const secret = process.env.WEBHOOK_SECRET;
const key = secret.startsWith("whsec_") ? Buffer.from(secret.slice(6), "base64") : Buffer.from(secret);

// body: the raw request body, a Buffer; headers: req.headers
export function isGenuine(body, headers) {
  const sentAt = headers["webhook-timestamp"] ?? "";
  if (!(Math.abs(Date.now() / 1000 - Number(sentAt)) < 300)) return false;
  const signed = Buffer.concat([Buffer.from(`${headers["webhook-id"]}.${sentAt}.`), body]);
  const expected = Buffer.from(`v1,${createHmac("sha256", key).update(signed).digest("base64")}`);
  return (headers["webhook-signature"] ?? "").split(" ").some((each) => {
    const given = Buffer.from(each);
    return given.length === expected.length && timingSafeEqual(given, expected);
  });
}
"""

_PYTHON = """\
import hashlib
import hmac
import os

SECRET = os.environ["WEBHOOK_SECRET"].encode()


def is_genuine(body: bytes, headers) -> bool:
    # body: the raw request body; headers: the framework's, whatever their case
    digest = hmac.new(SECRET, body, hashlib.sha256).hexdigest()
    given = headers.get("@header@", "")
    return hmac.compare_digest(given.encode(), f"@prefix@{digest}".encode())
"""

_PYTHON_STANDARD = """\
import base64
import hashlib
import hmac
import os
import time

SECRET = os.environ["WEBHOOK_SECRET"]
KEY = base64.b64decode(SECRET[6:]) if SECRET.startswith("whsec_") else SECRET.encode()


def is_genuine(body: bytes, headers) -> bool:
    # body: the raw request body; headers: the framework's, whatever their case
    sent_at = headers.get("webhook-timestamp", "")
    if not sent_at.isdecimal() or abs(time.time() - int(sent_at)) > 300:
        return False
    signed = f"{headers.get('webhook-id', '')}.{sent_at}.".encode() + body
    expected = b"v1," + base64.b64encode(hmac.new(KEY, signed, hashlib.sha256).digest())
    given = headers.get("webhook-signature", "").split()
    return any(hmac.compare_digest(each.encode(), expected) for each in given)
"""

_GO = """\
package receiver

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"os"
)

// IsGenuine takes the raw request body and the request's headers.
func IsGenuine(body []byte, header http.Header) bool {
	mac := hmac.New(sha256.New, []byte(os.Getenv("WEBHOOK_SECRET")))
	mac.Write(body)
	expected := "@prefix@" + hex.EncodeToString(mac.Sum(nil))
	return hmac.Equal([]byte(header.Get("@header@")), []byte(expected))
}
"""

_GO_STANDARD = """\
package receiver

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"
)

// IsGenuine takes the raw request body and the request's headers.
func IsGenuine(body []byte, header http.Header) bool {
	secret := os.Getenv("WEBHOOK_SECRET")
	key := []byte(secret)
	if encoded, ok := strings.CutPrefix(secret, "whsec_"); ok {
		key, _ = base64.StdEncoding.DecodeString(encoded)
	}
	sentAt, err := strconv.ParseInt(header.Get("webhook-timestamp"), 10, 64)
	if err != nil || time.Since(time.Unix(sentAt, 0)).Abs() > 5*time.Minute {
		return false
	}
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(header.Get("webhook-id") + "." + header.Get("webhook-timestamp") + "."))
	mac.Write(body)
	expected := "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
	for _, given := range strings.Fields(header.Get("webhook-signature")) {
		if hmac.Equal([]byte(given), []byte(expected)) {
			return true
		}
	}
	return false
}
"""

_PHP = """\
<?php

// $body: file_get_contents('php://input'); $headers: getallheaders(), names in lower case
function is_genuine(string $body, array $headers): bool
{
    $digest = hash_hmac('sha256', $body, getenv('WEBHOOK_SECRET'));
    return hash_equals("@prefix@$digest", $headers['@lower@'] ?? '');
}
"""

_PHP_STANDARD = """\
<?php

// $body: file_get_contents('php://input'); $headers: getallheaders(), names in lower case
function is_genuine(string $body, array $headers): bool
{
    $secret = getenv('WEBHOOK_SECRET');
    $key = str_starts_with($secret, 'whsec_') ? base64_decode(substr($secret, 6)) : $secret;
    $sentAt = $headers['webhook-timestamp'] ?? '';
    if (abs(time() - (int) $sentAt) > 300) {
        return false;
    }
    $signed = ($headers['webhook-id'] ?? '') . ".$sentAt.$body";
    $expected = 'v1,' . base64_encode(hash_hmac('sha256', $signed, $key, true));
    foreach (explode(' ', $headers['webhook-signature'] ?? '') as $given) {
        if (hash_equals($expected, $given)) {
            return true;
        }
    }
    return false;
}
"""

_PLAIN = {"Node": _NODE, "Python": _PYTHON, "Go": _GO, "PHP": _PHP}
_SIGNED_TIME = {"Node": _NODE_STANDARD, "Python": _PYTHON_STANDARD, "Go": _GO_STANDARD, "PHP": _PHP_STANDARD}


@dataclass(frozen=True, slots=True)
class Snippet:
    """One snippet; `header` and `language` are positions in `HEADERS` and `LANGUAGES`."""

    header: int
    language: int
    text: str


def snippet(header: str, language: str) -> str:
    """Return the code that verifies one header in one language."""
    if header == _STANDARD:
        return _SIGNED_TIME[language]
    prefix = "" if header == _BARE else "sha256="
    filled = _PLAIN[language].replace("@header@", header).replace("@lower@", header.lower())
    return filled.replace("@prefix@", prefix)


def all_snippets() -> Sequence[Snippet]:
    """Return every combination."""
    return [
        Snippet(place, of_language, snippet(header, language))
        for place, header in enumerate(HEADERS)
        for of_language, language in enumerate(LANGUAGES)
    ]
