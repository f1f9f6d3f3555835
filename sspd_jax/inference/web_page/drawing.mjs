// What is drawn: the pulse wave, the rates of the last minutes, the box around a face. Nothing is remembered here.

const SHOWN_S = 8; // of the wave
const HISTORY_S = 300;
const FONT = "12px system-ui, sans-serif";

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/** Seconds as minutes and seconds. */
export function minutes(seconds) {
  const whole = Math.floor(seconds);
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
}

/** Clears a canvas and makes it as sharp as the screen; returns its context and its size in CSS pixels. */
function sheet(canvas) {
  const dots = devicePixelRatio || 1;
  const [across, down] = [canvas.clientWidth, canvas.clientHeight];
  const [width, height] = [Math.round(across * dots), Math.round(down * dots)];
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  const pen = canvas.getContext("2d");
  pen.setTransform(dots, 0, 0, dots, 0, 0);
  pen.clearRect(0, 0, across, down);
  pen.font = FONT;
  pen.fillStyle = colour("--quiet");
  pen.strokeStyle = colour("--rule");
  pen.lineWidth = 1;
  pen.lineJoin = "round";
  return [pen, across, down];
}

function line(pen, ...points) {
  pen.beginPath();
  for (const [x, y] of points) pen.lineTo(x, y);
  pen.stroke();
}

function dot(pen, x, y, radius) {
  pen.beginPath();
  pen.arc(x, y, radius, 0, 7);
  pen.fill();
}

/** Writes words where a curve would be. */
export function drawWords(canvas, text) {
  const [pen, width, height] = sheet(canvas);
  pen.font = "14px system-ui, sans-serif";
  pen.textAlign = "center";
  pen.fillText(text, width / 2, height / 2 + 5);
}

/**
 * Draws the seconds of a wave up to `shownS`, on its own clock; pale where it is not trusted.
 *
 * `wave` is { startS, fps, values }; returns the largest swing that is shown, to be given as `size` of the next one:
 * heights change smoothly, by `change` (0 to 1) of the way.
 */
export function drawWave(canvas, { startS, fps, values }, shownS, { size = null, change = 1, trusted = true } = {}) {
  const [pen, width, height] = sheet(canvas);
  const fromS = shownS - SHOWN_S;
  const right = width - 14;
  const foot = height - 18;
  const across = (timeS) => ((timeS - fromS) / SHOWN_S) * right;
  pen.textAlign = "center";
  for (let timeS = Math.ceil(Math.max(fromS, 0)); timeS <= shownS; timeS++) {
    line(pen, [across(timeS), 0], [across(timeS), foot]);
    if (across(timeS) > 16) pen.fillText(minutes(timeS), across(timeS), height - 4);
  }
  const first = Math.max(0, Math.floor((fromS - startS) * fps) - 1);
  const until = Math.min(values.length - 1, Math.floor((shownS - startS) * fps));
  const inside = values.slice(first, until + 1);
  const mean = inside.reduce((a, b) => a + b, 0) / Math.max(1, inside.length);
  const swing = inside.reduce((most, value) => Math.max(most, Math.abs(value - mean)), 1e-12);
  const most = size === null ? swing : size + change * (swing - size);
  const up = (value) => foot / 2 - (((value - mean) / most) * (height - 34)) / 2;
  const points = Array.from(inside, (value, i) => [across(startS + (first + i) / fps), up(value)]);
  const part = (shownS - startS) * fps - until;
  if (until + 1 < values.length && part > 0) {
    points.push([across(shownS), up(values[until] + part * (values[until + 1] - values[until]))]);
  }
  if (!points.length) return most;
  pen.save();
  pen.beginPath();
  pen.rect(0, 0, right + 8, foot);
  pen.clip();
  pen.globalAlpha = trusted ? 1 : 0.35;
  pen.strokeStyle = pen.fillStyle = colour("--pulse");
  pen.lineWidth = 2.2;
  line(pen, ...points);
  dot(pen, ...points[points.length - 1], 4.5);
  pen.restore();
  return most;
}

/** Draws heart rates [[s, bpm or null], …] of the last minutes before `nowS`. */
export function drawHistory(canvas, history, nowS) {
  const fromS = Math.max(0, nowS - HISTORY_S);
  const spanS = Math.max(60, nowS - fromS);
  const points = history.filter(([timeS]) => timeS >= fromS);
  const rates = points.map(([, bpm]) => bpm).filter((bpm) => bpm !== null);
  if (!rates.length) {
    drawWords(canvas, "no reading yet");
    return;
  }
  const [pen, width, height] = sheet(canvas);
  const left = 34;
  const foot = height - 18;
  const [least, most] = [Math.min(...rates), Math.max(...rates)];
  const middle = (least + most) / 2;
  const half = Math.max(15, (most - least) / 2 + 5);
  const across = (timeS) => left + ((timeS - fromS) / spanS) * (width - left - 8);
  const up = (bpm) => foot - ((bpm - middle + half) / (2 * half)) * (foot - 6);
  const rung = half > 60 ? 50 : half > 30 ? 20 : 10;
  pen.textAlign = "right";
  for (let bpm = Math.ceil((middle - half) / rung) * rung; bpm <= middle + half; bpm += rung) {
    line(pen, [left, up(bpm)], [width - 8, up(bpm)]);
    pen.fillText(bpm, left - 6, up(bpm) + 4);
  }
  pen.textAlign = "center";
  const tick = spanS > 120 ? 60 : 15;
  for (let timeS = Math.ceil(fromS / tick) * tick; timeS <= fromS + spanS; timeS += tick) {
    if (across(timeS) < width - 16) pen.fillText(minutes(timeS), across(timeS), height - 4);
  }
  pen.strokeStyle = pen.fillStyle = colour("--pulse");
  pen.lineWidth = 2;
  points.forEach(([timeS, bpm], i) => {
    if (bpm === null) return;
    const before = points[i - 1];
    if (before && before[1] !== null) line(pen, [across(before[0]), up(before[1])], [across(timeS), up(bpm)]);
    dot(pen, across(timeS), up(bpm), 2.2);
  });
}

/** Draws a box around a face: its middle, size and turn, in pixels of the canvas. */
export function drawBox(context, { x, y, width, height, angle = 0 }) {
  const thick = Math.max(2, context.canvas.width / 200);
  context.save();
  context.translate(x, y);
  context.rotate(angle);
  for (const [ink, times] of [["rgb(0 0 0 / 55%)", 2], [colour("--box"), 1]]) {
    context.lineWidth = times * thick;
    context.strokeStyle = ink;
    context.beginPath();
    context.roundRect(-width / 2, -height / 2, width, height, 3 * thick);
    context.stroke();
  }
  context.restore();
}
