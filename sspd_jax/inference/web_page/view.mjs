// What the page shows of readings, wherever they come from: rate, words, confidence, curves, table, CSV.

import { drawHistory, drawWave, drawWords, minutes } from "./drawing.mjs";

const ROWS = 600; // of the table; a file of readings holds all
const SPOKEN_EVERY_MS = 15000;
const NAME = document.title;

export const $ = (id) => document.getElementById(id);

const readings = []; // { second, bpm, confidence, rate, why }
let wave = null; // the newest one, see `showWave`
let shownS = null; // up to where it is drawn
let swing = null;
let drawnMs = 0;
let spokenMs = -Infinity;
const still = matchMedia("(prefers-reduced-motion: reduce)");

/** Says in a sentence how things stand. States: ready, reading, no reading, waiting, stopped, ended, failed. */
export function say(text, state) {
  const turned = state !== document.body.dataset.state;
  document.body.dataset.state = state;
  if ($("said").textContent !== text) $("said").textContent = text;
  $("said").className = state === "no reading" || state === "failed" ? "none" : "";
  // Who hears the page is told what changes, not every second the same with other decimals.
  const now = performance.now();
  if (turned || (now - spokenMs > SPOKEN_EVERY_MS && state !== "waiting")) {
    $("spoken").textContent = text;
    spokenMs = now;
  }
}

/** Shows a rate in bpm, or a dash for null. */
export function showRate(bpm) {
  $("rate").className = bpm === null ? "rate none" : "rate";
  $("rate").firstElementChild.textContent = bpm === null ? "–" : bpm.toFixed(0);
  document.title = bpm === null ? NAME : `${bpm.toFixed(0)} bpm · ${NAME}`;
}

/** Says why there is no reading; `isWaiting`: nothing is wrong, it takes some seconds more. */
export function showNone(why, isWaiting = false) {
  showRate(null);
  showConfidence(null);
  say(`${isWaiting ? "No reading yet" : "No reading"}: ${why}.`, isWaiting ? "waiting" : "no reading");
}

function percentOf(confidence) {
  return `${Math.min(99, Math.round(100 * confidence))} %`;
}

function showConfidence(confidence, isReading = false) {
  const percent = Math.round(100 * (confidence ?? 0));
  $("bar").className = isReading ? "bar" : "bar none";
  $("bar").children[0].style.width = `${percent}%`;
  $("bar").setAttribute("aria-valuenow", percent);
  $("sure").textContent = confidence === null ? "confidence" : `${percentOf(confidence)} sure to be within 3 bpm`;
}

/** Shows how sure a reading must be, 0 to 1. */
export function showLeast(confidence) {
  const least = `${Math.round(100 * confidence)} %`;
  $("bar").children[1].style.left = `calc(${least.replace(" ", "")} - 1px)`;
  $("least").textContent = `a reading needs ${least}`;
}

/** Shows what is known of the pictures: null is a dash. */
export function showFigures({ latencyS, fps, dropped, second }) {
  $("latency").textContent = latencyS === null ? "–" : `${latencyS.toFixed(2)} s`;
  $("fps").textContent = fps > 0 ? fps.toFixed(1) : "–";
  $("dropped").textContent = dropped;
  $("clock").textContent = minutes(second);
}

/**
 * Shows what was judged of a window, and keeps it for the table and the file.
 *
 * `second`: its end on the frames' clock; `bpm`: null where there is no reading; `rate`: trusted or not, or null;
 * `interval`: lowest and highest bpm, or null.
 */
