// What is read of a face, frame by frame: means of its skin and of parts of it, and how it moved.
//
// As `video/skin_map.py`, `video/skin_traces.py` and `video/registration.py` do for a live picture: nothing waits for
// frames to come. `parts` holds the landmarks of each part, as `inference/site.py` writes them.

import { CROP_SIDE, alignedRegion, headPose, smoothPoints } from "./face.mjs";
import { blur, clamp, drawRegion, shrink } from "./pictures.mjs";
import { note } from "./stopwatch.mjs";

const MAP_EVERY_S = 0.2;
const MAP_SMOOTH_S = 1;
const ROUNDING_S = 0.002;
const LINK_S = 20;
const COLOUR_EVERY_S = 1;
const COLOUR_LOOKS = 10;
const MOVED_S = 0.13;
const SIZES = [64, 96, 128, 160, 192, 256];
const MAP_SIZE = 96;
const BEHIND_STEP = 120;
const BEHIND_REACH = 1.25;
const LEAST_VARIANCES = [60, 2, 2];
const OUTLIER = 3;
const SURE = 1;
const GLARE = 250;
const SOFT = 0.03;
const LEAST_PIXELS = 30;
const CERTAIN = 1.5;

/** Names of the numbers of a row, and how many there are of each. */
export const FIELDS = { skin: 3, skinArea: 1, patches: 39, patchArea: 13, eyes: 3, behind: 3, pose: 3, geometry: 4, residual: 4 }; // prettier-ignore
export const AT = {};
export let WIDTH = 0;
for (const [name, count] of Object.entries(FIELDS)) {
  AT[name] = WIDTH;
  WIDTH += count;
}

function median(values) {
  const sorted = Float64Array.from(values).sort();
  const half = sorted.length >> 1;
  return sorted.length % 2 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
}

/** Luma, Cr, Cb of RGB, flat. */
function toYcc(rgb) {
  const ycc = new Float32Array(rgb.length);
  for (let i = 0; i < rgb.length; i += 3) {
    const y = 0.299 * rgb[i] + 0.587 * rgb[i + 1] + 0.114 * rgb[i + 2];
    ycc[i] = y;
    ycc[i + 1] = 0.713 * (rgb[i] - y) + 128;
    ycc[i + 2] = 0.564 * (rgb[i + 2] - y) + 128;
  }
  return ycc;
}

function inverse3([[a, b, c], [d, e, f], [g, h, i]]) {
  const det = a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g);
  return [
    [e * i - f * h, c * h - b * i, b * f - c * e],
    [f * g - d * i, a * i - c * g, c * d - a * f],
    [d * h - e * g, b * g - a * h, a * e - b * d],
  ].map((row) => row.map((value) => value / det));
}

function distance(y, cr, cb, { mean, precision: [p, q, r] }) {
  const a = y - mean[0];
  const b = cr - mean[1];
  const c = cb - mean[2];
  const square = a * a * p[0] + b * b * q[1] + c * c * r[2] + 2 * (a * b * p[1] + a * c * p[2] + b * c * q[2]);
  return Math.sqrt(Math.max(square, 0));
}

/** Learns a skin's colour from pixels [[y, cr, cb], …]; null where there are too few. */
function fitSkin(pixels) {
  if (pixels.length < LEAST_PIXELS) return null;
  const middle = [0, 1, 2].map((c) => median(pixels.map((pixel) => pixel[c])));
  const width = [0, 1, 2].map((c) =>
    Math.max(1.48 * median(pixels.map((pixel) => Math.abs(pixel[c] - middle[c]))), Math.sqrt(LEAST_VARIANCES[c])),
  );
  let kept = pixels.filter((pixel) => pixel.every((value, c) => Math.abs(value - middle[c]) < OUTLIER * width[c]));
  let colour = null;
  for (let round = 0; round < 3; round++) {
    if (kept.length < LEAST_PIXELS) return null;
    const mean = [0, 1, 2].map((c) => kept.reduce((total, pixel) => total + pixel[c], 0) / kept.length);
    const covariance = [0, 1, 2].map((a) =>
      [0, 1, 2].map(
        (b) => kept.reduce((total, p) => total + (p[a] - mean[a]) * (p[b] - mean[b]), 0) / (kept.length - 1),
      ),
    );
    for (const c of [0, 1, 2]) covariance[c][c] = Math.max(covariance[c][c], LEAST_VARIANCES[c]);
    colour = { mean, precision: inverse3(covariance) };
    kept = pixels.filter((pixel) => distance(...pixel, colour) < OUTLIER);
  }
  return colour;
}

