"use strict";
const at = id => document.getElementById(id);
const { entities, links, cycles } = JSON.parse(at("data").textContent);
const view = at("view"), world = at("world"), map = at("map"), stage = view.parentElement;
const { width, height } = view.viewBox.baseVal;
const still = matchMedia("(prefers-reduced-motion: reduce)");
const narrow = matchMedia("(max-width: 760px)");

const boxes = entities.map((_, number) => world.querySelector(`[data-entity="${number}"]`));
const ways = links.map((_, number) => world.querySelector(`[data-link="${number}"]`));
const names = [...world.querySelectorAll("[data-links]")]
  .map(element => [element, element.dataset.links.split(" ").map(Number)]);
const places = boxes.map(box => {
  const { e: x, f: y } = box.transform.baseVal.consolidate().matrix;
  const { width, height } = box.querySelector(".body").getBBox();
  return { x, y, width, height };
});

const kind = number => boxes[number].classList[1];

// Everything goes in as text, since titles hold whatever people wrote.
function element(tag, className, ...content) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.append(...content);
  return made;
}

function drawn(tag, attributes = {}) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

/* The view: where the world is in it, and how large. */

// Below FAR only keys are shown, and larger. Down to READABLE they can be read.
const NEAREST = 2.5, LARGEST = 1.3, FAR = 0.55, READABLE = 0.42;
let scale = 1, left = 0, top_ = 0, moving = 0;

function show() {
  world.setAttribute("transform", `translate(${left} ${top_}) scale(${scale})`);
  view.classList.toggle("far", scale < FAR);
  drawFrame();
}

function farthest() {
  return Math.min(fitting({ x: 0, y: 0, width, height }), LARGEST);
}

function fitting(part) {
  const margin = narrow.matches ? 24 : 56;
  return Math.min((view.clientWidth - margin) / part.width, (view.clientHeight - margin) / part.height);
}

function go(newScale, x, y) {
  const target = [newScale, view.clientWidth / 2 - x * newScale, view.clientHeight / 2 - y * newScale];
  const from = [scale, left, top_], begin = performance.now(), mine = ++moving;
  const step = now => {
    if (mine !== moving) return;
    const part = still.matches ? 1 : Math.min((now - begin) / 220, 1);
    const eased = 1 - (1 - part) ** 3;
    [scale, left, top_] = from.map((value, place) => value + (target[place] - value) * eased);
    show();
    if (part < 1) requestAnimationFrame(step);
  };
  step(begin);
}

function jump(newScale, x, y) {
  moving++;
  [scale, left, top_] = [newScale, view.clientWidth / 2 - x * newScale, view.clientHeight / 2 - y * newScale];
  show();
}

function zoom(factor, x = view.clientWidth / 2, y = view.clientHeight / 2) {
  moving++;
  const next = Math.min(Math.max(scale * factor, farthest() * 0.7), NEAREST);
  left = x - (x - left) * next / scale;
  top_ = y - (y - top_) * next / scale;
  scale = next;
  show();
}

function pan(x, y) {
  moving++;
  left += x;
  top_ += y;
  show();
}

const middle = place => [place.x + place.width / 2, place.y + place.height / 2];

function around(numbers) {
  const all = numbers.map(number => places[number]);
  const x = Math.min(...all.map(each => each.x)), y = Math.min(...all.map(each => each.y));
  const right = Math.max(...all.map(each => each.x + each.width));
  const bottom = Math.max(...all.map(each => each.y + each.height));
  return { x, y, width: right - x, height: bottom - y };
}

function showAll() {
  go(farthest(), width / 2, height / 2);
}

function begin() {
  const all = farthest();
  if (all >= READABLE) jump(all, width / 2, height / 2);
  else jump(0.75, ...middle(places[0]));
}

/* What is chosen: a box, a cycle, or nothing. */

let chosen = null;

function light(lit, litLinks) {
  view.classList.toggle("partly", lit !== null);
  boxes.forEach((box, number) => box.classList.toggle("lit", lit?.has(number) ?? false));
  ways.forEach((way, number) => way.classList.toggle("lit", litLinks?.has(number) ?? false));
  for (const [name, numbers] of names) name.classList.toggle("lit", numbers.some(each => litLinks?.has(each)));
}

