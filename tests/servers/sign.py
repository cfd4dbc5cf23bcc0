"""Signs the body on standard input with the package `standardwebhooks`, as a real sender does.

Usage: sign.py SECRET ID UNIX-TIME < BODY; prints the headers, one `name: value` a line.
"""

import datetime
import sys

from standardwebhooks.webhooks import Webhook

secret, event_id, at = sys.argv[1:]
body = sys.stdin.buffer.read().decode("utf-8")
moment = datetime.datetime.fromtimestamp(int(at), tz=datetime.timezone.utc)
print(f"webhook-id: {event_id}")
print(f"webhook-timestamp: {at}")
print(f"webhook-signature: {Webhook(secret).sign(event_id, moment, body)}")
