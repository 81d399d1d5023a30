#!/usr/bin/env bash
# A client that openapi-python-client generates drops the names of deepObject parameters, and then one of their values.
#
# One would guess: a query parameter of the style deepObject is sent as `population[gte]=1000` (OpenAPI 3.1, 4.8.12.2), or the
# generator says that it cannot, as it does for other things that it leaves out (`--fail-on-warning`).
# What really happens: it generates without a warning, and the client sends the members of the object as parameters of
# their own: `gte=1000`. Of two such parameters with a member of one name the second replaces the first, so that one
# condition is gone without a word; a server that ignores unknown parameters answers everything.
# Version: openapi-python-client 0.29.1 (PyPI), httpx as it resolves.
# Source: the printed URL; OpenAPI 3.1.1, Style Values.
# Who meets it: authors of APIs whose filters are deepObject parameters, and Python users of them.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv python >/dev/null
python/bin/pip -q install openapi-python-client==0.29.1
cat >api.json <<'JSON'
{"openapi": "3.1.0", "info": {"title": "Cities", "version": "1"}, "paths": {"/cities": {"get": {
  "operationId": "list_cities",
  "parameters": [
    {"name": "population", "in": "query", "style": "deepObject", "explode": true,
     "schema": {"type": "object", "properties": {"gte": {"type": "integer"}}}},
    {"name": "founded", "in": "query", "style": "deepObject", "explode": true,
     "schema": {"type": "object", "properties": {"gte": {"type": "integer"}}}}],
  "responses": {"204": {"description": "none"}}}}}}
JSON
python/bin/openapi-python-client generate --path api.json --meta none --output-path cities --fail-on-warning \
    >generated.log 2>&1 || true
seen=$(python/bin/python - <<'PYTHON'
import httpx
from cities import Client
from cities.api.default import list_cities
from cities.models import ListCitiesFounded, ListCitiesPopulation

asked = []
transport = httpx.MockTransport(lambda request: (asked.append(str(request.url)), httpx.Response(204))[1])
client = Client(base_url="http://api.test", httpx_args={"transport": transport})
list_cities.sync_detailed(client=client, population=ListCitiesPopulation(gte=1000))
list_cities.sync_detailed(
    client=client, population=ListCitiesPopulation(gte=1000), founded=ListCitiesFounded(gte=1800)
)
print("\n".join(asked))
PYTHON
)
printf '%s\n' "$seen"
expected="http://api.test/cities?gte=1000
http://api.test/cities?gte=1800"
[[ $seen == "$expected" ]] || { cat generated.log; echo "This is not what was seen before."; exit 1; }
