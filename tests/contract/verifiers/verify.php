<?php
// What a receiver in PHP does with a delivery: check its signatures over the raw body.
//
// Reads a JSON array of {secret, head, body} from standard input, body in base64, and writes an array of verdicts:
// plain (the headers with a hex digest) and standard (Standard Webhooks 1.0).

declare(strict_types=1);

function headers_of(string $head): array
{
    $headers = [];
    foreach (array_slice(explode("\r\n", $head), 1, -2) as $line) {
        [$name, $value] = explode(':', $line, 2);
        $headers[strtolower($name)] = trim($value);
    }
    return $headers;
}

function plain(array $headers, string $body, string $secret): bool
{
    $digest = hash_hmac('sha256', $body, $secret);
    return hash_equals("sha256=$digest", $headers['x-webhook-signature'] ?? '')
        && hash_equals("sha256=$digest", $headers['x-signature-256'] ?? '')
        && hash_equals($digest, $headers['x-signature'] ?? '');
}

function standard(array $headers, string $body, string $secret): bool
{
    $key = str_starts_with($secret, 'whsec_') ? base64_decode(substr($secret, 6)) : $secret;
    $signed = "{$headers['webhook-id']}.{$headers['webhook-timestamp']}.$body";
    $expected = 'v1,' . base64_encode(hash_hmac('sha256', $signed, $key, true));
    foreach (explode(' ', $headers['webhook-signature']) as $signature) {
        if (hash_equals($expected, $signature)) {
            return true;
        }
    }
    return false;
}

$verdicts = [];
foreach (json_decode(stream_get_contents(STDIN), true, 512, JSON_THROW_ON_ERROR) as $delivery) {
    $headers = headers_of($delivery['head']);
    $body = base64_decode($delivery['body'], true);
    $verdicts[] = [
        'plain' => plain($headers, $body, $delivery['secret']),
        'standard' => standard($headers, $body, $delivery['secret']),
    ];
}
echo json_encode($verdicts, JSON_THROW_ON_ERROR);
