// Find a face and follow its 468 landmarks, as `video/face_mesh.py` and `video/face_track.py` do, for one person.

import { clamp, drawRegion, shrink } from "./pictures.mjs";

const LEAST_SIDE = 24;
const REGION_SCALE = 1.5;
const SAME_FACE = 0.3;
const LOOK_EVERY_S = 0.1;
const SEARCH_EVERY_S = 0.2;
const KEEP_S = 2;
const [FAST_S, SLOW_S] = [0.1, 0.5];
const STILL = 0.02;
const REACH_S = 1;
const HELD_S = 0.5;
const REGION_OFF = 0.03;
const REGION_TURN = 0.035;
export const CROP_SIDE = 4.4;
const [RIGHT_EYE, LEFT_EYE] = [33, 263];

const sigmoid = (x) => 1 / (1 + Math.exp(-clamp(x, -80, 80)));

/** The networks in memory; `run(name, Float32Array)` resolves to the outputs of one of them. */
export class FaceNetworks {
  constructor(run) {
    this._run = run;
    this._anchors = { short: anchors(128, [[8, 2], [16, 6]]), full: anchors(192, [[4, 1]]) }; // prettier-ignore
  }

  /** Finds every face, the widest first: [{ box, region, score }]. */
  async detect(picture) {
    if (Math.min(picture.width, picture.height) < LEAST_SIDE) return [];
    let found = await this._detect(picture, "short", 128, 0.5);
    if (!found.length) found = await this._detect(picture, "full", 192, 0.6);
    return found.sort((a, b) => a.box[0] - a.box[2] - b.box[0] + b.box[2]);
  }

  async _detect(picture, name, size, leastScore) {
    const { width, height, data } = picture;
    const scale = size / Math.max(width, height);
    const [w, h] = [width, height].map((side) => Math.max(1, Math.round(side * scale)));
    const small = scale < 1 ? shrink(data, width, height, w, h, 4) : enlarged(picture, w, h);
    const [left, top] = [Math.floor((size - w) / 2), Math.floor((size - h) / 2)];
    const input = new Float32Array(size * size * 3).fill(-1); // beside the picture lies black
    for (let y = 0; y < h; y++) {
      for (let x = 0; x < w; x++) {
        for (let c = 0; c < 3; c++) {
          input[((top + y) * size + left + x) * 3 + c] = (Math.round(small[(y * w + x) * 4 + c]) * 2) / 255 - 1;
        }
      }
    }
    const outputs = await this._run(name, input);
    const places = this._anchors[name];
    const raw = outputs.find((output) => output.length === places.length * 16);
    const scores = outputs.find((output) => output.length === places.length);
    const faces = [];
    places.forEach((place, i) => {
      const score = sigmoid(scores[i]);
      if (score <= leastScore) return;
      const point = (k) =>
        [0, 1].map((axis) => (raw[i * 16 + 2 * k + axis] + place[axis] * size - [left, top][axis]) / scale);
      const [x, y] = point(0);
      const [across, down] = [raw[i * 16 + 2] / scale, raw[i * 16 + 3] / scale];
      const [right, leftEye] = [point(2), point(3)];
      const angle = Math.atan2(leftEye[1] - right[1], leftEye[0] - right[0]);
      const region = { x, y, side: REGION_SCALE * Math.max(across, down), angle };
      faces.push({ box: [x - across / 2, y - down / 2, x + across / 2, y + down / 2], region, score });
    });
    const kept = [];
    for (const face of faces.sort((a, b) => b.score - a.score)) {
      if (kept.every((other) => overlap(face.box, other.box) < SAME_FACE)) kept.push(face);
    }
    return kept;
  }