function everyThird(values) {
  const first = new Float32Array(values.length / 3);
  for (let i = 0; i < first.length; i++) first[i] = values[3 * i];
  return first;
}

function lumaOf(rgb) {
  const luma = new Float32Array(rgb.length / 3);
  for (let i = 0, at = 0; i < luma.length; i++, at += 3) luma[i] = 0.299 * rgb[at] + 0.587 * rgb[at + 1] + 0.114 * rgb[at + 2];
  return luma;
}

/** Draws polygons of landmarks on a canvas, with soft corners, and reads them. */
class Pen {
  constructor(size) {
    this._size = size;
    this.points = null; // of the face, x and y in turn, in pixels
    this._context = new OffscreenCanvas(size, size).getContext("2d", { willReadFrequently: true });
  }

  clear() {
    this._context.fillStyle = "#000";
    this._context.fillRect(0, 0, this._size, this._size);
  }

  fill(corners, colour) {
    const path = new Path2D();
    corners.forEach((corner, i) => {
      // A canvas counts from pixels' edges.
      const [x, y] = [this.points[2 * corner] + 0.5, this.points[2 * corner + 1] + 0.5];
      if (i) path.lineTo(x, y);
      else path.moveTo(x, y);
    });
    this._context.fillStyle = colour;
    this._context.fill(path);
  }

  read() {
    const { data } = this._context.getImageData(0, 0, this._size, this._size);
    const values = new Float32Array(this._size ** 2);
    for (let i = 0; i < values.length; i++) values[i] = data[4 * i] / 255;
    return values;
  }
}

/** Learns one face's skin and keeps its map. */
class SkinMapper {
  constructor(parts) {
    this._parts = parts;
    this._pixels = [];
    this._learnedS = -Infinity;
    this._maps = [];
    this._recent = [];
  }

  /** Takes a face's crop, shrunk to `size`, and its landmarks in pixels of that. */
  see(timeS, rgb, size, points) {
    const since = this._maps.length ? timeS - this._maps[this._maps.length - 1].timeS : Infinity;
    const due = since >= MAP_EVERY_S - ROUNDING_S;
    if (!due && since < MAP_EVERY_S - MOVED_S - 0.035) return;
    const ycc = toYcc(rgb);
    const luma = blur(everyThird(ycc), size, 1);
    if (due) {
      this._maps.push({ timeS, ...this._draw(timeS, rgb, ycc, luma, size, points) });
      this._maps = this._maps.filter((map) => map.timeS >= timeS - 4 * MAP_SMOOTH_S - ROUNDING_S);
    }
    this._recent.push({ timeS, luma });
    this._recent = this._recent.filter((one) => one.timeS >= timeS - 2 * MAP_EVERY_S - ROUNDING_S);
  }

