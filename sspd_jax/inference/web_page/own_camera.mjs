// The page's source where `sspd_jax web` wrote it: frames of a camera or of a file go through face, skin and network
// in the browser; once a second the last ten seconds are judged. Nothing is sent anywhere; the page's content security
// policy allows it nothing.

import { Tensor, loadAndCompile, loadLiteRt } from "./litert/index.js";
import { Clock } from "./clock.mjs";
import { drawBox } from "./drawing.mjs";
import { FaceNetworks, FaceTracker } from "./face.mjs";
import { SkinRecorder, WIDTH } from "./skin.mjs";
import { THRESHOLD } from "./skin_reading.mjs";
import { note, spent } from "./stopwatch.mjs";
import { $, say, showFigures, showHistory, showLeast, showNone, showRate, showReading, showWave } from "./view.mjs";

const FPS = 30; // of the network, and of the clock on which everything is put
const WINDOW = 10 * FPS;
const KEPT = 2 * WINDOW + FPS; // estimators are unsure of both ends of what they see
const BLOCK = 8;
const ENDLESS = 1 << 20;
const MAX_GAP_S = 0.5;
const MOST_SIDE = 960; // pixels of a picture that is looked at
const MOST_WAITING = 6; // frames: some take longer than a camera's next one needs to come

const video = $("video");
const context = $("view").getContext("2d", { willReadFrequently: true });
let loaded = null;
let run = null; // what goes on now; another one, or null, ends it

/** Lets the browser take the next frame and draw before the work goes on. */
const pause = (() => {
  const { port1, port2 } = new MessageChannel();
  const waiting = [];
  port1.onmessage = () => waiting.shift()();
  return () =>
    new Promise((go) => {
      waiting.push(go);
      port2.postMessage(null);
    });
})();

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
  // A worker of a file has no policy but its server's; one of a blob has this page's.
  const code = `import ${JSON.stringify(new URL("judge.mjs", document.baseURI).href)};`;
  const address = URL.createObjectURL(new Blob([code], { type: "text/javascript" }));
  const judge = new Worker(address, { type: "module" });
  judge.postMessage({ table });
  return { parts, models, judge };
}

async function runFace(name, input) {
  const model = loaded.models[name];
  const given = new Tensor(input, [...model.getInputDetails()[0].shape]);
  const outputs = await model.run([given]);
  const results = outputs.map((output) => output.toTypedArray().slice());
  for (const tensor of [given, ...outputs]) tensor.delete();
  await pause();
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
    await pause();
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
  constructor(label, isCamera) {
    this.label = label;
    this._isCamera = isCamera;
    this.count = this.dropped = this.number = 0;
    this._waiting = false;
    this._begin("");
    this._tracker = new FaceTracker(new FaceNetworks(runFace));
    this._recorder = new SkinRecorder(this._tracker, loaded.parts, loaded.parts.cropSize);
    this._firstS = null;
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
    for (const { tickS, values: tick } of this._clock.push(timeS, values)) {
      this._tickS = tickS;
      this._rows.push(tick.slice(0, WIDTH));
      const since = performance.now();
      this._wave.push(...(await this._network.push(tick.subarray(WIDTH))));
      note("network", since);
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
      this._tell(`watched for ${Math.floor(known / FPS)} of ${WINDOW / FPS} s${since}`, true);
      return;
    }
    if (this._waiting) return;
    this._waiting = true;
    const rows = this._rows.slice(0, known);
    const learned = Float64Array.from(this._wave.slice(0, known));
    const endS = this._tickS - (this._rows.length - known) / FPS;
    loaded.judge.postMessage({ number: this.number, rows, learned, fps: FPS, frames: WINDOW, endS });
  }

  _tell(why, isWaiting = false) {
    document.body.dataset.frames = this.count;
    showNone(why, isWaiting);
    showWave(isWaiting ? "it appears after ten seconds" : "no face, no wave");
    this._showFigures(null);
  }

  _showFigures(latencyS) {
    const second = this._nowS - this._firstS;
    const fps = second > 0 ? (this.count - 1) / second : 0;
    showFigures({ latencyS, fps, dropped: this.dropped, second });
  }

  _show(found) {
    this._waiting = false;
    if (run !== this || found.number !== this.number) return;
    note("evidence", performance.now() - found.ms);
    document.body.dataset.spent = JSON.stringify(spent);
    document.body.dataset.frames = this.count;
    const second = this._nowS - this._firstS;
    showReading({ ...found, second });
    // Only a camera's clock is the page's own.
    this._showFigures(this._isCamera ? performance.now() / 1000 - found.endS : null);
    const startS = found.endS - this._firstS - (found.values.length - 1) / FPS;
    showWave({ startS, fps: FPS, values: found.values }, { trusted: found.bpm !== null });
    showHistory(second);
  }
}

