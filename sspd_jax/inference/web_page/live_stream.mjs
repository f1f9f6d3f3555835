// The page's source where `sspd_jax live` serves it: numbers and pictures come from that command.

import { drawBox } from "./drawing.mjs";
import { $, say, showFigures, showHistory, showLeast, showNone, showReading, showWave } from "./view.mjs";

const PICTURE_EVERY_MS = 160;
const context = $("view").getContext("2d");
let state = null;
let cameMs = 0;
let picture = null;
let shownS = null; // the update that was shown last

function show() {
  $("source").textContent = `· ${state.source} · ${state.method}`;
  showLeast(state.min_confidence);
  const { update } = state;
  if (!update) return;
  if (update.time_s !== shownS) showUpdate(update); // a lost connection brings the last one again
  shownS = update.time_s;
  const { wave, face_box: box, window: judged } = update;
  if (wave.values.length > 1) {
    const how = { trusted: judged.heart_rate_bpm !== null, everyS: state.every_s, speed: state.speed, isLast: state.ended };
    showWave({ startS: wave.start_s, fps: wave.fps, values: wave.values }, how);
  } else showWave(box ? "it appears as soon as enough seconds are watched" : "no face, no wave");
  if (state.ended) say(`${$("said").textContent} It has ended: this is the last state.`, "ended");
}

function showUpdate(update) {
  const { window: judged, face_box: box } = update;
  const bpm = judged.heart_rate_bpm;
  if (bpm === null && judged.candidate_bpm === null && judged.duration_s < state.window_s - 0.1) {
    showNone(judged.why, box !== null && !judged.why.includes("dropped"));
  } else {
    showReading({
      second: update.time_s,
      bpm,
      confidence: judged.confidence,
      rate: judged.candidate_bpm,
      why: judged.why,
      interval: judged.interval_bpm,
    });
  }
  showFigures({ latencyS: update.latency_s, fps: update.fps, dropped: update.dropped, second: update.time_s });
  showHistory(update.time_s, state.history);
}

function drawPicture() {
  if (!state || !picture) return;
  const { width, height } = picture;
  if (context.canvas.width !== width || context.canvas.height !== height) Object.assign(context.canvas, { width, height });
  context.drawImage(picture, 0, 0);
  $("stage").classList.add("live");
  const box = state.update?.face_box;
  if (!box) return;
  const [across, down] = state.frame_size;
  const [left, top, right, bottom] = box.map((value, i) => (i % 2 ? (value / down) * height : (value / across) * width));
  drawBox(context, { x: (left + right) / 2, y: (top + bottom) / 2, width: right - left, height: bottom - top });
}

function nextPicture() {
  const image = new Image();
  const again = (waitMs) => setTimeout(nextPicture, waitMs);
  image.onload = () => {
    picture = image;
    drawPicture();
    again(state?.ended ? 2000 : PICTURE_EVERY_MS);
  };
  image.onerror = () => again(1000);
  if (document.hidden) again(1000);
  else image.src = `picture.jpg?${performance.now()}`;
}

function tellSilence() {
  if (state?.update && !state.ended && performance.now() - cameMs > 4000 + 4000 * state.every_s) {
    say("No frames come.", "failed");
  }
}

const events = new EventSource("events");
events.onmessage = ({ data }) => {
  state = JSON.parse(data);
  cameMs = performance.now();
  show();
  drawPicture();
};
events.onerror = () => {
  if (!state?.ended) say("No connection: is the command still running?", "failed");
};
$("hint").textContent = "No picture yet.";
say("Starting: the first update takes some seconds.", "waiting");
setInterval(tellSilence, 1000);
nextPicture();