  /** Finds the landmarks of the face in a region: Float64Array of 468 × 3, or null where there is no face. */
  async landmarks(picture, region) {
    const { x, y, side } = region;
    const [w, h] = [picture.width, picture.height];
    const inside = -0.25 * side < x && x < w + 0.25 * side && -0.25 * side < y && y < h + 0.25 * side;
    if (!inside || side < LEAST_SIDE) return null;
    const size = 192;
    this._patch ??= new Float32Array(size * size * 3);
    const how = { black: true, into: this._patch };
    const patch = drawRegion(picture, region, size, Math.floor(side / size), 0.75 * side, how);
    for (let i = 0; i < patch.length; i++) patch[i] = Math.round(patch[i]) / 255;
    const outputs = await this._run("mesh", patch);
    const raw = outputs.find((output) => output.length === 468 * 3);
    const score = outputs.find((output) => output.length === 1);
    if (sigmoid(score[0]) < 0.5) return null;
    const scale = side / size;
    const [c, s] = [scale * Math.cos(region.angle), scale * Math.sin(region.angle)];
    const middle = size / 2; // the networks count from pixels' edges, the picture from pixels' centres
    const points = new Float64Array(468 * 3);
    for (let i = 0; i < 468; i++) {
      const [u, v] = [raw[3 * i] - middle, raw[3 * i + 1] - middle];
      points[3 * i] = x + c * u - s * v;
      points[3 * i + 1] = y + s * u + c * v;
      points[3 * i + 2] = raw[3 * i + 2] * scale;
    }
    return points;
  }
}

function enlarged({ data, width, height }, w, h) {
  const result = new Float32Array(w * h * 4);
  for (let y = 0; y < h; y++) {
    for (let x = 0; x < w; x++) {
      const [u, v] = [clamp(((x + 0.5) * width) / w - 0.5, 0, width - 1), clamp(((y + 0.5) * height) / h - 0.5, 0, height - 1)]; // prettier-ignore
      const [i, j] = [Math.min(Math.floor(u), width - 2), Math.min(Math.floor(v), height - 2)];
      for (let c = 0; c < 3; c++) {
        const at = (dx, dy) => data[((j + dy) * width + i + dx) * 4 + c];
        const [above, below] = [0, 1].map((dy) => at(0, dy) + (u - i) * (at(1, dy) - at(0, dy)));
        result[(y * w + x) * 4 + c] = above + (v - j) * (below - above);
      }
    }
  }
  return result;
}

function anchors(size, strides) {
  const places = [];
  for (const [stride, repeats] of strides) {
    const cells = size / stride;
    for (let i = 0; i < cells * cells; i++) {
      const place = [((i % cells) + 0.5) / cells, (Math.floor(i / cells) + 0.5) / cells];
      for (let k = 0; k < repeats; k++) places.push(place);
    }
  }
  return places;
}

function overlap(one, other) {
  const across = Math.min(one[2], other[2]) - Math.max(one[0], other[0]);
  const down = Math.min(one[3], other[3]) - Math.max(one[1], other[1]);
  if (across <= 0 || down <= 0) return 0;
  const areas = [one, other].map((box) => (box[2] - box[0]) * (box[3] - box[1]));
  return (across * down) / (areas[0] + areas[1] - across * down);
}

function regionOf(points) {
  const angle = Math.atan2(
    points[3 * LEFT_EYE + 1] - points[3 * RIGHT_EYE + 1],
    points[3 * LEFT_EYE] - points[3 * RIGHT_EYE],
  );
  const [c, s] = [Math.cos(angle), Math.sin(angle)];
  const low = [Infinity, Infinity];
  const high = [-Infinity, -Infinity];
  for (let i = 0; i < 468; i++) {
    const turned = [points[3 * i] * c + points[3 * i + 1] * s, points[3 * i + 1] * c - points[3 * i] * s];
    for (const axis of [0, 1]) {
      low[axis] = Math.min(low[axis], turned[axis]);
      high[axis] = Math.max(high[axis], turned[axis]);
    }
  }
  const [u, v] = [0, 1].map((axis) => (low[axis] + high[axis]) / 2);
  const side = REGION_SCALE * Math.max(high[0] - low[0], high[1] - low[1]);
  return { x: c * u - s * v, y: s * u + c * v, side, angle };
}

