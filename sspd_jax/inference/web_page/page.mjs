// The page: frames of a camera or of a file go through face, skin and network; once a second the last ten seconds
// are judged. Nothing is sent anywhere; the page's content security policy allows it nothing.

import { Tensor, loadAndCompile, loadLiteRt } from "./litert/index.js";
import { Clock } from "./clock.mjs";
import { FaceNetworks, FaceTracker } from "./face.mjs";
import { SkinRecorder, WIDTH } from "./skin.mjs";

const FPS = 30; // of the network, and of the clock on which everything is put
const WINDOW = 10 * FPS;
const KEPT = 2 * WINDOW + FPS; // estimators are unsure of both ends of what they see
const BLOCK = 8;
const ENDLESS = 1 << 20;
const MAX_GAP_S = 0.5;
const MOST_SIDE = 960; // pixels of a picture that is looked at

const $ = (id) => document.getElementById(id);
const video = $("video");
const context = $("view").getContext("2d", { willReadFrequently: true });
const readings = [];
let loaded = null;
let run = null; // what goes on now; another one, or null, ends it

function say(text, state = null) {
  if ($("said").textContent !== text) $("said").textContent = text;
  if (state) document.body.dataset.state = state;
}

// What is loaded once.

async function load() {
  if ("serviceWorker" in navigator) {
    // With it the page works without a network from the second time on; without it, as well, with one.
    const ready = navigator.serviceWorker.register("offline.js").then(() => navigator.serviceWorker.ready);
    await Promise.race([ready, new Promise((go) => setTimeout(go, 3000))]).catch(() => null);
  }
  const json = async (name) => (await fetch(name)).json();
  const [parts, table] = await Promise.all([json("parts.json"), json("confidence.json")]);
  await loadLiteRt(new URL("litert/wasm/", document.baseURI).href);
  const names = { short: "face_detection_short_range", full: "face_detection_full_range", mesh: "face_landmark", pulse: "pulse" };
  const models = {};
  for (const [name, file] of Object.entries(names)) {
    models[name] = await loadAndCompile(`models/${file}.tflite`, { accelerator: "wasm" });
  }
  const judge = new Worker("judge.mjs", { type: "module" });
  judge.postMessage({ table });
  return { parts, models, judge };
}

async function runFace(name, input) {
  const model = loaded.models[name];
  const given = new Tensor(input, [...model.getInputDetails()[0].shape]);
  const outputs = await model.run([given]);
  const results = outputs.map((output) => output.toTypedArray().slice());
  for (const tensor of [given, ...outputs]) tensor.delete();
  return results;
}

/** A network's first run takes longest: no camera waits for it. */
async function warmUp() {
  for (const name of ["short", "full", "mesh"]) {
    const { shape } = loaded.models[name].getInputDetails()[0];
    await runFace(name, new Float32Array(shape.reduce((a, b) => a * b)));
  }
  const network = new PulseNetwork(loaded);
  const nothing = new Float32Array(loaded.parts.cropSize ** 2 * 3);
  for (let i = 0; i <= BLOCK; i++) await network.push(nothing);
}

/** The network, block by block: `push` returns the samples that a picture of the skin brings. */
class PulseNetwork {
  constructor({ models, parts }) {
    this._model = models.pulse;
    this._dither = parts.dither;
    this._side = parts.cropSize;
    this._crops = [];
    this._state = new Float32Array(this._model.getInputDetails().find(({ name }) => name.includes("state")).shape[0]);
    this._lag = parts.lag;
  }

  async push(crop) {
    // Rounding is spread over the pixels: a mean that is the same everywhere would jump from level to level.
    const rounded = new Uint8ClampedArray(crop.length);
    for (let i = 0; i < crop.length; i++) rounded[i] = crop[i] + this._dither[i];
    this._crops.push(rounded);
    if (this._crops.length <= BLOCK) return [];
    const frames = new Uint8Array((BLOCK + 1) * crop.length);
    this._crops.forEach((one, i) => frames.set(one, i * crop.length));
    this._crops = this._crops.slice(BLOCK);
    const inputs = {
      frames: new Tensor(frames, [BLOCK + 1, this._side, this._side, 3]),
      state: new Tensor(this._state, [this._state.length]),
      remaining: new Tensor(Int32Array.of(ENDLESS), [1]),
    };
    const { wave, next_state: next } = await this._model.run(inputs);
    this._state = next.toTypedArray().slice();
    const samples = wave.toTypedArray().slice(this._lag); // a recording's first ones mean nothing
    this._lag = Math.max(0, this._lag - BLOCK);
    for (const tensor of [...Object.values(inputs), wave, next]) tensor.delete();
    return samples;
  }
}

