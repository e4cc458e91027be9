// Keeps a page up to date, shows instants in the reader's zone, and makes rows reachable by key.

const RETRY_MS = 3000;
const ASK_MS = 5000;
const STREAMS_MAX = 4;
const FAILURES_MAX = 2;
let stream = null;
let release = null;
let timer = null;
let failures = 0;
let turn = 0;
let isAsked = false;

function localize(root) {
  for (const time of root.querySelectorAll("time")) {
    const at = new Date(time.dateTime);
    if (!isNaN(at)) {
      const year = at.getFullYear() === new Date().getFullYear() ? {} : { year: "numeric" };
      const parts = { month: "short", day: "numeric", hour: "numeric", minute: "2-digit" };
      const second = time.dataset.shown === "second" ? { second: "2-digit" } : {};
      time.textContent = at.toLocaleString([], { ...parts, ...year, ...second });
    }
  }
  for (const text of root.querySelectorAll("text[data-at]")) {
    const at = new Date(text.dataset.at);
    const parts = { time: { hour: "numeric", minute: "2-digit" }, second: { timeStyle: "medium" }, day: { month: "short", day: "numeric" },
      weekday: { weekday: "short", hour: "numeric", minute: "2-digit" } };
    text.textContent = at.toLocaleString([], parts[text.dataset.shown]);
  }
}

// Browsers let pages write to the clipboard over https and on this machine alone.
function addCopy(root) {
  if (!navigator.clipboard) return;
  for (const block of root.querySelectorAll("pre, .once p:has(.secret)")) {
    const button = Object.assign(document.createElement("button"), { type: "button", className: "copy", textContent: "Copy" });
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(block.querySelector("code").textContent);
      button.textContent = "Copied";
    });
    block.append(button);
  }
}

function say(text) {
  const place = document.getElementById("connection");
  if (place) place.textContent = text;
}

const reachable = (element) => [...element.querySelectorAll("a, button, input, select, summary, [tabindex]")];

function replace({ id, html }) {
  const element = document.getElementById(id);
  if (!element || element.contains(document.activeElement?.closest("form"))) return;
  const chosen = new Set([...element.querySelectorAll("input:checked")].map((each) => each.value));
  const open = [...element.querySelectorAll("details")].map((each) => each.open);
  const focused = reachable(element).indexOf(document.activeElement);
  element.innerHTML = html;
  element.querySelectorAll("details").forEach((each, place) => { each.open = open[place] ?? each.open; });
  for (const each of element.querySelectorAll("input[type=checkbox]")) each.checked = chosen.has(each.value);
  if (focused >= 0) reachable(element)[focused]?.focus({ preventScroll: true });
  localize(element);
  addCopy(element);
  mark(rowAt);
  count();
}

// The buttons above the list are of use once a batch is chosen.
function count() {
  const form = document.getElementById("selection");
  if (!form) return;
  const number = document.querySelectorAll("input[name=batch]:checked").length;
  const all = form.elements.all.checked;
  form.querySelectorAll("button").forEach((each) => { each.disabled = !number && !all; });
  form.querySelector("[data-chosen]").textContent = all ? "With all of them:" : `With ${number} chosen:`;
}

document.addEventListener("change", count);

// A page that is seen is kept up to date: by a stream while this browser has few of them, for it opens
// six connections to one host and no more; else, and where a proxy lets no stream through, by asking.
function takePlace(number) {
  return new Promise((told) => navigator.locks.request(`lowtide-stream-${number}`, { ifAvailable: true }, (lock) => {
    told(Boolean(lock));
    return lock && new Promise((done) => { release = done; });
  }));
}

async function hasPlace() {
  if (!navigator.locks || failures >= FAILURES_MAX) return false;
  for (let number = 0; number < STREAMS_MAX; number += 1) if (await takePlace(number)) return true;
  return false;
}

function close() {
  turn += 1;
  stream?.close();
  release?.();
  clearTimeout(timer);
  stream = release = null;
}

async function listen() {
  const address = document.body.dataset.live;
  close();
  if (!address || document.hidden) return;
  const mine = turn;
  const whole = address + (location.search ? "&" + location.search.slice(1) : "");
  const isStreamed = await hasPlace();
  if (mine !== turn) release?.();
  else if (isStreamed) open(whole);
  else ask(whole, mine);
}

function open(address) {
  stream = new EventSource(address);
  stream.onopen = () => { failures = 0; say(""); };
  stream.onmessage = (event) => replace(JSON.parse(event.data));
  stream.onerror = () => {
    failures += 1;
    say("Not connected: what you see may be old.");
    close();
    timer = setTimeout(listen, RETRY_MS);
  };
}