function choose(number) {
  if (chosen !== null) boxes[chosen].classList.remove("chosen");
  chosen = number;
  tell();
  if (number === null) return light(null, null);
  boxes[number].classList.add("chosen");
  tabTo(number);
  const own = links.map((link, index) => [link, index]).filter(([link]) => link.parent === number || link.child === number);
  light(new Set([number, ...own.flatMap(([link]) => [link.parent, link.child])]), new Set(own.map(([, index]) => index)));
}

function chooseAndGo(number) {
  choose(number);
  go(Math.max(scale, 0.85), ...middle(places[number]));
}

function chooseCycle(cycle) {
  choose(null);
  const ends = cycle.map(number => links[number].parent);
  light(new Set(ends), new Set(cycle));
  const part = around(ends);
  go(Math.min(fitting(part), 1), part.x + part.width / 2, part.y + part.height / 2);
}

function tabTo(number) {
  for (const box of boxes) box.setAttribute("tabindex", "-1");
  boxes[number].setAttribute("tabindex", "0");
}

/* Details at the side. */

function glyph(number, className) {
  const svg = drawn("svg", { width: 16, height: 16, class: "picture", "aria-hidden": "true", focusable: "false" });
  const group = drawn("g", { class: kind(number) });
  const found = boxes[number].querySelectorAll(".glyph")[className === "status" ? 1 : 0];
  if (!found) return "";
  const copy = found.cloneNode(true);
  copy.removeAttribute("transform");
  group.append(copy);
  svg.append(group);
  return svg;
}

function choice(number) {
  const { key, title, type, isNamed } = entities[number];
  const [name, what] = isNamed ? [key, title] : [type, key];
  const button = element("button", "choice", glyph(number), element("b", "", name), element("span", "what", what));
  button.type = "button";
  button.title = `${name} ${what}`;
  button.dataset.number = number;
  return button;
}

function list(title, numbers) {
  const made = element("ol");
  for (const number of numbers) {
    const button = choice(number);
    button.addEventListener("click", () => chooseAndGo(number));
    made.append(element("li", "", button));
  }
  return [element("h2", "", title), made];
}

function opening(text, url) {
  const link = element("a", "", text);
  Object.assign(link, { href: url, target: "_blank", rel: "noreferrer" });
  return link;
}

function tell() {
  const details = at("details");
  details.hidden = chosen === null;
  if (narrow.matches) for (const other of ["cycles", "overview"]) at(other).classList.toggle("aside", chosen !== null);
  if (chosen === null) return;
  const { key, title, type, status, id, url, isUnread } = entities[chosen];
  const close = element("button", "", "×");
  close.setAttribute("aria-label", "Close");
  close.addEventListener("click", () => choose(null));
  const state = status ? `${type}, ${status}` : type;
  details.replaceChildren(
    element("div", "name-line", glyph(chosen), url ? opening(key, url) : key, close),
    ...(title ? [element("div", "title-line", title)] : []),
    element("div", "state", glyph(chosen, "status"), state + (isUnread ? "; its own links could not be read" : "")),
    element("div", "reference", id),
  );
  const groups = new Map();
  for (const link of links) {
    for (const [here, there, words] of [
      [link.parent, link.child, link.hasDirection ? `${link.relationship} →` : link.relationship],
      [link.child, link.parent, link.hasDirection ? `← ${link.relationship}` : link.relationship],
    ]) if (here === chosen) groups.set(words, [...(groups.get(words) ?? []), there]);
  }
  for (const [words, numbers] of groups) details.append(...list(words, numbers));
  at("details").parentElement.scrollTop = 0;
}

/* Search. */

const search = at("search"), hits = at("hits");
const texts = entities.map(each => [each.key, each.title, each.id, each.reference, each.type, each.status].join("\n").toLowerCase());
let current = 0;

function find() {
  const wanted = search.value.trim().toLowerCase().split(/\s+/).filter(Boolean);
  const found = wanted.length ? entities.map((_, number) => number).filter(number => wanted.every(word => texts[number].includes(word))) : [];
  // A key that was typed in full comes before those that merely begin with it.
  found.sort((one, other) => (entities[other].key.toLowerCase() === wanted[0]) - (entities[one].key.toLowerCase() === wanted[0]));
  current = 0;
  hits.replaceChildren(...found.slice(0, 50).map(number => {
    const button = choice(number);
    button.tabIndex = -1;
    button.addEventListener("click", () => take(number));
    return element("li", "", button);
  }));
  hits.hidden = !found.length;
  at("hit-count").textContent = wanted.length ? `${found.length} of ${entities.length}` : "";
  choose(null);
  if (wanted.length) light(new Set(found), new Set());
  mark();
}

