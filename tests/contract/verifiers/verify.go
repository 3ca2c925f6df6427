// What a receiver in Go does with a delivery: check its signatures over the raw body.
//
// Reads a JSON array of {secret, head, body} from standard input, body in base64, and writes an array of verdicts:
// plain (the headers with a hex digest) and standard (Standard Webhooks 1.0).
package main

import (
	"bufio"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"log"
	"net/textproto"
	"os"
	"strings"
)

type delivery struct {
	Secret string `json:"secret"`
	Head   string `json:"head"`
	Body   []byte `json:"body"`
}

type verdict struct {
	Plain    bool `json:"plain"`
	Standard bool `json:"standard"`
}

func mac(key, message []byte) []byte {
	hash := hmac.New(sha256.New, key)
	hash.Write(message)
	return hash.Sum(nil)
}

func same(given, expected string) bool {
	return hmac.Equal([]byte(given), []byte(expected))
}

func plain(header textproto.MIMEHeader, body []byte, secret string) bool {
	digest := hex.EncodeToString(mac([]byte(secret), body))
	return same(header.Get("X-Webhook-Signature"), "sha256="+digest) &&
		same(header.Get("X-Signature-256"), "sha256="+digest) &&
		same(header.Get("X-Signature"), digest)
}

func standardKey(secret string) ([]byte, error) {
	encoded, prefixed := strings.CutPrefix(secret, "whsec_")
	if !prefixed {
		return []byte(secret), nil
	}
	return base64.RawStdEncoding.DecodeString(strings.TrimRight(encoded, "="))
}

func standard(header textproto.MIMEHeader, body []byte, secret string) bool {
	key, err := standardKey(secret)
	if err != nil {
		return false
	}
	signed := append([]byte(header.Get("Webhook-Id")+"."+header.Get("Webhook-Timestamp")+"."), body...)
	expected := "v1," + base64.StdEncoding.EncodeToString(mac(key, signed))
	for _, signature := range strings.Split(header.Get("Webhook-Signature"), " ") {
		if same(signature, expected) {
			return true
		}
	}
	return false
}

func main() {
	var deliveries []delivery
	if err := json.NewDecoder(os.Stdin).Decode(&deliveries); err != nil {
		log.Fatal(err)
	}
	verdicts := make([]verdict, 0, len(deliveries))
	for _, one := range deliveries {
		head := textproto.NewReader(bufio.NewReader(strings.NewReader(one.Head)))
		if _, err := head.ReadLine(); err != nil { // the request line
			log.Fatal(err)
		}
		header, err := head.ReadMIMEHeader()
		if err != nil {
			log.Fatal(err)
		}
		verdicts = append(verdicts, verdict{plain(header, one.Body, one.Secret), standard(header, one.Body, one.Secret)})
	}
	if err := json.NewEncoder(os.Stdout).Encode(verdicts); err != nil {
		log.Fatal(err)
	}
}
