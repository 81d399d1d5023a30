#!/usr/bin/env bash
# A list inside a deepObject parameter compiles with openapi-typescript and is thrown at by openapi-fetch.
#
# One would guess: what the generated types accept, the client of the same authors sends; or the types do not accept it.
# What really happens: `name: { in: ['a', 'b'] }` compiles under `strict`, and the call rejects before anything is sent,
# also where the list is empty. A list right under the parameter's name is sent, repeated, and text with commas inside
# of the object is sent as it is.
# Version: openapi-typescript 7.13.0, openapi-fetch 0.17.0, typescript 5.9.3 (npm).
# Source: the printed outcomes; OpenAPI 3.1.1, Style Values, leaves arrays inside deepObject undefined.
# Who meets it: authors of APIs with filters such as `name[in]`, who describe them as lists inside deepObject.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
cat >package.json <<'JSON'
{"name": "lists", "private": true, "type": "module"}
JSON
npm install --silent --no-audit --no-fund openapi-typescript@7.13.0 openapi-fetch@0.17.0 typescript@5.9.3
cat >api.json <<'JSON'
{"openapi": "3.1.0", "info": {"title": "Cities", "version": "1"}, "paths": {"/cities": {"get": {
  "parameters": [
    {"name": "name", "in": "query", "style": "deepObject", "explode": true,
     "schema": {"type": "object", "properties": {"in": {"type": "array", "items": {"type": "string"}}, "like": {"type": "string"}}}},
    {"name": "fields", "in": "query", "schema": {"type": "array", "items": {"type": "string"}}}],
  "responses": {"204": {"description": "none"}}}}}}
JSON
npx openapi-typescript api.json -o api.d.ts >/dev/null 2>&1
cat >try.ts <<'TYPESCRIPT'
import createClient from 'openapi-fetch';
import type { paths } from './api.js';

const answer = async (request: Request) => {
  console.log(decodeURIComponent(new URL(request.url).search));
  return new Response(null, { status: 204 });
};
const client = createClient<paths>({ baseUrl: 'http://api.test', fetch: answer });
for (const query of [{ name: { in: ['a', 'b'] } }, { name: { in: [] } }, { name: { like: 'a,b' } }, { fields: ['a', 'b'] }]) {
  await client.GET('/cities', { params: { query } }).catch((error: Error) => console.log('rejected:', error.message.split('.')[0]));
}
TYPESCRIPT
npx tsc --strict --skipLibCheck --target es2022 --module nodenext try.ts
seen=$(node try.js)
printf '%s\n' "$seen"
expected="rejected: Deeply-nested arrays/objects aren’t supported
rejected: Deeply-nested arrays/objects aren’t supported
?name[like]=a,b
?fields=a&fields=b"
[[ $seen == "$expected" ]] || { echo "This is not what was seen before."; exit 1; }
