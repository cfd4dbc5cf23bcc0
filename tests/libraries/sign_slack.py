"""Makes a request of Slack with Slack's own library, and prints it as JSON, in the form of sign.mjs."""

import json
import time

from slack_sdk.signature import SignatureVerifier

secret = "8f742231b10e8888abcd99yyyzzz85a5"
now = int(time.time())
body = json.dumps(
    {
        "team_id": "T061EG9R6",
        "type": "event_callback",
        "event_id": "Ev08MFMKH6",
        "event_time": now,
        "event": {"type": "app_mention", "user": "U061F7AUR", "text": "<@U0LAN0Z89> are there beds?"},
    }
)
library = SignatureVerifier(secret)
signature = library.generate_signature(timestamp=str(now), body=body)
headers = {
    "content-type": "application/json",
    "x-slack-request-timestamp": str(now),
    "x-slack-signature": signature,
}
assert library.is_valid_request(body, headers), "the library of Slack refuses the request"
event = {"id": "Ev08MFMKH6", "type": "app_mention", "time": now, "organization": "T061EG9R6"}
print(json.dumps({"scheme": "slack", "url": None, "secret": secret, "headers": headers, "body": body, "event": event}))
