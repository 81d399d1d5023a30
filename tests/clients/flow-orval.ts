// orval: from a list to a deletion.
import { strict as assert } from 'node:assert';
import { createCity, deleteCity, listCities, updateCity } from './generated/orval/atlas.js';
import { createProduct, deleteProduct, listProducts, updateProduct } from './generated/orval/shop.js';
import { atlas, shop } from './connections.js';
import { connection } from './fetcher.js';

const connect = (to: { baseUrl: string; headers: { authorization: string } }): void => {
  connection.base = to.baseUrl;
  connection.token = to.headers.authorization.replace('Bearer ', '');
};

async function cities(): Promise<void> {
  connect(atlas());
  const listed = await listCities({
    'country.continent': 'AF',
    name: { in: 'Cairo,Lagos' },
    population: { gte: 1_000_000, is_null: false },
    sort: ['-population', 'name'],
    fields: ['id', 'name'],
    limit: 5,
  });
  assert.ok(listed.status === 200);
  assert.deepEqual(listed.data.items.map((city) => city.name), ['Lagos', 'Cairo']);

  const created = await createCity({
    name: 'Erewhon', country_code: 'NZ', admin1_code: 'E9', latitude: -43.5, longitude: 170.9,
    population: 2, timezone: 'Pacific/Auckland',
  });
  assert.ok(created.status === 201);
  const id: number = created.data.id;
  const headers = { 'If-Match': created.headers.get('etag') ?? '' };

  const patched = await updateCity(id, { population: 3 }, headers);
  assert.ok(patched.status === 200);
  assert.equal(patched.data.population, 3);
  const late = await updateCity(id, { population: 4 }, headers);
  assert.ok(late.status === 412);
  assert.equal(late.data.code, 'precondition-failed');
  const wrong = await updateCity(id, { latitude: 91 });
  assert.ok(wrong.status === 422);
  assert.equal(wrong.data.errors?.[0]?.pointer, '/latitude');
  const deleted = await deleteCity(id);
  assert.equal(deleted.status, 204);
}

async function products(): Promise<void> {
  connect(shop());
  const listed = await listProducts({ in_stock: { ne: false }, sort: ['name'], limit: 2 });
  assert.ok(listed.status === 200);
  assert.equal(listed.data.items.length, 2);
  const created = await createProduct(
    { name: 'Parachute', price_cents: 4900, cost_cents: 900, in_stock: true },
    { 'Idempotency-Key': `orval-${Date.now()}` },
  );
  assert.ok(created.status === 201);
  const id: string = created.data.id;
  const headers = { 'If-Match': created.headers.get('etag') ?? '' };

  const patched = await updateProduct(id, { price_cents: 3900 }, headers);
  assert.ok(patched.status === 200);
  assert.equal(patched.data.price_cents, 3900);
  const late = await updateProduct(id, { price_cents: 1 }, headers);
  assert.equal(late.status, 412);
  const wrong = await updateProduct(id, { price_cents: -1 });
  assert.ok(wrong.status === 422);
  assert.equal(wrong.data.errors?.[0]?.pointer, '/price_cents');
  const deleted = await deleteProduct(id);
  assert.ok(deleted.status === 200);
  assert.ok(deleted.data.deleted_at);
}

await cities();
await products();
console.log('orval: the whole flow');
