"""A plugin in Python. It counts events like the guest `counter`, and performs the actions in `data`:
{"log": "text"}, {"fail": 2}, {"reject": true}, {"throw": "text"}, {"id": 7} counts below `id/7`.
"""

import json

from componentize_py_types import Err
from wit_world import exports
from wit_world.imports import kv, log
from wit_world.imports.types import Delivery, Event, Failure_Reject, Failure_Retry, Manifest


def parse(data: str):
    """The JSON of an event. What Python can't read of it is refused, not a trap.

    Python refuses an integer of more than 4,300 digits, and as an id a number is its own text anyway."""
    try:
        return json.loads(data, parse_int=lambda text: int(text) if len(text) < 19 else text)
    except RecursionError:
        raise Err(Failure_Reject("`data` is nested too deeply for Python")) from None


def clean(text) -> str:
    """The text with U+FFFD for half of a surrogate pair, which is no Unicode and can't be handed to the host."""
    return str(text).encode("utf-16", "surrogatepass").decode("utf-16", "replace")


class Guest(exports.Guest):
    def describe(self) -> Manifest:
        return Manifest("counts events, in Python", ["*"], [], [])

    def handle(self, event: Event, delivery: Delivery) -> None:
        kv.increment("count", 1)
        kv.increment(f"seen/{event.id}", 1)
        wish = parse(event.data)
        if not isinstance(wish, dict):
            return
        if wish.get("log"):
            log.write(log.Level.INFO, clean(wish["log"]))
        if "id" in wish:
            kv.increment(f"id/{clean(wish['id'])}", 1)
        # A raised Err is the failure; any other exception is a trap.
        if delivery.attempt <= wish.get("fail", 0):
            raise Err(Failure_Retry(f"asked to fail {wish['fail']} times"))
        if wish.get("throw"):
            raise ValueError(wish["throw"])
        if wish.get("reject"):
            raise Err(Failure_Reject("asked to refuse"))