function mark() {
  const buttons = hits.querySelectorAll(".choice");
  buttons.forEach((button, place) => button.classList.toggle("current", place === current));
  buttons[current]?.scrollIntoView({ block: "nearest" });
}

function take(number) {
  hits.hidden = true;
  chooseAndGo(number);
}

search.addEventListener("input", find);
search.addEventListener("keydown", event => {
  const buttons = hits.querySelectorAll(".choice");
  if (event.key === "ArrowDown") current = Math.min(current + 1, buttons.length - 1);
  else if (event.key === "ArrowUp") current = Math.max(current - 1, 0);
  else if (event.key === "Enter" && buttons[current]) return take(Number(buttons[current].dataset.number));
  else if (event.key === "Escape") {
    search.value = "";
    find();
    return search.blur();
  } else return;
  event.preventDefault();
  mark();
});
document.addEventListener("pointerdown", event => {
  if (!event.target.closest(".search")) hits.hidden = true;
});

/* Pointers: one moves, two zoom. */

const pointers = new Map();
let travelled = 0;

view.addEventListener("pointerdown", event => {
  if (event.button) return;
  if (!pointers.size) travelled = 0;
  pointers.set(event.pointerId, event);
});
view.addEventListener("pointermove", event => {
  const before = pointers.get(event.pointerId);
  if (!before) return;
  const others = [...pointers.values()].filter(each => each.pointerId !== event.pointerId);
  const [x, y] = [event.clientX - before.clientX, event.clientY - before.clientY];
  travelled += Math.hypot(x, y);
  if (travelled > 4 && !view.hasPointerCapture(event.pointerId)) view.setPointerCapture(event.pointerId);
  view.classList.toggle("moving", travelled > 4);
  pointers.set(event.pointerId, event);
  if (!others.length) return pan(x, y);
  const frame = view.getBoundingClientRect(), [other] = others;
  const distance = each => Math.hypot(each.clientX - other.clientX, each.clientY - other.clientY) || 1;
  pan(x / 2, y / 2);
  zoom(distance(event) / distance(before), (event.clientX + other.clientX) / 2 - frame.left, (event.clientY + other.clientY) / 2 - frame.top);
});
for (const end of ["pointerup", "pointercancel"]) view.addEventListener(end, event => {
  pointers.delete(event.pointerId);
  view.classList.remove("moving");
});
view.addEventListener("click", event => {
  if (travelled > 4) return;
  const box = event.target.closest("[data-entity]");
  choose(box ? Number(box.dataset.entity) : null);
});
view.addEventListener("wheel", event => {
  event.preventDefault();
  const frame = view.getBoundingClientRect();
  const pixels = event.deltaY * (event.deltaMode === 1 ? 30 : 1);
  zoom(Math.exp(-pixels * (event.ctrlKey ? 0.01 : 0.0016)), event.clientX - frame.left, event.clientY - frame.top);
}, { passive: false });

/* Keys. */

const DIRECTIONS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

function nextTo(number, [towardsX, towardsY]) {
  const [x, y] = middle(places[number]);
  let best = null, least = Infinity;
  places.forEach((place, other) => {
    const [otherX, otherY] = middle(place);
    const along = (otherX - x) * towardsX + (otherY - y) * towardsY;
    const aside = Math.abs((otherX - x) * towardsY) + Math.abs((otherY - y) * towardsX);
    const cost = along + 2 * aside;
    if (other !== number && along > 1 && cost < least) [best, least] = [other, cost];
  });
  return best;
}

document.addEventListener("keydown", event => {
  if (event.target === search || event.ctrlKey || event.metaKey || event.altKey) return;
  const box = event.target.closest?.("[data-entity]");
  if (event.key in DIRECTIONS && (box || event.target === document.body || event.target === view)) {
    const [x, y] = DIRECTIONS[event.key];
    const next = box && nextTo(Number(box.dataset.entity), DIRECTIONS[event.key]);
    if (next !== null && next !== undefined) boxes[next].focus({ preventScroll: true });
    else if (!box) pan(-80 * x, -80 * y);
  } else if (box && (event.key === "Enter" || event.key === " ")) choose(Number(box.dataset.entity));
  else if (event.key === "+" || event.key === "=") zoom(1.25);
  else if (event.key === "-") zoom(0.8);
  else if (event.key === "0") showAll();
  else if (event.key === "/") search.focus();
  else if (event.key === "Escape") choose(null);
  else return;
  event.preventDefault();
});