  _draw(timeS, rgb, ycc, luma, size, points) {
    const { oval, holes, patches, core } = this._parts;
    const pen = (this._pen ??= new Pen(size));
    pen.points = points;
    if (timeS - this._learnedS >= COLOUR_EVERY_S - ROUNDING_S || !this._colour) {
      pen.clear();
      for (const name of core) pen.fill(patches[name], "#fff");
      for (const hole of Object.values(holes)) pen.fill(hole, "#000");
      const pixels = [];
      pen.read().forEach((value, i) => value > 0 && pixels.push([ycc[3 * i], ycc[3 * i + 1], ycc[3 * i + 2]]));
      const step = Math.max(1, Math.floor(pixels.length / 200));
      this._pixels.push(pixels.filter((_, i) => i % step === 0));
      this._pixels = this._pixels.slice(-COLOUR_LOOKS);
      this._colour = fitSkin(this._pixels.flat()) ?? this._colour;
      this._learnedS = timeS;
    }
    const soft = (factor) => Math.max(SOFT * size * factor, 0.5);
    pen.clear();
    pen.fill(oval, "#fff");
    for (const hole of Object.values(holes)) pen.fill(hole, "#000");
    const skin = blur(pen.read(), size, soft(1));
    if (this._colour) {
      for (let i = 0; i < skin.length; i++) {
        const off = Math.max(distance(ycc[3 * i], ycc[3 * i + 1], ycc[3 * i + 2], this._colour) - SURE, 0);
        const glares = Math.max(rgb[3 * i], rgb[3 * i + 1], rgb[3 * i + 2]) >= GLARE;
        skin[i] *= glares ? 0 : Math.exp(-0.5 * off * off);
      }
    }
    const drawn = Object.values(patches).map((corners) => {
      pen.clear();
      pen.fill(corners, "#fff");
      return blur(pen.read(), size, soft(0.5));
    });
    pen.clear();
    for (const [name, hole] of Object.entries(holes)) if (name !== "lips") pen.fill(hole, "#fff");
    const eyes = blur(pen.read(), size, soft(0.25));
    const before = this._recent.find((one) => one.timeS <= timeS - MOVED_S + 0.02) ?? this._recent[0];
    const moved = new Float32Array(luma.length);
    if (before) for (let i = 0; i < moved.length; i++) moved[i] = (luma[i] - before.luma[i]) ** 2;
    return { moved, parts: [skin, ...drawn, eyes].map(spanned) };
  }

  /** Weights at a moment: rows of the skin, each patch and the eyes, sums 1; and their areas. Null at first. */
  weights(atS) {
    const parts = this._mean(atS, this._maps[0]?.parts.length);
    if (!parts) return null;
    const skin = parts[0].values;
    const moved = new Float32Array(skin.length);
    for (const map of this._maps) {
      for (let i = 0; i < moved.length; i++) moved[i] += map.moved[i] / this._maps.length;
    }
    const seen = moved.filter((_, i) => skin[i] > 0.3);
    const usual = seen.length ? median(seen) : 0;
    if (usual > 0) for (let i = 0; i < skin.length; i++) skin[i] /= 1 + moved[i] / usual;
    parts.slice(1, -1).forEach(({ values, first, end }) => {
      for (let i = first; i < end; i++) values[i] *= skin[i];
    });
    const area = parts.map(({ values, first, end }) => {
      let total = 0;
      for (let i = first; i < end; i++) total += values[i];
      for (let i = first; i < end; i++) values[i] = total > 0.01 ? values[i] / total : 0;
      return total;
    });
    return { rows: parts, area };
  }

  /** Where the skin is, whatever it can be trusted: Float32Array, or null. */
  skin(atS) {
    return this._mean(atS, 1)?.[0].values ?? null;
  }

  /** The first `count` parts of the maps up to a moment, the newest weighing most. */
  _mean(atS, count) {
    if (!this._maps.length) return null;
    const kernel = this._maps.map(({ timeS }) =>
      timeS - atS > 0.01 ? 0 : Math.exp(-0.5 * ((timeS - atS) / MAP_SMOOTH_S) ** 2),
    );
    const total = kernel.reduce((a, b) => a + b);
    if (total < 1e-6) return null;
    return this._maps[0].parts.slice(0, count).map((_, p) => {
      const mixed = new Float32Array(this._maps[0].moved.length);
      const span = { values: mixed, first: mixed.length, end: 0 };
      this._maps.forEach(({ parts }, k) => {
        if (kernel[k]) mixInto(span, parts[p], kernel[k] / total);
      });
      return span;
    });
  }
}