function steady(old, next) {
  if (!old) return next;
  const off = Math.max(Math.abs(next.x - old.x), Math.abs(next.y - old.y), Math.abs(next.side - old.side));
  const turn = Math.abs(((next.angle - old.angle + 3 * Math.PI) % (2 * Math.PI)) - Math.PI);
  return off < REGION_OFF * old.side && turn < REGION_TURN ? old : next;
}

/** Follows one face; `looks` holds what the last seconds' looks saw. */
export class FaceTracker {
  constructor(networks) {
    this._networks = networks;
    this._lookedS = this._detectedS = -Infinity;
    this.looks = [];
  }

  /** Whether the last look found the face. */
  get inView() {
    return this.looks.length > 0 && this.looks[this.looks.length - 1].points !== null;
  }

  /** The points of the last look that found it. */
  get last() {
    return this.looks.findLast((look) => look.points)?.points ?? null;
  }

  /** Takes the next frame. */
  async see(timeS, picture) {
    if (timeS - this._lookedS < LOOK_EVERY_S - 0.002) return;
    this._lookedS = timeS;
    let points = null;
    if (this.inView) {
      this._region = steady(this._region, regionOf(this._expected(timeS)));
      points = await this._networks.landmarks(picture, this._region);
    }
    if (!points && timeS - this._detectedS >= SEARCH_EVERY_S - 0.002) {
      this._detectedS = timeS;
      for (const face of (await this._networks.detect(picture)).slice(0, 2)) {
        const mesh = await this._networks.landmarks(picture, face.region);
        // A second look, at the region that the following ones will have: a region shifts what it shows.
        points = mesh && (await this._networks.landmarks(picture, regionOf(mesh)));
        if (points) break;
      }
    }
    this.looks.push({ timeS, points });
    this.looks = this.looks.filter((look) => look.timeS >= timeS - KEEP_S);
  }

  _expected(timeS) {
    const seen = this.looks.filter((look) => look.points).slice(-3);
    const [first, last] = [seen[0], seen[seen.length - 1]];
    if (seen.length < 2 || timeS - last.timeS > HELD_S) return last.points;
    const share = (timeS - last.timeS) / (last.timeS - first.timeS);
    const moved = [0, 1, 2].map((axis) => {
      let total = 0;
      for (let i = axis; i < 468 * 3; i += 3) total += last.points[i] - first.points[i];
      return (total / 468) * share;
    });
    return last.points.map((value, i) => value + moved[i % 3]);
  }
}

function addTo(sums, values, share) {
  for (let i = 0; i < sums.length; i++) sums[i] += share * values[i];
}

/** The landmarks at a moment from the looks up to it, or null, see `face_track.smooth_points`. */
export function smoothPoints(looks, atS) {
  const near = looks.filter((look) => look.points && atS - look.timeS <= REACH_S + 0.002 && look.timeS <= atS + 1e-6);
  if (!near.length || atS - near[near.length - 1].timeS > HELD_S) return null;
  const [fast, slow] = [FAST_S, SLOW_S].map((widthS) => {
    const weights = near.map((look) => Math.exp(-0.5 * ((look.timeS - atS) / widthS) ** 2) + 1e-12);
    const total = weights.reduce((a, b) => a + b);
    const mean = new Float64Array(468 * 3);
    near.forEach(({ points }, k) => addTo(mean, points, weights[k] / total));
    return mean;
  });
  let apart = 0;
  for (let i = 0; i < 468; i++) {
    apart += (fast[3 * i] - slow[3 * i]) ** 2 + (fast[3 * i + 1] - slow[3 * i + 1]) ** 2;
  }
  apart /= 468;
  const noise = (STILL * middleAndSpread(slow).spread) ** 2;
  const share = apart / (apart + noise);
  return fast.map((value, i) => share * value + (1 - share) * slow[i]);
}

