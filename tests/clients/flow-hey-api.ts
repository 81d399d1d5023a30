// hey-api: from a list to a deletion.
import { strict as assert } from 'node:assert';
import { client as atlasClient } from './generated/hey-api/atlas/client.gen.js';
import { createCity, deleteCity, listCities, postQueryCities, updateCity } from './generated/hey-api/atlas/index.js';
import { client as shopClient } from './generated/hey-api/shop/client.gen.js';
import { createProduct, deleteProduct, listProducts, updateProduct } from './generated/hey-api/shop/index.js';
import { atlas, shop } from './connections.js';

atlasClient.setConfig(atlas());
shopClient.setConfig(shop());

async function cities(): Promise<void> {
  const listed = await listCities({
    query: {
      'country.continent': 'AF',
      name: { in: 'Cairo,Lagos' },
      population: { gte: 1_000_000, is_null: false },
      sort: ['-population', 'name'],
      fields: ['id', 'name'],
      limit: 5,
    },
  });
  assert.deepEqual(listed.data?.items.map((city) => city.name), ['Lagos', 'Cairo']);
  const queried = await postQueryCities({
    body: { filter: { population: { gte: 1_000_000 }, or: [{ name: 'Cairo' }, { name: { in: ['Lagos'] } }] }, fields: ['name'] },
  });
  assert.equal(queried.data?.items.length, 2);

  const created = await createCity({
    body: {
      name: 'Erewhon', country_code: 'NZ', admin1_code: 'E9', latitude: -43.5, longitude: 170.9,
      population: 2, timezone: 'Pacific/Auckland',
    },
  });
  assert.equal(created.response?.status, 201);
  const id: number | undefined = created.data?.id;
  assert.ok(id !== undefined);
  const headers = { 'If-Match': created.response?.headers.get('etag') ?? '' };

  const patched = await updateCity({ path: { id }, headers, body: { population: 3 } });
  assert.equal(patched.data?.population, 3);
  const late = await updateCity({ path: { id }, headers, body: { population: 4 } });
  assert.equal(late.response?.status, 412);
  assert.equal(late.error?.code, 'precondition-failed');
  const wrong = await updateCity({ path: { id }, body: { latitude: 91 } });
  assert.equal(wrong.response?.status, 422);
  assert.equal(wrong.error?.errors?.[0]?.pointer, '/latitude');
  const deleted = await deleteCity({ path: { id } });
  assert.equal(deleted.response?.status, 204);
}

async function products(): Promise<void> {
  const listed = await listProducts({ query: { in_stock: { ne: false }, sort: ['name'], limit: 2 } });
  assert.equal(listed.data?.items.length, 2);
  const created = await createProduct({
    headers: { 'Idempotency-Key': `hey-api-${Date.now()}` },
    body: { name: 'Parachute', price_cents: 4900, cost_cents: 900, in_stock: true },
  });
  assert.equal(created.response?.status, 201);
  const id: string | undefined = created.data?.id;
  assert.ok(id !== undefined);
  const headers = { 'If-Match': created.response?.headers.get('etag') ?? '' };

  const patched = await updateProduct({ path: { id }, headers, body: { price_cents: 3900 } });
  assert.equal(patched.data?.price_cents, 3900);
  const late = await updateProduct({ path: { id }, headers, body: { price_cents: 1 } });
  assert.equal(late.response?.status, 412);
  const wrong = await updateProduct({ path: { id }, body: { price_cents: -1 } });
  assert.equal(wrong.response?.status, 422);
  assert.equal(wrong.error?.errors?.[0]?.pointer, '/price_cents');
  const deleted = await deleteProduct({ path: { id } });
  assert.equal(deleted.response?.status, 200);
  assert.ok(deleted.data?.deleted_at);
}

await cities();
await products();
console.log('hey-api: the whole flow');