export function showReading({ second, bpm, confidence, rate, why, interval }) {
  readings.push({ second, bpm, confidence, rate, why });
  $("save").disabled = false;
  Object.assign(document.body.dataset, { bpm: bpm ?? "", rate: rate ?? "", confidence, judged: readings.length, seconds: second });
  if (bpm === null) showNone(why);
  else {
    showRate(bpm);
    const range = interval ? `; ${interval[0].toFixed(1)} to ${interval[1].toFixed(1)}` : "";
    say(`${bpm.toFixed(0)} beats a minute, ${percentOf(confidence)} sure${range}.`, "reading");
  }
  showConfidence(rate === null ? null : confidence, bpm !== null);
  const row = $("readings").insertRow(0);
  const texts = [second.toFixed(0), bpm === null ? "–" : bpm.toFixed(1), percentOf(confidence), why];
  for (const text of texts) row.insertCell().textContent = text;
  if ($("readings").rows.length > ROWS) $("readings").deleteRow(-1);
}

/** Draws rates [[s, bpm or null], …] up to a moment; by default those that were shown here. */
export function showHistory(nowS, history = readings.slice(-ROWS).map(({ second, bpm }) => [second, bpm])) {
  const draw = () => drawHistory($("history"), history, nowS);
  draw();
  window.onresize = draw;
  const given = history.filter(([, bpm]) => bpm !== null);
  const words = given.length
    ? `${given.length} of ${history.length} windows have a reading, the last ${given[given.length - 1][1].toFixed(0)} beats a minute`
    : "none yet";
  $("history").setAttribute("aria-label", `Heart rates: ${words}`);
}

/**
 * Shows a pulse wave: { startS, fps, values }, and beside it whether it is trusted, how far updates are apart in s, and
 * whether it is the last one. The curve moves at its own pace, as far behind as updates are apart. Words in place of
 * a wave are shown as they are.
 */
export function showWave(newest, { trusted = false, everyS = 1, speed = 1, isLast = false } = {}) {
  if (typeof newest === "string") {
    if (wave !== newest) drawWords($("wave"), newest);
    wave = newest;
    shownS = swing = null;
    $("wave").setAttribute("aria-label", `Pulse wave: ${newest}`);
    return;
  }
  const isNew = wave === null || typeof wave === "string";
  wave = { ...newest, values: levelled(newest.values), trusted, everyS, speed, isLast, cameMs: performance.now() };
  $("wave").setAttribute("aria-label", `Pulse wave: ${trusted ? "beside the heart rate" : "not trusted, there is no reading"}`);
  if (isNew) requestAnimationFrame(moveWave);
}

/** Brings a wave to a largest swing of 1: from update to update it may be another method's, in other units. */
function levelled(values) {
  const mean = values.reduce((a, b) => a + b, 0) / values.length;
  const most = values.reduce((largest, value) => Math.max(largest, Math.abs(value - mean)), 1e-12);
  return values.map((value) => (value - mean) / most);
}

function moveWave(nowMs) {
  if (wave === null || typeof wave === "string") return;
  const step = Math.min(0.1, (nowMs - drawnMs) / 1000);
  drawnMs = nowMs;
  const { startS, fps, values, everyS, speed } = wave;
  const endS = startS + (values.length - 1) / fps;
  const goalS = wave.isLast ? endS : Math.min(endS, endS - 1.1 * everyS + ((nowMs - wave.cameMs) / 1000) * speed);
  if (shownS === null || still.matches || Math.abs(goalS - shownS) > 2 + everyS) shownS = goalS;
  else shownS = Math.min(endS, Math.max(shownS, shownS + step * speed + 2 * step * (goalS - shownS)));
  swing = drawWave($("wave"), wave, shownS, { size: swing, change: Math.min(1, 3 * step), trusted: wave.trusted });
  requestAnimationFrame(moveWave);
}

function save() {
  const quoted = (text) => `"${String(text).replaceAll('"', '""')}"`;
  const number = (value, digits) => (value === null ? "" : value.toFixed(digits));
  const lines = readings.map(({ second, bpm, confidence, rate, why }) =>
    [second.toFixed(2), number(bpm, 2), confidence.toFixed(4), number(rate, 2), quoted(why)].join(","),
  );
  const text = ["end_s,heart_rate_bpm,confidence,candidate_bpm,why", ...lines, ""].join("\r\n");
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
  link.download = "heart_rate.csv";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

$("save").onclick = save;
