// What a receiver in JavaScript does with a delivery: check its signatures.
//
// Reads a JSON array of {secret, head, body} from standard input, body in base64, and writes an array of verdicts:
// plain (the headers with a hex digest), standard (Standard Webhooks 1.0), and reserialised: the plain digest over
// JSON.stringify(JSON.parse(body)), which is all that a receiver has whose framework parsed the body already.
"use strict";

const { createHmac, timingSafeEqual } = require("node:crypto");
const { readFileSync } = require("node:fs");

function headersOf(head) {
  const lines = head.split("\r\n").slice(1, -2);
  return Object.fromEntries(
    lines.map((line) => {
      const colon = line.indexOf(":");
      return [line.slice(0, colon).toLowerCase(), line.slice(colon + 1).trim()];
    }),
  );
}

function same(given, expected) {
  const [left, right] = [Buffer.from(String(given)), Buffer.from(expected)];
  return left.length === right.length && timingSafeEqual(left, right);
}

function plain(headers, body, secret) {
  const digest = createHmac("sha256", secret).update(body).digest("hex");
  return (
    same(headers["x-webhook-signature"], `sha256=${digest}`) &&
    same(headers["x-signature-256"], `sha256=${digest}`) &&
    same(headers["x-signature"], digest)
  );
}

function standard(headers, body, secret) {
  const key = secret.startsWith("whsec_") ? Buffer.from(secret.slice(6), "base64") : Buffer.from(secret, "utf8");
  const signed = Buffer.concat([Buffer.from(`${headers["webhook-id"]}.${headers["webhook-timestamp"]}.`), body]);
  const expected = createHmac("sha256", key).update(signed).digest("base64");
  return headers["webhook-signature"].split(" ").some((signature) => same(signature, `v1,${expected}`));
}

function reserialised(headers, body, secret) {
  if (!headers["content-type"].endsWith("json")) return null;
  try {
    return plain(headers, JSON.stringify(JSON.parse(body.toString("utf8"))), secret);
  } catch {
    return false;
  }
}

const cases = JSON.parse(readFileSync(0, "utf8"));
const verdicts = cases.map(({ secret, head, body }) => {
  const [headers, raw] = [headersOf(head), Buffer.from(body, "base64")];
  return {
    plain: plain(headers, raw, secret),
    standard: standard(headers, raw, secret),
    reserialised: reserialised(headers, raw, secret),
  };
});
process.stdout.write(JSON.stringify(verdicts));
