"""An application's webhook handler: verifies each request with the package `standardwebhooks`, and records it.

Usage: receiver.py PORT FOLDER SECRET [--trouble SEED]

Each verified request becomes a line of FOLDER/taken, a JSON object of its headers and body, before its answer.
A request that does not verify becomes a line of FOLDER/refused.

--trouble SEED   some requests get 503, 429 with Retry-After, or no answer at all: half of these are taken nevertheless
"""

import argparse
import http.server
import json
import random
import threading

from standardwebhooks.webhooks import Webhook, WebhookVerificationError


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"])).decode("utf-8")
        headers = {name.lower(): value for name, value in self.headers.items()}
        try:
            self.server.webhook.verify(body, headers)
        except WebhookVerificationError as error:
            self.record("refused", {"error": str(error), "headers": headers})
            return self.answer(401)
        trouble = self.server.trouble()
        if trouble in ("busy", "later"):
            return self.answer(*((503,) if trouble == "busy" else (429, ("retry-after", "0"))))
        if trouble != "lost":
            self.record("taken", {"headers": headers, "body": body})
        if trouble:
            # The connection ends without an answer, whether the event was taken or not.
            self.close_connection = True
            return None
        return self.answer(200)

    def answer(self, status, *headers):
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("content-length", "0")
        self.end_headers()

    def record(self, file, what):
        with self.server.lock, open(f"{self.server.folder}/{file}", "a", encoding="utf-8") as log:
            log.write(json.dumps(what) + "\n")

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, options):
        super().__init__(("127.0.0.1", options.port), Handler)
        self.folder = options.folder
        self.webhook = Webhook(options.secret)
        self.lock = threading.Lock()
        self.random = None if options.trouble is None else random.Random(options.trouble)

    def trouble(self):
        if self.random is None:
            return None
        with self.lock:
            kinds = ["busy", "later", "lost", "taken"]
            return self.random.choices([None, *kinds], weights=[84, 6, 4, 3, 3])[0]


parser = argparse.ArgumentParser()
parser.add_argument("port", type=int)
parser.add_argument("folder")
parser.add_argument("secret")
parser.add_argument("--trouble", type=int)
Server(parser.parse_args()).serve_forever()
