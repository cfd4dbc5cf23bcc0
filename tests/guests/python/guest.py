"""A plugin in Python: counts events as the guest `counter` does, and does what `data` asks for:
{"log": "text"}, {"fail": 2}, {"reject": true}.
"""

import json

from componentize_py_types import Err
from wit_world import exports
from wit_world.imports import kv, log
from wit_world.imports.types import Delivery, Event, Failure_Reject, Failure_Retry, Manifest


class Guest(exports.Guest):
    def describe(self) -> Manifest:
        return Manifest("counts events, in Python", ["*"], [])

    def handle(self, event: Event, delivery: Delivery) -> None:
        kv.increment("count", 1)
        kv.increment(f"seen/{event.id}", 1)
        wish = json.loads(event.data)
        if not isinstance(wish, dict):
            return
        if wish.get("log"):
            log.write(log.Level.INFO, wish["log"])
        # An Err that is raised is the failure; any other exception is a trap.
        if delivery.attempt <= wish.get("fail", 0):
            raise Err(Failure_Retry(f"asked to fail {wish['fail']} times"))
        if wish.get("reject"):
            raise Err(Failure_Reject("asked to refuse"))
