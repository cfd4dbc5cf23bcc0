// Makes one request of each sender with the sender's own library, and prints them as JSON.
//
// If a library can sign, it does. If it can only verify, this file signs by the sender's formula, and the library has to
// accept the result. It reads no arguments; the modules are in the working directory:
// node --input-type=module - < sign.mjs

import crypto from 'node:crypto';

const now = Math.floor(Date.now() / 1000);
const iso = new Date(now * 1000).toISOString().replace('.000Z', 'Z');
const json = { 'content-type': 'application/json' };
const hmac = (key, text, encoding) => crypto.createHmac('sha256', key).update(text).digest(encoding);
const accepted = (sender, verdict) => {
  if (!verdict) throw new Error(`the library of ${sender} refuses the request`);
};

async function stripe() {
  const Stripe = (await import('stripe')).default;
  const secret = 'whsec_8f1d3c5b7a9e0f2d4c6b8a0e1f3d5c7b';
  const body = JSON.stringify({
    id: 'evt_lib_1',
    object: 'event',
    type: 'invoice.paid',
    created: now,
    account: 'acct_lib',
    data: { object: { id: 'in_1', object: 'invoice', amount_paid: 1200 } },
  });
  const client = new Stripe('sk_test_of_nobody');
  const header = client.webhooks.generateTestHeaderString({ payload: body, secret, timestamp: now });
  accepted('Stripe', client.webhooks.constructEvent(body, header, secret).id === 'evt_lib_1');
  const event = { id: 'evt_lib_1', type: 'invoice.paid', time: now, organization: 'acct_lib' };
  return { secret, headers: { ...json, 'stripe-signature': header }, body, event };
}

async function github() {
  const { sign, verify } = await import('@octokit/webhooks-methods');
  const secret = 'a-secret-of-our-own-for-github';
  const body = JSON.stringify({ action: 'opened', issue: { number: 7 }, organization: { login: 'lodge' } });
  const signature = await sign(secret, body);
  accepted('GitHub', await verify(secret, body, signature));
  const id = '72d3162e-cc78-11e3-81ab-4c9367dc0958';
  const headers = {
    ...json,
    'x-github-event': 'issues',
    'x-github-delivery': id,
    'x-hub-signature-256': signature,
  };
  return { secret, headers, body, event: { id, type: 'issues.opened', time: null, organization: 'lodge' } };
}

async function shopify() {
  await import('@shopify/shopify-api/adapters/node');
  const { shopifyApi, ApiVersion } = await import('@shopify/shopify-api');
  const secret = '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';
  const library = shopifyApi({
    apiKey: 'nobody',
    apiSecretKey: secret,
    apiVersion: Object.values(ApiVersion).at(-1),
    hostName: 'hooks.example.com',
    isEmbeddedApp: false,
    logger: { log: () => {} },
  });
  const body = JSON.stringify({ id: 820982911946154508, name: '#9999', total_price: '12.00' });
  const headers = {
    ...json,
    'x-shopify-topic': 'orders/create',
    'x-shopify-hmac-sha256': hmac(secret, body, 'base64'),
    'x-shopify-shop-domain': 'lodge.myshopify.com',
    'x-shopify-api-version': '2025-10',
    'x-shopify-webhook-id': 'b54557e4-bdd9-4b37-8a5f-bf7d70bcd043',
    'x-shopify-triggered-at': iso,
  };
  const rawRequest = { method: 'POST', url: '/in/shopify', headers };
  const verdict = await library.webhooks.validate({ rawBody: body, rawRequest, rawResponse: {} });
  accepted('Shopify', verdict.valid);
  const event = {
    id: headers['x-shopify-webhook-id'],
    type: 'orders/create',
    time: now,
    organization: 'lodge.myshopify.com',
  };
  return { secret, headers, body, event };
}

async function twilio() {
  const library = (await import('twilio')).default;
  const secret = '12345678901234567890123456789abc';
  const url = 'https://hooks.example.com/in/twilio';
  const fields = {
    MessageSid: 'SM00000000000000000000000000000001',
    AccountSid: 'AC00000000000000000000000000000002',
    MessageStatus: 'delivered',
    To: '+15005550006',
    Body: 'Zwei Betten & ein Ofen?',
  };
  const signature = library.getExpectedTwilioSignature(secret, url, fields);
  accepted('Twilio', library.validateRequest(secret, signature, url, fields));
  const headers = {
    'content-type': 'application/x-www-form-urlencoded',
    'i-twilio-idempotency-token': '5d2f8b4e-0000-4000-8000-000000000001',
    'x-twilio-signature': signature,
  };
  const event = {
    id: headers['i-twilio-idempotency-token'],
    type: 'message.delivered',
    time: null,
    organization: fields.AccountSid,
  };
  return { secret, url, headers, body: new URLSearchParams(fields).toString(), event };
}

async function discord() {
  const { verifyKey } = await import('discord-interactions');
  const { privateKey, publicKey } = crypto.generateKeyPairSync('ed25519');
  const secret = Buffer.from(publicKey.export({ format: 'jwk' }).x, 'base64url').toString('hex');
  const body = JSON.stringify({
    version: 1,
    application_id: '1100000000000000001',
    type: 1,
    event: {
      type: 'APPLICATION_AUTHORIZED',
      timestamp: iso,
      data: { integration_type: 0, guild: { id: '1100000000000000003' } },
    },
  });
  const signature = crypto.sign(null, Buffer.from(`${now}${body}`), privateKey).toString('hex');
  accepted('Discord', await verifyKey(body, signature, `${now}`, secret));
  const headers = { ...json, 'x-signature-ed25519': signature, 'x-signature-timestamp': `${now}` };
  const id = `sha256:${crypto.createHash('sha256').update(body).digest('hex')}`;
  const event = { id, type: 'APPLICATION_AUTHORIZED', time: now, organization: '1100000000000000003' };
  return { secret, headers, body, event };
}

async function sendgrid() {
  const { EventWebhook } = (await import('@sendgrid/eventwebhook')).default;
  const { privateKey, publicKey } = crypto.generateKeyPairSync('ec', { namedCurve: 'prime256v1' });
  const secret = publicKey.export({ type: 'spki', format: 'der' }).toString('base64');
  const body = JSON.stringify([
    { email: 'grace@example.com', timestamp: now, event: 'delivered', sg_event_id: 'sg_lib_1' },
  ]);
  const signature = crypto.sign('sha256', Buffer.from(`${now}${body}`), privateKey).toString('base64');
  const library = new EventWebhook();
  const key = library.convertPublicKeyToECDSA(secret);
  accepted('SendGrid', library.verifySignature(key, body, signature, `${now}`));
  const headers = {
    ...json,
    'x-twilio-email-event-webhook-signature': signature,
    'x-twilio-email-event-webhook-timestamp': `${now}`,
  };
  return { secret, headers, body, event: { id: 'sg_lib_1', type: 'delivered', time: now, organization: null } };
}

const requests = { stripe, github, shopify, twilio, discord, sendgrid };
const made = await Promise.all(
  Object.entries(requests).map(async ([scheme, make]) => ({ scheme, url: null, ...(await make()) })),
);
console.log(JSON.stringify(made));