async function ask(address, mine) {
  try {
    const answer = await fetch(`${address}&once=${isAsked ? "again" : "yes"}`);
    if (!answer.ok) throw new Error(answer.status);
    const changes = (await answer.text()).split("\n").filter((line) => line.startsWith("data: "));
    if (mine !== turn) return;
    changes.forEach((line) => replace(JSON.parse(line.slice(6))));
    isAsked = true;
    failures = 0;
    say("");
  } catch {
    say("Not connected: what you see may be old.");
  }
  if (mine === turn) timer = setTimeout(listen, ASK_MS);
}

document.addEventListener("visibilitychange", () => (document.hidden ? close() : listen()));

document.addEventListener("submit", (event) => {
  const question = event.submitter?.dataset.question ?? event.target.dataset.question;
  if (question && !confirm(question)) event.preventDefault();
  else if ("slow" in event.target.dataset) event.submitter.textContent = "Waiting for the answers…";
});

// A cell of the strip is many lines: the page of lines begins at the one that was pointed at.
document.addEventListener("click", (event) => {
  const link = event.target.closest?.("a[data-first]");
  if (!link || !event.detail || event.ctrlKey || event.metaKey) return;
  const { left, width } = link.querySelector("rect").getBoundingClientRect();
  const passed = Math.floor(((event.clientX - left) / width) * link.dataset.count);
  const address = new URL(link.href.baseVal, location.href);
  address.searchParams.set("first", Number(link.dataset.first) + Math.max(0, passed));
  event.preventDefault();
  location.href = address.href;
});

let rowAt = -1;
const rows = () => [...document.querySelectorAll("tr[data-href]")];

function mark(place) {
  rows().forEach((row, each) => row.classList.toggle("at", each === place));
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  // A closed dialog keeps the focus until the browser draws again: its keys are the page's.
  if (event.target.closest("input:not([type=checkbox]), textarea, select, dialog[open]")) return;
  const all = rows();
  if (event.key === "j" || event.key === "k") {
    rowAt = Math.min(all.length - 1, Math.max(0, rowAt + (event.key === "j" ? 1 : -1)));
    mark(rowAt);
    all[rowAt]?.scrollIntoView({ block: "nearest" });
  } else if (event.key === "x" && all[rowAt]) {
    all[rowAt].querySelector("input[name=batch]")?.click();
  } else if (event.key === "Enter" && all[rowAt] && event.target === document.body) {
    location.href = all[rowAt].dataset.href;
  } else if (event.key === "/" && document.getElementById("q")) {
    event.preventDefault();
    document.getElementById("q").focus();
  } else if (event.key === "g") {
    document.querySelector(".brand").click();
  } else if (event.key === "?") {
    document.getElementById("keys").showModal();
  }
});

function upload(form) {
  const sent = new XMLHttpRequest();
  const [told, bar, button] = ["[role=alert]", "progress", "button"].map((each) => form.querySelector(each));
  const end = (text) => {
    bar.hidden = true;
    button.disabled = false;
    told.hidden = false;
    told.textContent = text;
  };
  sent.open("POST", form.action);
  sent.setRequestHeader("accept", "application/json");
  sent.responseType = "json";
  sent.upload.onprogress = (event) => { bar.value = event.loaded / event.total; };
  sent.onerror = () => end("The upload broke off: nothing was kept. Send the file again.");
  sent.onload = () => {
    if (sent.status === 200) location.href = sent.response.address;
    else end(sent.response?.error?.message ?? `The server answered ${sent.status}.`);
  };
  told.hidden = true;
  bar.hidden = false;
  button.disabled = true;
  sent.send(new FormData(form));
}

// A table is for a command, which reads it where it lies: that stands on the page, with its name.
function refuseTable(form) {
  const name = form.elements.file.files[0]?.name ?? "";
  if (!form.dataset.tables.split(" ").some((ending) => name.toLowerCase().endsWith(ending))) return false;
  const [place, told] = [document.getElementById("table"), form.querySelector("[role=alert]")];
  const code = place.querySelector("code");
  const word = /^[\w@%+=:,./-]+$/.test(name) ? name : `'${name.replaceAll("'", `'"'"'`)}'`;
  code.textContent = code.textContent.replace(code.dataset.example, () => word);
  code.dataset.example = word;
  place.open = true;
  told.hidden = false;
  told.textContent = `${name} is a table, and this page takes requests: the command below asks about each of its rows.`;
  return true;
}

const drop = document.querySelector("form[data-upload]");
if (drop) {
  for (const kind of ["dragover", "dragleave", "drop"]) {
    drop.addEventListener(kind, (event) => {
      event.preventDefault();
      drop.classList.toggle("over", kind === "dragover");
    });
  }
  drop.addEventListener("drop", (event) => { drop.elements.file.files = event.dataTransfer.files; });
  drop.addEventListener("submit", (event) => {
    event.preventDefault();
    if (!refuseTable(drop)) upload(drop);
  });
}

document.querySelector("[data-zone]")?.replaceChildren(Intl.DateTimeFormat().resolvedOptions().timeZone);
localize(document);
addCopy(document);
count();
listen();
