// The JavaScript SDK of CloudEvents accepts the events of a stream and of a webhook.
//
//   SHOP=http://… SHOP_TOKEN=… node cloudevents.mjs

import { createServer } from 'node:http';
import { CloudEvent, HTTP } from 'cloudevents';

const { SHOP, SHOP_TOKEN } = process.env;
const headers = { authorization: `Bearer ${SHOP_TOKEN}`, 'content-type': 'application/json' };

const ask = async (method, path, body) => {
  const answer = await fetch(SHOP + path, { method, headers, body: body && JSON.stringify(body) });
  const text = await answer.text();
  if (!answer.ok) throw new Error(`${method} ${path}: ${answer.status} ${text}`);
  return text ? JSON.parse(text) : null;
};

const validate = (kind, event) => {
  // It throws where the event is none of CloudEvents 1.0.
  if (!new CloudEvent(event).validate()) throw new Error(`${kind}: not valid: ${JSON.stringify(event)}`);
  console.log(`${kind}: ${event.type} is valid`);
};

// A webhook, in structured mode.
const received = Promise.withResolvers ? Promise.withResolvers() : (() => {
  const parts = {};
  parts.promise = new Promise((resolve, reject) => Object.assign(parts, { resolve, reject }));
  return parts;
})();
const server = createServer((request, response) => {
  const chunks = [];
  request.on('data', (chunk) => chunks.push(chunk));
  request.on('end', () => {
    response.writeHead(204).end();
    received.resolve({ headers: request.headers, body: Buffer.concat(chunks).toString() });
  });
});
await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
const url = `http://127.0.0.1:${server.address().port}/hook`;
const endpoint = await ask('POST', '/webhook_endpoints', { url, events: ['products.created'] });

const stream = await fetch(`${SHOP}/products/stream`, { headers });
const frames = stream.body.pipeThrough(new TextDecoderStream()).getReader();
const product = { name: 'Seen by an SDK', price_cents: 100, cost_cents: 50, in_stock: true };
const created = await ask('POST', '/products', product);

let text = '';
const followed = async () => {
  for (;;) {
    const { value, done } = await frames.read();
    if (done) throw new Error(`the stream ended: ${text}`);
    text += value;
    for (const frame of text.split('\n\n')) {
      const data = frame.split('\n').find((line) => line.startsWith('data:'));
      const event = data && JSON.parse(data.slice(5));
      if (event?.subject === created.id) return event;
    }
  }
};
validate('stream', await followed());
await frames.cancel();

const message = await received.promise;
const event = HTTP.toEvent(message);
if (event.subject !== created.id) throw new Error(`another event: ${message.body}`);
validate('webhook', event);

await ask('DELETE', `/products/${created.id}`);
await ask('DELETE', `/webhook_endpoints/${endpoint.id}`);
server.close();
