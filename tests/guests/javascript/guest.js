// A plugin in JavaScript: counts events as the guest `counter` does, and does what `data` asks for:
// {"log": "text"}, {"fail": 2}, {"reject": true}, {"throw": "text"}, {"id": 7} counts below `id/7`.

import * as kv from 'posthouse:plugin/kv@0.1.0';
import { write } from 'posthouse:plugin/log@0.1.0';

// JSON.parse makes a double of every number. Those that a double does not hold, such as large ids, become
// their own text here instead: digits are kept, and two ids stay two.
function parse(json) {
  const tokens = /"(?:[^"\\]|\\.)*"|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?/g;
  return JSON.parse(json.replace(tokens, (token) => {
    if (token.startsWith('"')) return token;
    const number = Number(token);
    const held = Number.isInteger(number) ? Number.isSafeInteger(number) : Number.isFinite(number);
    return held ? token : `"${token}"`;
  }));
}

// Half of a surrogate pair is no Unicode: the host would get U+FFFD for it, and so do we.
const clean = (text) => String(text).toWellFormed();

export const guest = {
  describe() {
    return { description: 'counts events, in JavaScript', events: ['*'], requires: [] };
  },

  handle(event, delivery) {
    kv.increment('count', 1n);
    kv.increment(`seen/${event.id}`, 1n);
    const wish = parse(event.data) ?? {};
    if (wish.log) write('info', clean(wish.log));
    if (wish.id !== undefined) kv.increment(`id/${clean(wish.id)}`, 1n);
    // What is thrown is the failure; anything else that is thrown is a trap.
    if (delivery.attempt <= wish.fail) throw { tag: 'retry', val: `asked to fail ${wish.fail} times` };
    if (wish.throw) throw new TypeError(wish.throw);
    if (wish.reject) throw { tag: 'reject', val: 'asked to refuse' };
  },
};