/** Values, and from where to before where they are not 0: most parts of a face are small. */
function spanned(values) {
  let first = 0;
  let end = values.length;
  while (first < end && values[first] === 0) first++;
  while (end > first && values[end - 1] === 0) end--;
  return { values, first, end };
}

function mixInto(mixed, { values, first, end }, share) {
  const to = mixed.values;
  for (let i = first; i < end; i++) to[i] += share * values[i];
  mixed.first = Math.min(mixed.first, first);
  mixed.end = Math.max(mixed.end, end);
}

/** Compares every crop of a face with the mean of those before it, see `video/registration.py`. */
class Registration {
  constructor() {
    this._solvedS = this._lastS = -Infinity;
  }

  /** Takes a face's crop, shrunk to `side`, and where its skin is in that. */
  see(timeS, rgb, side, mask) {
    const n = 48; // half of MAP_SIZE: an average of averages is that of the whole
    const luma = blur(shrink(lumaOf(rgb), side, side, n, n, 1), n, 1.2);
    if (!this._mean) {
      this._mean = luma;
      this._lastS = timeS;
      return [0, 0, 0, 0];
    }
    if (timeS - this._solvedS >= 0.2 - ROUNDING_S) {
      this._solve = solver(this._mean, shrink(mask, side, side, n, n, 1), n);
      this._solvedS = timeS;
    }
    const moved = this._solve.map((row) => {
      let total = 0;
      for (let i = 0; i < row.length; i++) total += row[i] * (luma[i] - this._mean[i]);
      return total;
    });
    const keep = Math.exp(-(timeS - this._lastS));
    for (let i = 0; i < luma.length; i++) this._mean[i] = keep * this._mean[i] + (1 - keep) * luma[i];
    this._lastS = timeS;
    return [moved[0] / n, moved[1] / n, moved[2], moved[3]];
  }
}

function solver(luma, weight, n) {
  const at = (x, y) => luma[(y < 0 ? 1 : y >= n ? n - 2 : y) * n + (x < 0 ? 1 : x >= n ? n - 2 : x)];
  const columns = [0, 1, 2, 3, 4, 5].map(() => new Float64Array(n * n));
  for (let y = 0; y < n; y++) {
    for (let x = 0; x < n; x++) {
      let [across, down] = [0, 0];
      for (const k of [-1, 0, 1]) {
        const share = k ? 1 / 8 : 2 / 8;
        across += share * (at(x + 1, y + k) - at(x - 1, y + k));
        down += share * (at(x + k, y + 1) - at(x + k, y - 1));
      }
      const [u, v] = [x - (n - 1) / 2, y - (n - 1) / 2];
      const i = y * n + x;
      [-across, -down, -(u * across + v * down), v * across - u * down, luma[i], 1].forEach((value, k) => {
        columns[k][i] = value;
      });
    }
  }
  const weighted = columns.map((column) => column.map((value, i) => value * weight[i]));
  const normal = weighted.map((a) =>
    columns.map((b) => {
      let total = 0;
      for (let i = 0; i < a.length; i++) total += a[i] * b[i];
      return total;
    }),
  );
  const scale = normal.map((row, k) => Math.sqrt(Math.max(row[k], 1e-12)));
  const system = normal.map((row, i) => row.map((value, j) => value / (scale[i] * scale[j]) + (i === j ? 1e-3 : 0)));
  const inverse = invert(system);
  return inverse.slice(0, 4).map((row, i) => {
    const solved = new Float64Array(n * n);
    row.forEach((value, j) => {
      const share = value / scale[j] / scale[i];
      for (let k = 0; k < solved.length; k++) solved[k] += share * weighted[j][k];
    });
    return solved;
  });
}

