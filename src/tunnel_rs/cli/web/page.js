"use strict";
// Asks once a second what the programs are doing and shows it. Whatever they tell is set as text,
// never as markup: parts of it were chosen by peers.

const EVERY = 1000;
const PATIENCE = 3; // answers that may fail before it is said
let failures = 0;

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children.map((child) => (child instanceof Node ? child : String(child))));
  return made;
}

function size(bytes, unit = "B") {
  if (typeof bytes !== "number") return "–";
  let value = bytes;
  const prefixes = ["", "k", "M", "G", "T", "P"];
  let index = 0;
  while (value >= 999.5 && index < prefixes.length - 1) { value /= 1000; index += 1; }
  const digits = index === 0 || value >= 99.95 ? 0 : 1;
  return `${value.toFixed(digits)} ${prefixes[index]}${unit}`;
}

const rate = (bytes) => (typeof bytes === "number" ? size(8 * bytes, "bit/s") : "–");

function span(seconds) {
  if (typeof seconds !== "number") return "–";
  let left = Math.floor(seconds);
  const words = [];
  for (const [length, unit] of [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]]) {
    if (left >= length) { words.push(`${Math.floor(left / length)} ${unit}`); left %= length; }
  }
  return words.slice(0, 2).join(" ") || "0 s";
}

const milliseconds = (seconds) => (typeof seconds === "number" ? `${(1000 * seconds).toFixed(1)} ms` : "–");

// On a narrow screen a row stands as a list of its cells, each with the name of its column beside it.
// The roles keep it a table for those who do not see it.
function table(caption, columns, rows) {
  if (rows.length === 0) return [];
  const titles = columns.map((name) => name.replace("#", ""));
  const numeric = (index) => (columns[index].startsWith("#") ? { class: "number" } : {});
  const head = element("tr", { role: "row" }, ...titles.map((title, index) =>
    element("th", { role: "columnheader", scope: "col", ...numeric(index) }, title)));
  const body = rows.map((cells) => element("tr", { role: "row" }, ...cells.map((cell, index) =>
    element("td", { role: "cell", "data-title": titles[index], ...numeric(index) }, element("div", {}, cell)))));
  const whole = element("table", { role: "table", "aria-label": caption },
    element("thead", { role: "rowgroup" }, head), element("tbody", { role: "rowgroup" }, ...body));
  return [element("h3", {}, caption), whole];
}

const code = (text) => element("code", {}, text);

function curve(values, top, kind) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", "path");
  const step = 600 / 299;
  const from = 600 - step * (values.length - 1);
  const points = values.map((value, index) => `${(from + index * step).toFixed(1)},${(116 - (112 * value) / top).toFixed(1)}`);
  made.setAttribute("d", points.length > 1 ? `M${points.join("L")}` : "");
  made.setAttribute("class", kind);
  return made;
}

function plot(program) {
  const history = program.history;
  const top = Math.max(1, ...history.flat());
  const picture = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  picture.setAttribute("viewBox", "0 0 600 120");
  picture.setAttribute("preserveAspectRatio", "none");
  picture.setAttribute("role", "img");
  picture.setAttribute("aria-label", `throughput, at most ${rate(top)}`);
  picture.append(
    curve(history.map((pair) => pair[0]), top, "sent"),
    curve(history.map((pair) => pair[1]), top, "received"));
  return element("figure", { class: "plot" }, picture, element("figcaption", {},
    element("span", { class: "sent" }, `sent ${rate(program.send_rate)}`),
    element("span", { class: "received" }, `received ${rate(program.receive_rate)}`),
    element("span", {}, `last 5 minutes, top of the plot: ${rate(top)}`)));
}

function facts(program) {
  const pairs = [
    ["up", span(program.seconds)],
    ["version", program.version],
    ["sessions", `${program.sessions_open} open, ${program.sessions_begun} in all`],
    ["sent", size(program.sent)],
    ["received", size(program.received)],
  ];
  const wrong = Object.entries(program.counts).filter(
    ([kind, count]) => count > 0 && /(refused|failed|lost|warnings)$/.test(kind));
  for (const [kind, count] of wrong) pairs.push([kind.replaceAll("_", " "), count]);
  return element("dl", {}, ...pairs.map(([name, value]) =>
    element("div", {}, element("dt", {}, name), element("dd", {}, value))));
}