// A run: one camera, or one file.

class Run {
  constructor(label) {
    this.label = label;
    this.count = this.dropped = this.number = 0;
    this._waiting = false;
    this._begin("");
    this._tracker = new FaceTracker(new FaceNetworks(runFace));
    this._recorder = new SkinRecorder(this._tracker, loaded.parts, loaded.parts.cropSize);
    this._firstS = null;
    this._judged = 0;
    loaded.judge.onmessage = ({ data }) => this._show(data);
  }

  /** Begins a segment: what was seen before is not read together with what comes. */
  _begin(cause) {
    this._clock = new Clock(FPS);
    this._network = new PulseNetwork(loaded);
    this._rows = [];
    this._wave = [];
    this._taken = 0;
    this._seenS = null;
    this._cause = cause;
    this.number += 1;
  }

  /** Takes a frame, ImageData; returns the square that is followed, or null. */
  async see(timeS, picture) {
    this._firstS ??= timeS;
    this._nowS = timeS;
    this.count += 1;
    const seen = await this._recorder.see(timeS, picture);
    if (!seen?.crop) {
      if (this._seenS === null || timeS - this._seenS > MAX_GAP_S) {
        if (this._seenS !== null) this._begin("the face was out of view");
        this._tell(this._cause ? "the face is out of view" : "no face found yet");
      }
      return null;
    }
    if (this._seenS !== null && timeS - this._seenS > MAX_GAP_S) this._begin("a gap in time");
    this._seenS = timeS;
    const values = new Float64Array(WIDTH + seen.crop.length);
    values.set(seen.row);
    values.set(seen.crop, WIDTH);
    for (const { values: tick } of this._clock.push(timeS, values)) {
      this._rows.push(tick.slice(0, WIDTH));
      this._wave.push(...(await this._network.push(tick.subarray(WIDTH))));
      this._taken += 1;
      if (this._taken % FPS === 0) this._judge();
    }
    const spare = this._wave.length - KEPT;
    if (spare > 0) {
      this._rows.splice(0, spare);
      this._wave.splice(0, spare);
    }
    return seen.region;
  }

  _judge() {
    const known = Math.min(this._wave.length, this._rows.length);
    if (known < WINDOW) {
      const since = this._cause ? `, anew since ${this._cause}` : "";
      this._tell(`watched for ${Math.floor(known / FPS)} of ${WINDOW / FPS} s${since}`);
      return;
    }
    if (this._waiting) return;
    this._waiting = true;
    const rows = this._rows.slice(0, known);
    const learned = Float64Array.from(this._wave.slice(0, known));
    loaded.judge.postMessage({ number: this.number, rows, learned, fps: FPS, frames: WINDOW });
  }

  _tell(why) {
    document.body.dataset.frames = this.count;
    say(`No reading: ${why}.`, "no reading");
    $("rate").textContent = "–";
    this._facts();
  }

  _facts() {
    const seconds = this._nowS - this._firstS;
    const rate = seconds > 0 ? ((this.count - 1) / seconds).toFixed(0) : "–";
    $("facts").textContent = `${this.label}, ${seconds.toFixed(0)} s, ${rate} frames/s read, ${this.dropped} passed over`;
  }

  _show(found) {
    this._waiting = false;
    if (run !== this || found.number !== this.number) return;
    this._judged += 1;
    const second = this._nowS - this._firstS;
    const reading = { second, bpm: found.bpm, confidence: found.confidence, why: found.why, rate: found.rate };
    readings.push(reading);
    $("save").disabled = false;
    document.body.dataset.frames = this.count;
    document.body.dataset.seconds = second;
    document.body.dataset.bpm = found.bpm ?? "";
    document.body.dataset.rate = found.rate ?? "";
    document.body.dataset.confidence = found.confidence;
    document.body.dataset.judged = this._judged;
    const percent = `${Math.min(99, Math.round(100 * found.confidence))} %`;
    if (found.bpm === null) this._tell(found.why);
    else {
      $("rate").textContent = `${found.bpm.toFixed(0)} bpm`;
      const [low, high] = found.interval.map((value) => value.toFixed(1));
      say(`${found.bpm.toFixed(0)} beats a minute, ${percent} sure; ${low} to ${high}.`, "reading");
      this._facts();
    }
    const row = $("readings").insertRow(0);
    const bpm = found.bpm === null ? "–" : found.bpm.toFixed(1);
    for (const text of [second.toFixed(0), bpm, percent, found.why]) row.insertCell().textContent = text;
    drawWave(found.values, found.bpm);
    drawHistory();
  }
}