function invert(matrix) {
  const n = matrix.length;
  const rows = matrix.map((row, i) => [...row, ...row.map((_, j) => Number(i === j))]);
  for (let i = 0; i < n; i++) {
    let pivot = i;
    for (let k = i + 1; k < n; k++) if (Math.abs(rows[k][i]) > Math.abs(rows[pivot][i])) pivot = k;
    [rows[i], rows[pivot]] = [rows[pivot], rows[i]];
    const by = rows[i][i];
    rows[i] = rows[i].map((value) => value / by);
    for (let k = 0; k < n; k++) {
      if (k !== i) rows[k] = rows[k].map((value, j) => value - rows[k][i] * rows[i][j]);
    }
  }
  return rows.map((row) => row.slice(n));
}

/** Takes frames of one face and records a row of `FIELDS` of each, and a picture of the skin alone. */
export class SkinRecorder {
  constructor(tracker, parts, cropSize) {
    this._tracker = tracker;
    this._parts = parts;
    this._cropSize = cropSize;
    this._mapper = new SkinMapper(parts);
    this._registration = new Registration();
    this._untilS = this._lastS = -Infinity;
    this._weights = null;
    this._link = null;
    this._size = null;
  }

  /**
   * Takes the next frame, an ImageData. Returns `row`, a Float64Array; `crop`, Float32Array of cropSize² × 3, not
   * rounded; and `region`, the square that is followed. Null where no face is in view.
   */
  async see(timeS, picture) {
    const since = performance.now();
    await this._tracker.see(timeS, picture);
    const between = note("face", since);
    const seen = this._read(timeS, picture);
    note("skin", between);
    return seen;
  }

  _read(timeS, picture) {
    const points = smoothPoints(this._tracker.looks, timeS);
    if (!points) {
      this._weights = null;
      this._untilS = -Infinity;
      this._registration = new Registration();
      return null;
    }
    const region = alignedRegion(points, this._parts);
    const factor = Math.max(1, Math.floor(region.side / SIZES[SIZES.length - 1]));
    this._size ??= SIZES.find((size) => size >= region.side / factor) ?? SIZES[SIZES.length - 1];
    const size = this._size;
    this._crop ??= new Float32Array(size * size * 3);
    const crop = drawRegion(picture, region, size, factor, (BEHIND_REACH * region.side) / 2, { into: this._crop });
    const mapSize = Math.min(MAP_SIZE, size);
    const pixels = shrink(crop, size, size, mapSize, mapSize, 3);
    const placed = new Float64Array(468 * 2);
    const scale = mapSize / region.side;
    const [c, s] = [scale * Math.cos(region.angle), scale * Math.sin(region.angle)];
    for (let i = 0; i < 468; i++) {
      const [u, v] = [points[3 * i] - region.x, points[3 * i + 1] - region.y];
      placed[2 * i] = c * u + s * v + (mapSize - 1) / 2;
      placed[2 * i + 1] = c * v - s * u + (mapSize - 1) / 2;
    }
    this._mapper.see(timeS, pixels, mapSize, placed);
    return { region, ...this._weigh(timeS, pixels, mapSize, region, points, behindOf(picture, this._tracker.last)) };
  }