function peers(program) {
  const named = program.role.endsWith("server"); // a client's server has no name here
  const rows = program.peers.map((peer) => [
    ...(named ? [peer.name || "–"] : []),
    element("span", {}, code(peer.peer.slice(0, 10)), ...(peer.addresses ?? []).flatMap((address) => [element("br"), code(address)])),
    span(peer.seconds),
    element("span", {}, ...peer.paths.flatMap((path) => [
      code(path.address), ` ${path.kind}, ${milliseconds(path.rtt)}${path.active ? "" : " (not in use)"}`, element("br")])),
    size(peer.sent), rate(peer.send_rate), size(peer.received), rate(peer.receive_rate),
  ]);
  return table(named ? "Clients" : "Server", [...(named ? ["name"] : []), "id", "for", "paths", "#sent", "#sending", "#received", "#receiving"], rows);
}

function sessions(program) {
  const rows = program.peers.flatMap((peer) => peer.sessions.map((session) => [
    session.session,
    peer.name || code(peer.peer.slice(0, 10)),
    code(session.source),
    code(session.target || "–"),
    span(session.seconds), size(session.sent), size(session.received),
  ]));
  return table("Sessions", ["#no.", "of", "source", "target", "for", "#sent", "#received"], rows.slice(0, 200));
}

function tunnels(program) {
  const rows = program.tunnels.map((tunnel) => [
    tunnel.tunnel, code(tunnel.addresses.join(", ")), tunnel.source === null ? "SOCKS5 proxy" : code(tunnel.source)]);
  return table("Tunnels", ["#no.", "listens on", "leads to"], rows);
}

function penalties(program) {
  const told = program.penalties ?? { sources: 0, longest: [] }; // older programs do not tell
  const rows = told.longest.map((penalty) => [
    penalty.source === "*" ? "all who are new" : code(penalty.source), penalty.failures, span(penalty.seconds)]);
  const more = told.sources - rows.length;
  return table(`Slowed down after wrong tokens${more > 0 ? ` (and ${more} more)` : ""}`, ["source", "#failures", "#time left"], rows);
}

function problems(program) {
  if (program.problems.length === 0) return [];
  const items = program.problems.toReversed().map((problem) => element("li", {},
    element("time", { class: "faint", datetime: problem.time }, new Date(problem.time).toLocaleTimeString(), " "),
    element("span", { class: "kind" }, problem.kind.replaceAll("_", " "), " "), problem.text));
  const title = "Errors, newest first";
  const attributes = { id: `problems-${program.pid}`, class: "problems", tabindex: "0", "aria-label": title };
  return [element("h3", {}, title), element("ul", attributes, ...items)];
}

function card(program) {
  const state = program.reason ? `${program.state}: ${program.reason}` : program.state;
  const id = program.endpoint_id === null ? [] : [element("p", { class: "faint" }, "EndpointId ", code(program.endpoint_id))];
  return element("article", { id: `pid-${program.pid}` },
    element("h2", {}, `${program.program} ${program.role} ${program.pid}`,
      element("span", { class: `badge ${program.state}` }, state)),
    ...id, facts(program), plot(program),
    ...peers(program), ...sessions(program), ...tunnels(program), ...penalties(program), ...problems(program));
}

// Is read out when it changes, so it must not change for nothing.
function say(text) {
  const state = document.getElementById("state");
  if (state.textContent !== text) state.textContent = text;
}

function show(programs) {
  say(programs.length === 0 ? "no server or client of this user is running" : `${programs.length} running`);
  // What somebody marks to copy it must not go away under the pointer.
  if (!document.getSelection().isCollapsed) return;
  document.getElementById("time").textContent = new Date().toLocaleTimeString();
  const focused = document.activeElement?.id;
  const scrolled = [...document.querySelectorAll(".problems")].map((list) => [list.id, list.scrollTop]);
  document.getElementById("programs").replaceChildren(...programs.map(card));
  for (const [id, top] of scrolled) document.getElementById(id)?.scrollTo(0, top);
  if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
}

async function look() {
  try {
    const answer = await fetch("status.json", { cache: "no-store" });
    if (!answer.ok) throw new Error(`HTTP ${answer.status}`);
    show(await answer.json());
    failures = 0;
  } catch (error) {
    failures += 1;
    if (failures >= PATIENCE) {
      say(`\`tunnel-rs status --web\` does not answer (${error.message})`);
    }
  }
  setTimeout(look, EVERY);
}

look();
