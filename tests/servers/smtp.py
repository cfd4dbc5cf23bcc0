"""A mail server for tests: writes each message it takes to FOLDER/<number>.json.

Usage: smtp.py PORT FOLDER [--busy N] [--unknown ADDRESS]… [--secured] [--one-each]

--busy N           the first N messages get 451
--unknown ADDRESS  mail to this address gets 550
--secured          demands STARTTLS (FOLDER/certificate.pem, FOLDER/key.pem), then a login
--one-each         takes one message a connection; the next MAIL on it gets 421, and the connection ends
"""

import argparse
import asyncio
import email
import email.policy
import json
import os
import ssl

from aiosmtpd.smtp import SMTP, AuthResult


class Handler:
    def __init__(self, options):
        self.options = options
        self.busy = options.busy
        self.taken = 0

    async def handle_MAIL(self, server, session, envelope, address, mail_options):
        if self.options.one_each and getattr(session, "took_one", False):
            self.refuse("closing")
            asyncio.get_running_loop().call_later(0.05, server.transport.close)
            return "421 4.7.0 one message a connection"
        envelope.mail_from = address
        envelope.mail_options.extend(mail_options)
        return "250 OK"

    async def handle_RCPT(self, server, session, envelope, address, rcpt_options):
        if address in self.options.unknown:
            self.refuse(address)
            # As real servers do, it repeats what it was told.
            return f"550 5.1.1 <{address}>: no such user here"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        if self.busy > 0:
            self.busy -= 1
            self.refuse("busy")
            return "451 4.3.0 try again later"
        message = email.message_from_bytes(envelope.content, policy=email.policy.default)
        body = message.get_body(("plain", "html"))
        record = {
            "envelope_from": envelope.mail_from,
            "envelope_to": envelope.rcpt_tos,
            "headers": [[name, str(value)] for name, value in message.items()],
            "text": body.get_content() if body else "",
        }
        self.taken += 1
        session.took_one = True
        beside = os.path.join(self.options.folder, "message.new")
        with open(beside, "w", encoding="utf-8") as file:
            json.dump(record, file)
        os.rename(beside, os.path.join(self.options.folder, f"{self.taken:06}.json"))
        return "250 OK"

    def refuse(self, why):
        with open(os.path.join(self.options.folder, "refusals"), "a", encoding="utf-8") as file:
            print(why, file=file)


def login(server, session, envelope, mechanism, credentials):
    good = credentials.login == b"user" and credentials.password == b"two-doves"
    return AuthResult(success=good)


async def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("folder")
    parser.add_argument("--busy", type=int, default=0)
    parser.add_argument("--unknown", action="append", default=[])
    parser.add_argument("--secured", action="store_true")
    parser.add_argument("--one-each", action="store_true")
    options = parser.parse_args()

    secured = {}
    if options.secured:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(
            os.path.join(options.folder, "certificate.pem"), os.path.join(options.folder, "key.pem")
        )
        secured = {
            "tls_context": context,
            "require_starttls": True,
            "auth_required": True,
            "authenticator": login,
        }

    handler = Handler(options)
    server = await asyncio.get_running_loop().create_server(
        lambda: SMTP(handler, hostname="localhost", **secured), "127.0.0.1", options.port
    )
    await server.serve_forever()


asyncio.run(main())