function middleAndSpread(points) {
  let [x, y, square] = [0, 0, 0];
  for (let i = 0; i < 468; i++) {
    x += points[3 * i] / 468;
    y += points[3 * i + 1] / 468;
  }
  for (let i = 0; i < 468; i++) square += (points[3 * i] - x) ** 2 + (points[3 * i + 1] - y) ** 2;
  return { x, y, spread: Math.sqrt(square / 468) };
}

/** The square in which the face stands upright and equally large, see `face_track.aligned_region`. */
export function alignedRegion(points, { left, right }) {
  const { x, y, spread } = middleAndSpread(points);
  const across = [0, 1].map((axis) =>
    left.reduce((total, corner, i) => total + points[3 * corner + axis] - points[3 * right[i] + axis], 0),
  );
  return { x, y, side: CROP_SIDE * spread, angle: Math.atan2(across[1], across[0]) };
}

/** Yaw, pitch and roll in degrees, see `face_track.head_pose`; the turn is found by Horn's quaternion. */
export function headPose(points, template) {
  const middle = [0, 1, 2].map((axis) => {
    let total = 0;
    for (let i = axis; i < 468 * 3; i += 3) total += points[i];
    return total / 468;
  });
  const s = [0, 1, 2].map((a) =>
    [0, 1, 2].map((b) => {
      let total = 0;
      for (let i = 0; i < 468; i++) total += template[3 * i + a] * (points[3 * i + b] - middle[b]);
      return total;
    }),
  );
  const [[xx, xy, xz], [yx, yy, yz], [zx, zy, zz]] = s;
  const n = [
    [xx + yy + zz, yz - zy, zx - xz, xy - yx],
    [yz - zy, xx - yy - zz, xy + yx, zx + xz],
    [zx - xz, xy + yx, yy - xx - zz, yz + zy],
    [xy - yx, zx + xz, yz + zy, zz - xx - yy],
  ];
  const [w, x, y, z] = topEigenvector(n);
  const forward = [-2 * (x * z + w * y), -2 * (y * z - w * x), -(1 - 2 * (x * x + y * y))];
  const angles = [
    Math.atan2(forward[0], -forward[2]),
    Math.atan2(forward[1], Math.hypot(forward[0], forward[2])),
    Math.atan2(2 * (x * y + w * z), 1 - 2 * (y * y + z * z)),
  ];
  return angles.map((angle) => (angle * 180) / Math.PI);
}

/** The eigenvector of the largest eigenvalue of a symmetric 4 × 4 matrix, by Jacobi's turns. */
function topEigenvector(matrix) {
  const a = matrix.map((row) => row.slice());
  const v = a.map((_, i) => a.map((__, j) => Number(i === j)));
  for (let sweep = 0; sweep < 12; sweep++) {
    for (let p = 0; p < 3; p++) {
      for (let q = p + 1; q < 4; q++) {
        if (Math.abs(a[p][q]) < 1e-300) continue;
        const theta = 0.5 * Math.atan2(2 * a[p][q], a[p][p] - a[q][q]);
        const [c, s] = [Math.cos(theta), Math.sin(theta)];
        for (let k = 0; k < 4; k++) [a[k][p], a[k][q]] = [c * a[k][p] + s * a[k][q], c * a[k][q] - s * a[k][p]];
        for (let k = 0; k < 4; k++) [a[p][k], a[q][k]] = [c * a[p][k] + s * a[q][k], c * a[q][k] - s * a[p][k]];
        for (let k = 0; k < 4; k++) [v[k][p], v[k][q]] = [c * v[k][p] + s * v[k][q], c * v[k][q] - s * v[k][p]];
      }
    }
  }
  let top = 0;
  for (let i = 1; i < 4; i++) if (a[i][i] > a[top][top]) top = i;
  return v.map((row) => row[top]);
}