// What is drawn.

function blank(canvas) {
  const scale = window.devicePixelRatio || 1;
  const [width, height] = [canvas.clientWidth, canvas.clientHeight];
  canvas.width = width * scale;
  canvas.height = height * scale;
  const pen = canvas.getContext("2d");
  pen.scale(scale, scale);
  const style = getComputedStyle(document.body);
  pen.strokeStyle = pen.fillStyle = style.color;
  pen.font = "12px system-ui, sans-serif";
  pen.lineWidth = 1.5;
  pen.lineJoin = "round";
  return { pen, width, height };
}

function drawWave(values, bpm) {
  const { pen, width, height } = blank($("wave"));
  const most = values.reduce((a, b) => Math.max(a, Math.abs(b)), 1e-12);
  pen.globalAlpha = bpm === null ? 0.35 : 1; // what is not trusted is pale
  pen.beginPath();
  values.forEach((value, i) => {
    pen.lineTo((i / (values.length - 1)) * width, height / 2 - (value / most) * (height / 2 - 6));
  });
  pen.stroke();
  const text = bpm === null ? "not trusted: there is no reading" : `${bpm.toFixed(0)} beats a minute`;
  $("wave").setAttribute("aria-label", `Pulse wave of the last 10 seconds, ${text}`);
}

function drawHistory() {
  const { pen, width, height } = blank($("history"));
  const shown = readings.slice(-300);
  const [first, last] = [shown[0].second, Math.max(shown[shown.length - 1].second, shown[0].second + 30)];
  const [low, high] = [40, 180];
  const y = (bpm) => height - 4 - ((bpm - low) / (high - low)) * (height - 8);
  pen.globalAlpha = 0.3;
  for (const bpm of [60, 90, 120, 150]) {
    pen.fillRect(28, y(bpm), width, 1);
    pen.fillText(String(bpm), 2, y(bpm) + 4);
  }
  pen.globalAlpha = 1;
  const given = shown.filter((one) => one.bpm !== null);
  for (const { second, bpm } of given) {
    pen.beginPath();
    pen.arc(32 + ((second - first) / (last - first)) * (width - 40), y(bpm), 3, 0, 7);
    pen.fill();
  }
  const words = given.length
    ? `${given.length} of the last ${shown.length} windows have a reading, the last ${given[given.length - 1].bpm.toFixed(0)} beats a minute`
    : "none yet";
  $("history").setAttribute("aria-label", `Heart rates: ${words}`);
}

function drawRegion(region) {
  if (!region) return;
  const { x, y, side, angle } = region;
  context.save();
  context.translate(x, y);
  context.rotate(angle);
  context.lineWidth = Math.max(2, side / 80);
  context.strokeStyle = "#fff";
  context.strokeRect(-side / 2, -side / 2, side, side);
  context.lineWidth /= 2;
  context.strokeStyle = "#b3123b";
  context.strokeRect(-side / 2, -side / 2, side, side);
  context.restore();
}

// Where frames come from.

/** Draws a source on the canvas, no larger than is looked at, and returns its pixels. */
function pixelsOf(source, width, height) {
  const scale = Math.min(1, MOST_SIDE / Math.max(width, height));
  const canvas = context.canvas;
  const [w, h] = [width, height].map((side) => Math.max(1, Math.round(side * scale)));
  if (canvas.width !== w || canvas.height !== h) Object.assign(canvas, { width: w, height: h });
  context.imageSmoothingQuality = "high";
  context.drawImage(source, 0, 0, w, h);
  return context.getImageData(0, 0, w, h);
}

function begin(label) {
  stop();
  run = new Run(label);
  $("stage").classList.add("live");
  $("stop").disabled = false;
  say("No reading: looking for a face.", "no reading");
  return run;
}

