// A plugin in JavaScript: counts events as the guest `counter` does, and does what `data` asks for:
// {"log": "text"}, {"fail": 2}, {"reject": true}.

import * as kv from 'posthouse:plugin/kv@0.1.0';
import { write } from 'posthouse:plugin/log@0.1.0';

export const guest = {
  describe() {
    return { description: 'counts events, in JavaScript', events: ['*'], requires: [] };
  },

  handle(event, delivery) {
    kv.increment('count', 1n);
    kv.increment(`seen/${event.id}`, 1n);
    const wish = JSON.parse(event.data) ?? {};
    if (wish.log) write('info', wish.log);
    // What is thrown is the failure; anything else that is thrown is a trap.
    if (delivery.attempt <= wish.fail) throw { tag: 'retry', val: `asked to fail ${wish.fail} times` };
    if (wish.reject) throw { tag: 'reject', val: 'asked to refuse' };
  },
};
