// Copyright (c) monai_fewshot contributors
// SPDX-License-Identifier: Apache-2.0
"use strict";

const part = (id) => document.getElementById(id);
let scans = [];
let classes = [];
let current = -1;
let maskShown = true;
let viewer = null;
let shown = Promise.resolve();
let saving = Promise.resolve();
let stepsToDo = 0;
let ahead = { place: -1, parts: null };

history.replaceState(null, "", "/"); // the token is in the cookie now, and need not stay in the history

async function answerOf(address, options) {
  let answer;
  try {
    answer = await fetch(address, options);
  } catch (error) {
    throw new Error("The server does not answer: start monai-fewshot review again.");
  }
  if (answer.ok) return answer;
  const text = await answer.text();
  let told = text;
  try { told = JSON.parse(text).error || text; } catch (error) { /* it is no JSON */ }
  throw new Error(told);
}

function say(text) { part("message").textContent = text; }

function textCell(row, text, kind) {
  const cell = row.insertCell();
  cell.textContent = text;
  if (kind) cell.className = kind;
  return cell;
}

function drawList() {
  const list = part("list");
  list.replaceChildren();
  scans.forEach((scan, place) => {
    const row = list.insertRow();
    textCell(row, scan.name);
    const quality = textCell(row, scan.quality === null ? "–" : `${Math.round(100 * scan.quality)} %`);
    if (scan.worst_class) quality.title = `worst class: ${scan.worst_class}`;
    textCell(row, scan.verdict + (scan.note ? " ✎" : ""), scan.verdict).title = scan.note;
    row.setAttribute("aria-current", String(place === current));
    row.addEventListener("click", () => show(place));
  });
  const decided = scans.filter((scan) => scan.verdict).length;
  part("progress").textContent = `${decided} of ${scans.length} decided`;
  const verdict = current < 0 ? "" : scans[current].verdict;
  part("accept").setAttribute("aria-pressed", String(verdict === "accepted"));
  part("reject").setAttribute("aria-pressed", String(verdict === "rejected"));
}

function drawClasses() {
  for (const each of classes) {
    const item = document.createElement("li");
    const color = document.createElement("span");
    color.style.backgroundColor = each.color;
    item.append(color, each.name);
    part("classes").append(item);
  }
}

function labelColors() {
  const colors = { I: [0], R: [0], G: [0], B: [0], A: [0], labels: [""] };
  for (const each of classes) {
    colors.I.push(each.number);
    ["R", "G", "B"].forEach((c, i) => colors[c].push(parseInt(each.color.slice(1 + 2 * i, 3 + 2 * i), 16)));
    colors.A.push(255);
    colors.labels.push(each.name);
  }
  return colors;
}

async function bufferOf(place, kind) {
  return (await answerOf(`/scans/${place}/${kind}`)).arrayBuffer();
}

function partsOf(place) {
  if (ahead.place !== place) {
    ahead = { place, parts: Promise.all([bufferOf(place, "image"), bufferOf(place, "mask")]) };
    ahead.parts.catch(() => {});
  }
  return ahead.parts;
}

async function showVolume(place) {
  const [image, mask] = await partsOf(place);
  ahead = { place: -1, parts: null };
  if (place !== current) return;
  viewer = viewer || (await makeViewer(part("volume")));
  await showInViewer(viewer, image, mask, labelColors());
  showMask();
}

function showMask() {
  part("mask").setAttribute("aria-pressed", String(maskShown));
  if (current >= 0 && scans[current].picture) {
    part("picture").src = `/scans/${current}/${maskShown ? "preview" : "image"}`;
  } else if (viewer && viewer.volumes.length > 1) {
    viewer.overlayAlphaShader = maskShown ? 1 : 0;
    viewer.drawScene();
  }
}

function readAhead() {
  const next = current + 1;
  if (next < scans.length && !scans[next].picture) partsOf(next);
}