boxes.forEach((box, number) => {
  const { key, title, type, status, sign, isNamed } = entities[number];
  box.setAttribute("role", "button");
  box.setAttribute("tabindex", number ? "-1" : "0");
  box.setAttribute("aria-label", [key, title, type, status].filter(Boolean).join(", "));
  box.addEventListener("focus", () => {
    tabTo(number);
    if (!box.matches(":focus-visible")) return;
    const { x, y, width, height } = places[number];
    const outside = left + x * scale < 0 || top_ + y * scale < 0
      || left + (x + width) * scale > view.clientWidth || top_ + (y + height) * scale > view.clientHeight;
    if (outside) go(scale, ...middle(places[number]));
  });
  // From afar a key can be read only where it takes all the room there is.
  const { width, height } = places[number];
  const far = drawn("text", { class: "far-key", x: width / 2, y: height / 2 });
  far.textContent = isNamed ? `${key} ${sign}`.trim() : type.split(" ").at(-1);
  far.style.fontSize = `${Math.min(27, width / far.textContent.length * 1.35, height * 0.8)}px`;
  far.style.dominantBaseline = "central";
  box.append(far);
});

/* The map of it all, where it is more than fits. */

const MAP = 190;
const mapScale = Math.min(MAP / width, MAP * 0.75 / height);
const frame = drawn("rect", { class: "frame" });

function drawMap() {
  map.setAttribute("viewBox", `${-20 / mapScale / 4} ${-20 / mapScale / 4} ${width + 10 / mapScale} ${height + 10 / mapScale}`);
  map.setAttribute("width", width * mapScale + 10);
  map.setAttribute("height", height * mapScale + 10);
  const least = 2 / mapScale;
  for (const [number, place] of places.entries()) map.append(drawn("rect", {
    class: kind(number), x: place.x, y: place.y,
    width: Math.max(place.width, least), height: Math.max(place.height, least),
  }));
  map.append(frame);
}

function drawFrame() {
  const x = Math.max(-left / scale, -5 / mapScale), y = Math.max(-top_ / scale, -5 / mapScale);
  const right = Math.min((view.clientWidth - left) / scale, width + 5 / mapScale);
  const bottom = Math.min((view.clientHeight - top_) / scale, height + 5 / mapScale);
  for (const [name, value] of Object.entries({ x, y, width: Math.max(right - x, 0), height: Math.max(bottom - y, 0) })) frame.setAttribute(name, value);
  map.toggleAttribute("hidden", farthest() > 0.9 * scale && x <= 0 && y <= 0 && right >= width && bottom >= height);
}

for (const name of ["pointerdown", "pointermove"]) map.addEventListener(name, event => {
  if (!(event.buttons & 1)) return;
  const point = new DOMPoint(event.clientX, event.clientY).matrixTransform(map.getScreenCTM().inverse());
  jump(scale, point.x, point.y);
});

/* Begin. */

for (const cycle of cycles) {
  const way = [...cycle.map(number => links[number].parent), links[cycle[0]].parent].map(number => entities[number].key);
  const button = element("button", "choice", element("b", "", `↻ ${links[cycle[0]].relationship} `), way.join(" → "));
  button.type = "button";
  button.addEventListener("click", () => chooseCycle(cycle));
  at("cycles").querySelector("ol").append(element("li", "", button));
}
at("cycles").hidden = !cycles.length;
at("overview").open = !narrow.matches;

at("in").addEventListener("click", () => zoom(1.25));
at("out").addEventListener("click", () => zoom(0.8));
at("all").addEventListener("click", showAll);

// On paper the whole graph is shown, by the viewBox that it has without this script.
const viewBox = view.getAttribute("viewBox");
view.removeAttribute("viewBox");
addEventListener("beforeprint", () => {
  view.setAttribute("viewBox", viewBox);
  world.removeAttribute("transform");
  view.classList.remove("far");
});
addEventListener("afterprint", () => {
  view.removeAttribute("viewBox");
  show();
});
drawMap();
begin();

// What is in the middle stays there.
let size = [view.clientWidth, view.clientHeight];
new ResizeObserver(() => {
  const now = [view.clientWidth, view.clientHeight];
  left += (now[0] - size[0]) / 2;
  top_ += (now[1] - size[1]) / 2;
  size = now;
  show();
}).observe(stage);
