// A worker: judges the last seconds of what was recorded, beside the page, which goes on taking frames.

import { AT, FIELDS } from "./skin.mjs";
import { judgeWindow, readWaves, removeLine } from "./skin_reading.mjs";

let table = null;

self.onmessage = ({ data }) => {
  if (data.table) {
    table = data.table;
    return;
  }
  const since = performance.now();
  const found = judge(data);
  self.postMessage({ number: data.number, endS: data.endS, ms: performance.now() - since, ...found });
};

/** Rows of `skin.FIELDS` at `fps`, the network's wave, and how many of the last frames to judge. */
function judge({ rows, learned, fps, frames }) {
  const column = (at) => bridged(Float64Array.from(rows, (row) => row[at]));
  const columns = (name) => Array.from({ length: FIELDS[name] }, (_, i) => column(AT[name] + i));
  const flat = columns("patches");
  const traces = {
    skin: columns("skin"),
    skinArea: column(AT.skinArea),
    patches: Array.from({ length: 13 }, (_, p) => flat.slice(3 * p, 3 * p + 3)),
    patchArea: columns("patchArea"),
    eyes: columns("eyes"),
    behind: columns("behind"),
    track: trackOf(columns("geometry"), columns("residual"), columns("pose")),
  };
  const waves = readWaves(traces, fps);
  waves.sspd = learned;
  const start = Math.max(0, rows.length - frames);
  const { evidence, ...found } = judgeWindow(traces, waves, fps, start, rows.length, table);
  // A raw colour lies far from 0, and a network's wave may have no sample at an end.
  const wave = removeLine(waves[found.wave].slice(start).map((value) => (Number.isFinite(value) ? value : 0)));
  return { ...found, values: found.upright < 0 ? wave.map((value) => -value) : wave };
}

/** Draws straight lines through what is not known; a column that never is stays NaN. */
function bridged(column) {
  let last = -1;
  for (let i = 0; i < column.length; i++) {
    if (Number.isNaN(column[i])) continue;
    for (let k = last + 1; k < i; k++) {
      column[k] = last < 0 ? column[i] : column[last] + ((k - last) / (i - last)) * (column[i] - column[last]);
    }
    last = i;
  }
  if (last >= 0) column.fill(column[last], last + 1);
  return column;
}

function unwound(angles, period) {
  let turns = 0;
  return angles.map((angle, i) => {
    if (i) turns -= period * Math.round((angle - angles[i - 1]) / period);
    return angle + turns;
  });
}

/** How the face moved, see `skin_evidence.track`. */
function trackOf([x, y, spread, angle], residual, pose) {
  const turn = unwound(angle, 2 * Math.PI);
  const size = spread.map((value) => Math.max(value, 1e-6));
  const mean = size.reduce((a, b) => a + b) / size.length;
  const [c, s] = [turn.map(Math.cos), turn.map(Math.sin)];
  return [
    x.map((value, i) => value / mean + c[i] * residual[0][i] - s[i] * residual[1][i]),
    y.map((value, i) => value / mean + s[i] * residual[0][i] + c[i] * residual[1][i]),
    size.map((value, i) => Math.log(value) + residual[2][i]),
    turn.map((value, i) => value + residual[3][i]),
    ...pose.map((degrees) => unwound(degrees, 360).map((value) => (value * Math.PI) / 180)),
  ];
}