function stop() {
  const was = run;
  run = null;
  video.pause();
  for (const track of video.srcObject?.getTracks() ?? []) track.stop();
  if (video.src) URL.revokeObjectURL(video.src);
  video.srcObject = null;
  video.removeAttribute("src");
  $("stop").disabled = true;
  $("stage").classList.remove("live");
  if (was) {
    $("rate").textContent = "–";
    say(`Stopped: ${was.label}.`, "stopped");
  }
}

/** How fast a file is played whose frames take so many ms: in quarters, at the most as it was filmed. */
function paceFor(spent) {
  return Math.min(Math.max(Math.floor(4000 / FPS / (1.5 * spent)) / 4, 0.25), 1);
}

async function follow(mine, isCamera) {
  let busy = false;
  let lastS = -Infinity;
  let before = null;
  let spent = 50; // on a frame, ms
  const take = async (now, { mediaTime, captureTime, presentedFrames, width, height }) => {
    if (run !== mine) return;
    video.requestVideoFrameCallback(take);
    const timeS = isCamera ? (captureTime ?? now) / 1000 : mediaTime;
    if (busy || !(timeS > lastS)) return;
    before ??= presentedFrames - 1;
    mine.dropped = presentedFrames - before - mine.count - 1;
    busy = true;
    lastS = timeS;
    const since = performance.now();
    try {
      const region = await mine.see(timeS, pixelsOf(video, width, height));
      if (run === mine) drawRegion(region);
    } catch (error) {
      fail(error);
    }
    busy = false;
    // A file waits where this computer is slow: it is played as fast as its frames can be read.
    spent += 0.1 * (performance.now() - since - spent);
    if (!isCamera) video.playbackRate = paceFor(spent);
  };
  video.requestVideoFrameCallback(take);
  if (!isCamera) video.playbackRate = paceFor(spent);
  await video.play();
}

async function useCamera() {
  const mine = begin("camera");
  try {
    const stream = await navigator.mediaDevices.getUserMedia({
      video: { width: { ideal: 640 }, height: { ideal: 480 }, frameRate: { ideal: FPS }, facingMode: "user" },
      audio: false,
    });
    if (run !== mine) {
      for (const track of stream.getTracks()) track.stop();
      return;
    }
    video.srcObject = stream;
    await follow(mine, true);
  } catch (error) {
    if (run !== mine) return;
    stop();
    say(`The camera cannot be used (${error.message}): allow it, or open a video.`, "failed");
  }
}

async function openFile(file) {
  const mine = begin(file.name);
  try {
    if (file.type.startsWith("image/")) {
      await followPicture(mine, await createImageBitmap(file));
      return;
    }
    video.src = URL.createObjectURL(file);
    video.onended = () => {
      if (run !== mine) return;
      const kept = [$("rate").textContent, $("said").textContent, document.body.dataset.state];
      stop();
      $("rate").textContent = kept[0];
      say(`${kept[1]} The recording has ended.`, kept[2]);
    };
    await follow(mine, false);
  } catch (error) {
    if (run !== mine) return;
    stop();
    say(`${file.name} cannot be played here (${error.message}): open an MP4 or a WebM video, or a picture.`, "failed");
  }
}

/** A picture is looked at as a camera that sees nothing else would. */
async function followPicture(mine, picture) {
  for (let frame = 0; run === mine; frame++) {
    const region = await mine.see(frame / FPS, pixelsOf(picture, picture.width, picture.height));
    if (run === mine) drawRegion(region);
    await new Promise((go) => setTimeout(go, 5));
  }
}

function fail(error) {
  stop();
  say(`This browser cannot go on (${error.message}): reload the page, or take a newer browser.`, "failed");
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

$("camera").onclick = useCamera;
$("stop").onclick = stop;
$("save").onclick = save;
$("file").onchange = ({ target }) => {
  const [file] = target.files;
  target.value = "";
  if (file) openFile(file);
};
$("stage").ondragover = (event) => {
  event.preventDefault();
  $("stage").classList.add("over");
};
$("stage").ondragleave = () => $("stage").classList.remove("over");
$("stage").ondrop = (event) => {
  event.preventDefault();
  $("stage").classList.remove("over");
  const [file] = event.dataTransfer.files;
  if (file && loaded) openFile(file);
};

try {
  loaded = await load();
  await warmUp();
  $("camera").disabled = $("file").disabled = false;
  say("Ready.", "ready");
} catch (error) {
  say(`The page cannot be loaded (${error.message}): reload it, or take a newer browser.`, "failed");
}
