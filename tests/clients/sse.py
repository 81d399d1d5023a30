"""httpx-sse follows a stream over a heartbeat, goes on after a cut, and misses nothing.

SHOP=http://… SHOP_TOKEN=… python sse.py
"""

import json
import os
from collections.abc import Iterator

import httpx
from httpx_sse import ServerSentEvent, connect_sse

SHOP = os.environ["SHOP"]
client = httpx.Client(
    base_url=SHOP, headers={"authorization": f"Bearer {os.environ['SHOP_TOKEN']}"}, timeout=30
)


def create(name: str) -> str:
    product = {"name": name, "price_cents": 100, "cost_cents": 50, "in_stock": True}
    answer = client.post("/products", json=product)
    answer.raise_for_status()
    return str(answer.json()["id"])


def told(events: Iterator[ServerSentEvent], subject: str) -> ServerSentEvent:
    for event in events:
        # As src/docs/streams.md says of heartbeats.
        if not event.data:
            continue
        if event.event == "products.created" and json.loads(event.data)["subject"] == subject:
            return event
    raise SystemExit("the stream ended")


with connect_sse(client, "GET", "/products/stream") as stream:
    events = stream.iter_sse()
    ready = next(events)
    assert (ready.event, ready.data) == ("ready", "{}"), ready
    assert ready.retry is not None and 2_000 <= ready.retry < 4_000, ready
    heartbeat = next(events)
    assert (heartbeat.event, heartbeat.data) == ("message", ""), heartbeat
    assert heartbeat.id != ready.id, "a heartbeat has an id of its own"
    first = create("Followed by httpx-sse")
    last = told(events, first)

second = create("Created during a cut")
headers = {"last-event-id": last.id}
with connect_sse(client, "GET", "/products/stream", headers=headers) as stream:
    told(stream.iter_sse(), second)

for product in (first, second):
    client.delete(f"/products/{product}").raise_for_status()
print("httpx-sse: a heartbeat is an event without data; nothing was missed over a cut")