async function show(place) {
  if (place < 0 || place >= scans.length) return;
  keepNote();
  current = place;
  const scan = scans[place];
  part("name").textContent = scan.name;
  part("note").value = scan.draft ?? scan.note;
  part("saved").textContent = "";
  part("volume").hidden = scan.picture;
  part("picture").hidden = !scan.picture;
  drawList();
  part("list").rows[place].scrollIntoView({ block: "nearest" });
  document.body.dataset.shown = "";
  if (scan.picture) {
    say("");
    showMask();
    return;
  }
  say("Loading ...");
  shown = shown.then(async () => {
    if (place !== current) return;
    try {
      await showVolume(place);
      if (place !== current) return;
      say("");
      document.body.dataset.shown = String(place);
      readAhead();
    } catch (error) {
      if (place !== current) return;
      ahead = { place: -1, parts: null };
      if (viewer) emptyViewer(viewer);
      say(error.message);
    }
  });
  await shown;
}

// Keep changes of a scan's verdict or note; a note that cannot be kept stays in its field.
function keep(scan, changes) {
  saving = saving.then(async () => {
    try {
      const { name, verdict, note } = { ...scan, ...changes };
      const body = JSON.stringify({ scan: name, verdict, note });
      const headers = { "Content-Type": "application/json" };
      const answer = await answerOf("/reviews", { method: "POST", headers, body, keepalive: true });
      Object.assign(scan, await answer.json());
      delete scan.draft;
      part("saved").className = "";
      part("saved").textContent = `kept: ${scan.name}`;
    } catch (error) {
      if ("note" in changes) scan.draft = changes.note;
      part("saved").className = "failed";
      part("saved").textContent = `NOT KEPT: ${scan.name}: ${error.message}`;
    }
    drawList();
  });
  return saving;
}

function decide(verdict) {
  if (current >= 0) keep(scans[current], { verdict, note: part("note").value });
}

function keepNote() {
  if (current < 0) return;
  const scan = scans[current];
  if (part("note").value !== scan.note) keep(scan, { note: part("note").value });
}

// Steps that come faster than the browser draws are taken together, so that it does not lag behind a key held down.
function scroll(slices) {
  if (!viewer || !viewer.volumes.length || scans[current].picture) return;
  if (!stepsToDo) {
    requestAnimationFrame(() => {
      const steps = stepsToDo;
      stepsToDo = 0;
      viewer.moveCrosshairInVox(0, 0, steps);
    });
  }
  stepsToDo += slices;
}

function switchMask() {
  maskShown = !maskShown;
  showMask();
}

const ACTIONS = {
  n: () => show(current + 1),
  ArrowRight: () => show(current + 1),
  p: () => show(current - 1),
  ArrowLeft: () => show(current - 1),
  ArrowUp: () => scroll(1),
  ArrowDown: () => scroll(-1),
  a: () => decide("accepted"),
  r: () => decide("rejected"),
  m: switchMask,
};

document.addEventListener("keydown", (event) => {
  if (event.target === part("note")) {
    if (event.key === "Escape") part("note").blur();
    return;
  }
  if (event.ctrlKey || event.metaKey || event.altKey || !(event.key in ACTIONS)) return;
  event.preventDefault();
  event.stopPropagation();
  ACTIONS[event.key]();
}, true);

part("note").addEventListener("change", keepNote);
document.addEventListener("visibilitychange", keepNote);
window.addEventListener("pagehide", keepNote);
part("next").addEventListener("click", ACTIONS.n);
part("previous").addEventListener("click", ACTIONS.p);
part("accept").addEventListener("click", ACTIONS.a);
part("reject").addEventListener("click", ACTIONS.r);
part("mask").addEventListener("click", ACTIONS.m);
part("picture").addEventListener("error", () => say("The picture cannot be shown: is it still there?"));
part("picture").addEventListener("load", () => { say(""); document.body.dataset.shown = String(current); });

async function begin() {
  try {
    const told = await (await answerOf("/scans")).json();
    ({ scans, classes } = told);
    part("folder").textContent = told.folder;
    document.title = `Review of ${told.folder}`;
    drawClasses();
    drawList();
    await show(0);
  } catch (error) {
    say(error.message);
  }
}

begin();