  _weigh(timeS, pixels, mapSize, region, points, behind) {
    const meansOf = ({ rows }) => rows.map((row) => weighedMean(row, pixels));
    const since = clamp(timeS - this._lastS, 0, 1);
    this._link = this._link?.map((row) => row.map((value) => value ** Math.exp(-since / LINK_S))) ?? null;
    this._lastS = timeS;
    if (timeS >= this._untilS) {
      const old = this._weights;
      this._weights = this._mapper.weights(timeS);
      this._untilS = timeS + MAP_EVERY_S - ROUNDING_S;
      if (!old || !this._weights) this._link = null;
      else {
        // Each map's means go on where the last one's ended, as a price index is chained.
        const [was, is] = [meansOf(old), meansOf(this._weights)];
        const ratio = was.map((row, k) => row.map((value, i) => value / Math.max(is[k][i], 1e-3)));
        this._link = ratio.map((row, k) =>
          row.map((value, i) => (value > 0.5 && value < 2 ? (this._link?.[k][i] ?? 1) * value : 1)),
        );
      }
    }
    const row = new Float64Array(WIDTH).fill(NaN);
    row.set(behind, AT.behind);
    if (!this._weights) return { row, crop: null };
    const { area } = this._weights;
    const means = meansOf(this._weights).map((mean, k) =>
      area[k] > 0.01 ? mean.map((value, i) => value * (this._link?.[k][i] ?? 1)) : [NaN, NaN, NaN],
    );
    const pixel = region.side ** 2 / mapSize ** 2; // of the picture, in one of the map's
    row.set(means[0], AT.skin);
    row[AT.skinArea] = area[0] * pixel;
    row.set(means.slice(1, -1).flat(), AT.patches);
    row.set(area.slice(1, -1).map((value) => value * pixel), AT.patchArea);
    row.set(means[means.length - 1], AT.eyes);
    row.set(headPose(points, this._parts.template), AT.pose);
    row.set([region.x, region.y, region.side / CROP_SIDE, region.angle], AT.geometry);
    const moved = this._registration.see(timeS, pixels, mapSize, this._weights.rows[0].values);
    row.set([moved[0] * CROP_SIDE, moved[1] * CROP_SIDE, moved[2], moved[3]], AT.residual);
    return { row, crop: skinOnly(pixels, this._mapper.skin(timeS), mapSize, this._cropSize) };
  }
}

function weighedMean({ values, first, end }, pixels) {
  let r = 0;
  let g = 0;
  let b = 0;
  for (let i = first, at = 3 * first; i < end; i++, at += 3) {
    const weight = values[i];
    if (weight === 0) continue;
    r += weight * pixels[at];
    g += weight * pixels[at + 1];
    b += weight * pixels[at + 2];
  }
  return [r, g, b];
}

/** Leaves nothing but the skin: elsewhere stands its mean colour, see `skin_map.skin_only`. */
function skinOnly(pixels, skin, side, size) {
  const weight = new Float32Array(skin.length);
  let total = 0;
  for (let i = 0; i < skin.length; i++) {
    weight[i] = clamp(CERTAIN * skin[i], 0, 1);
    total += weight[i];
  }
  const [r, g, b] = weighedMean(spanned(weight), pixels).map((value) => value / Math.max(total, 1e-3));
  const only = new Float32Array(pixels.length);
  for (let i = 0, at = 0; i < skin.length; i++, at += 3) {
    only[at] = r + (pixels[at] - r) * weight[i];
    only[at + 1] = g + (pixels[at + 1] - g) * weight[i];
    only[at + 2] = b + (pixels[at + 2] - b) * weight[i];
  }
  return shrink(only, side, side, size, size, 3);
}

function behindOf({ data, width, height }, points) {
  const step = Math.max(1, Math.floor(Math.min(height, width) / BEHIND_STEP));
  let [x, y] = [0, 0];
  for (let i = 0; i < 468; i++) {
    x += points[3 * i] / 468;
    y += points[3 * i + 1] / 468;
  }
  let square = 0;
  for (let i = 0; i < 468; i++) square += ((points[3 * i] - x) ** 2 + (points[3 * i + 1] - y) ** 2) / 468;
  const reach = (BEHIND_REACH * CROP_SIDE * Math.sqrt(square)) / 2;
  const [left, right] = [-1, 1].map((k) => Math.trunc(clamp(x + k * reach, 0, width)));
  const [top, bottom] = [-1, 1].map((k) => Math.trunc(clamp(y + k * reach, 0, height)));
  const total = [0, 0, 0];
  let count = 0;
  for (let v = 0; v < height; v += step) {
    for (let u = 0; u < width; u += step) {
      if (v >= top && v < bottom && u >= left && u < right) continue;
      count += 1;
      for (let c = 0; c < 3; c++) total[c] += data[(v * width + u) * 4 + c];
    }
  }
  return total.map((value) => (count ? value / count : NaN));
}
