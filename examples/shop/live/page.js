// The list of orders, and everything that happens to it: one request, one EventSource, and a socket for who else is here.

const $ = (selector) => document.querySelector(selector);
const orders = new Map();
const customers = new Map();
const changes = ["orders.created", "orders.updated", "orders.pay", "orders.ship", "added"];
let stream;

async function api(path, options = {}) {
  const answer = await fetch(path, { ...options, headers: { "content-type": "application/json", ...options.headers } });
  const body = answer.status === 204 ? null : await answer.json();
  if (!answer.ok) throw Object.assign(new Error(body.detail), { status: answer.status });
  return { body, headers: answer.headers };
}

function say(state, kind) {
  $("#state").textContent = state;
  $("#state").className = `badge ${kind}`;
}

function element(name, text, ...children) {
  const made = document.createElement(name);
  made.textContent = text;
  made.append(...children);
  return made;
}

// What an order's row says, and what can be done with it.
function row(order) {
  const made = document.createElement("tr");
  made.dataset.id = order.id;
  const cells = [order.id.slice(-6), customers.get(order.customer_id) ?? "", order.note ?? "", order.user_id, order.status];
  made.append(...cells.map((text) => element("td", text)));
  const next = { open: "pay", paid: "ship" }[order.status];
  const last = element("td", "");
  if (next) {
    const button = element("button", next);
    button.onclick = () => attempt(() => api(`/orders/${order.id}/${next}`, { method: "POST" }));
    last.append(button);
  }
  made.append(last);
  return made;
}

function show(order) {
  orders.set(order.id, order);
  const made = row(order);
  const there = $(`tr[data-id="${order.id}"]`);
  made.className = "changed";
  if (there) there.replaceWith(made);
  else $("tbody").prepend(made);
}

function hide(id) {
  orders.delete(id);
  $(`tr[data-id="${id}"]`)?.remove();
}

function log(message, event) {
  const item = element("li", `${message.type}  ${event.subject ? event.subject.slice(-6) : ""}`);
  item.dataset.event = event.id ?? "";
  item.dataset.subject = event.subject ?? "";
  $("#log").prepend(item);
}

async function attempt(work) {
  $("#problem").hidden = true;
  try {
    await work();
  } catch (error) {
    $("#problem").textContent = error.message;
    $("#problem").hidden = false;
  }
}

// Reads the list, and goes on from exactly there.
async function begin() {
  const { body, headers } = await api("/orders?sort=-id&limit=100", { headers: { prefer: "stream-position" } });
  orders.clear();
  $("tbody").replaceChildren();
  for (const order of body.items.toReversed()) show(order);
  follow(headers.get("stream-position"));
}

function follow(position) {
  stream?.close();
  stream = new EventSource(`/orders/stream?last_event_id=${encodeURIComponent(position)}`);
  stream.addEventListener("ready", () => say("live", "live"));
  // A browser comes back by itself, and says what it saw last.
  stream.onerror = () => say(stream.readyState === EventSource.CLOSED ? "ended" : "away", "away");
  const heard = (put) => (message) => {
    const event = JSON.parse(message.data);
    log(message, event);
    put(event);
  };
  for (const name of changes) stream.addEventListener(name, heard((event) => show(event.data)));
  for (const name of ["orders.deleted", "removed"]) stream.addEventListener(name, heard((event) => hide(event.subject)));
  stream.addEventListener("reset", () => attempt(begin));
}

// Who else looks at the orders.
function join() {
  const socket = new WebSocket(`${location.origin.replace("http", "ws")}/ws`, "resourceful.v1.json");
  const present = new Map();
  const draw = () => $("#present").replaceChildren(...[...present.values()].map((name) => element("li", name)));
  socket.onopen = () => socket.send(JSON.stringify({ type: "join", id: "orders", resource: "orders" }));
  socket.onmessage = ({ data }) => {
    const message = JSON.parse(data);
    if (message.type === "members") {
      present.clear();
      for (const member of message.members) present.set(member.id, member.actor);
    } else if (message.type === "joined") present.set(message.member.id, message.member.actor);
    else if (message.type === "left") present.delete(message.member);
    draw();
  };
  socket.onclose = () => {
    present.clear();
    draw();
    setTimeout(join, 1000 + Math.random() * 2000);
  };
}

$("#new").onsubmit = (submitted) => {
  submitted.preventDefault();
  const form = new FormData(submitted.target);
  const order = { customer_id: form.get("customer_id"), note: form.get("note") || null };
  attempt(async () => {
    await api("/orders", { method: "POST", body: JSON.stringify(order) });
    submitted.target.elements.note.value = "";
  });
};

try {
  const { body } = await api("/customers?fields=id,name&limit=100");
  for (const { id, name } of body.items) {
    customers.set(id, name);
    $("select").append(new Option(name, id));
  }
  $("#orders").hidden = $("#sign-out").hidden = false;
  await attempt(begin);
  join();
} catch (error) {
  $("#strangers").hidden = false;
  say(error.status === 401 ? "signed out" : error.message, "");
}
