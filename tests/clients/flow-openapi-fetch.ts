// openapi-typescript and openapi-fetch: from a list to a deletion.
import { strict as assert } from 'node:assert';
import createClient from 'openapi-fetch';
import type { paths as Atlas } from './generated/openapi-typescript/atlas.js';
import type { paths as Shop } from './generated/openapi-typescript/shop.js';
import { atlas, shop } from './connections.js';

async function cities(): Promise<void> {
  const client = createClient<Atlas>(atlas());
  const listed = await client.GET('/cities', {
    params: {
      query: {
        'country.continent': 'AF',
        name: { in: 'Cairo,Lagos' },
        population: { gte: 1_000_000, is_null: false },
        sort: ['-population', 'name'],
        fields: ['id', 'name'],
        limit: 5,
      },
    },
  });
  assert.deepEqual(listed.data?.items.map((city) => city.name), ['Lagos', 'Cairo']);

  const created = await client.POST('/cities', {
    body: {
      name: 'Erewhon', country_code: 'NZ', admin1_code: 'E9', latitude: -43.5, longitude: 170.9,
      population: 2, timezone: 'Pacific/Auckland',
    },
  });
  assert.equal(created.response.status, 201);
  const id: number | undefined = created.data?.id;
  assert.ok(id !== undefined);
  const etag = created.response.headers.get('etag') ?? '';

  const path = { id };
  const patched = await client.PATCH('/cities/{id}', {
    params: { path, header: { 'If-Match': etag } },
    body: { population: 3 },
  });
  assert.equal(patched.data?.population, 3);
  const late = await client.PATCH('/cities/{id}', {
    params: { path, header: { 'If-Match': etag } },
    body: { population: 4 },
  });
  assert.equal(late.response.status, 412);
  assert.equal(late.error?.code, 'precondition-failed');
  const wrong = await client.PATCH('/cities/{id}', { params: { path }, body: { latitude: 91 } });
  assert.equal(wrong.response.status, 422);
  assert.equal(wrong.error?.errors?.[0]?.pointer, '/latitude');
  const deleted = await client.DELETE('/cities/{id}', { params: { path } });
  assert.equal(deleted.response.status, 204);
}

async function products(): Promise<void> {
  const client = createClient<Shop>(shop());
  const listed = await client.GET('/products', { params: { query: { in_stock: { ne: false }, sort: ['name'], limit: 2 } } });
  assert.equal(listed.data?.items.length, 2);

  const created = await client.POST('/products', {
    params: { header: { 'Idempotency-Key': `openapi-fetch-${Date.now()}` } },
    body: { name: 'Parachute', price_cents: 4900, cost_cents: 900, in_stock: true },
  });
  assert.equal(created.response.status, 201);
  const id: string | undefined = created.data?.id;
  assert.ok(id !== undefined);
  const etag = created.response.headers.get('etag') ?? '';

  const path = { id };
  const patched = await client.PATCH('/products/{id}', {
    params: { path, header: { 'If-Match': etag } },
    body: { price_cents: 3900 },
  });
  assert.equal(patched.data?.price_cents, 3900);
  const late = await client.PATCH('/products/{id}', {
    params: { path, header: { 'If-Match': etag } },
    body: { price_cents: 1 },
  });
  assert.equal(late.response.status, 412);
  const wrong = await client.PATCH('/products/{id}', { params: { path }, body: { price_cents: -1 } });
  assert.equal(wrong.response.status, 422);
  assert.equal(wrong.error?.errors?.[0]?.pointer, '/price_cents');
  const deleted = await client.DELETE('/products/{id}', { params: { path } });
  assert.equal(deleted.response.status, 200);
  assert.ok(deleted.data?.deleted_at);
}

await cities();
await products();
console.log('openapi-typescript and openapi-fetch: the whole flow');
