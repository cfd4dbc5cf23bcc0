// A plugin in JavaScript. It counts events like the guest `counter`, and performs the actions in `data`:
// {"log": "text"}, {"fail": 2}, {"reject": true}, {"throw": "text"}, {"id": 7} counts below `id/7`.

import * as kv from 'posthouse:plugin/kv@0.2.0';
import { write } from 'posthouse:plugin/log@0.2.0';

// JSON.parse converts every number to a double. If a double cannot represent a number, such as a large id, this
// keeps its text instead: no digits are lost, and two ids stay different.
function parse(json) {
  const tokens = /"(?:[^"\\]|\\.)*"|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?/g;
  return JSON.parse(json.replace(tokens, (token) => {
    if (token.startsWith('"')) return token;
    const number = Number(token);
    const held = Number.isInteger(number) ? Number.isSafeInteger(number) : Number.isFinite(number);
    return held ? token : `"${token}"`;
  }));
}

// A lone surrogate is not valid Unicode. The host would get U+FFFD for it, so this replaces it in the same way.
const clean = (text) => String(text).toWellFormed();

export const guest = {
  describe() {
    return { description: 'counts events, in JavaScript', events: ['*'], requires: [], intercepts: [] };
  },

  handle(event, delivery) {
    kv.increment('count', 1n);
    kv.increment(`seen/${event.id}`, 1n);
    const wish = parse(event.data) ?? {};
    if (wish.log) write('info', clean(wish.log));
    if (wish.id !== undefined) kv.increment(`id/${clean(wish.id)}`, 1n);
    // The thrown value is the failure; any other exception is a trap.
    if (delivery.attempt <= wish.fail) throw { tag: 'retry', val: `asked to fail ${wish.fail} times` };
    if (wish.throw) throw new TypeError(wish.throw);
    if (wish.reject) throw { tag: 'reject', val: 'asked to refuse' };
  },
};