// Where frames come from.

/** Draws a source on the canvas, no larger than is looked at, and returns its pixels. */
function pixelsOf(source, width, height) {
  const scale = Math.min(1, MOST_SIDE / Math.max(width, height));
  const canvas = context.canvas;
  const [w, h] = [width, height].map((side) => Math.max(1, Math.round(side * scale)));
  if (canvas.width !== w || canvas.height !== h) Object.assign(canvas, { width: w, height: h });
  context.imageSmoothingQuality = "high";
  const since = performance.now();
  context.drawImage(source, 0, 0, w, h);
  const pixels = context.getImageData(0, 0, w, h);
  note("picture", since);
  return pixels;
}

function begin(label, isCamera = false) {
  stop();
  run = new Run(label, isCamera);
  $("source").textContent = `· ${label}`;
  $("stage").classList.add("live");
  $("stop").disabled = false;
  showNone("looking for a face", true);
  showWave("it appears after ten seconds");
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
    showRate(null);
    showWave("stopped");
    say(`Stopped: ${was.label}.`, "stopped");
  }
}

function mark(region) {
  if (region) drawBox(context, { ...region, width: region.side, height: region.side });
}

/** How fast a file is played whose frames take so many ms: in quarters, at the most as it was filmed. */
function paceFor(spent) {
  return Math.min(Math.max(Math.floor(4000 / FPS / (1.5 * spent)) / 4, 0.25), 1);
}

async function follow(mine, isCamera) {
  const waiting = []; // frames that were taken, and not read yet
  let isReading = false;
  let lastS = -Infinity;
  let before = null;
  let taken = 0;
  let spent = 50; // on a frame, ms
  let region = null;
  const take = (now, { mediaTime, captureTime, presentedFrames, width, height }) => {
    if (run !== mine) return;
    video.requestVideoFrameCallback(take);
    const timeS = isCamera ? (captureTime ?? now) / 1000 : mediaTime;
    if (waiting.length >= MOST_WAITING || !(timeS > lastS)) return;
    before ??= presentedFrames - 1;
    taken += 1;
    mine.dropped = presentedFrames - before - taken;
    lastS = timeS;
    waiting.push({ timeS, picture: pixelsOf(video, width, height) });
    mark(region);
    if (!isReading) read();
  };
  const read = async () => {
    isReading = true;
    try {
      while (waiting.length && run === mine) {
        const since = performance.now();
        const { timeS, picture } = waiting.shift();
        region = await mine.see(timeS, picture);
        await pause();
        // A file waits where this computer is slow: it is played as fast as its frames can be read.
        spent += 0.1 * (performance.now() - since - spent);
        if (!isCamera) video.playbackRate = paceFor(spent);
      }
    } catch (error) {
      fail(error);
    }
    isReading = false;
  };
  video.requestVideoFrameCallback(take);
  if (!isCamera) video.playbackRate = paceFor(spent);
  await video.play();
}

async function useCamera() {
  const mine = begin("camera", true);
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
      const [said, { bpm, state }] = [$("said").textContent, document.body.dataset];
      stop();
      if (state === "reading") showRate(Number(bpm));
      say(`${said} The recording has ended.`, state);
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
    if (run === mine) mark(region);
    await new Promise((go) => setTimeout(go, 5));
  }
}

function fail(error) {
  stop();
  say(`This browser cannot go on (${error.message}): reload the page, or take a newer browser.`, "failed");
}

$("camera").onclick = useCamera;
$("stop").onclick = stop;
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

$("choose").hidden = false;
$("hint").textContent = "Use the camera, or drop a video or a picture here.";
showLeast(THRESHOLD);
try {
  loaded = await load();
  await warmUp();
  $("camera").disabled = $("file").disabled = false;
  say("Ready.", "ready");
} catch (error) {
  say(`The page cannot be loaded (${error.message}): reload it, or take a newer browser.`, "failed");
}
