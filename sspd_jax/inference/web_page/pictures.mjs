// Pictures as flat arrays: shrunk by averages, blurred, turned. As OpenCV does it, to rounding.

const shares = new Map();

/** Of each new pixel: the first old one that it covers, how many, and their shares, sums 1. */
function coverage(before, after) {
  const key = `${before} ${after}`;
  if (!shares.has(key)) {
    const scale = before / after;
    const most = Math.ceil(scale) + 1;
    const cover = { most, first: new Int32Array(after), count: new Int32Array(after), share: new Float32Array(after * most) };
    for (let i = 0; i < after; i++) {
      const [start, end] = [i * scale, Math.min((i + 1) * scale, before)];
      const stop = Math.min(Math.ceil(end - 1e-9), before);
      cover.first[i] = Math.floor(start + 1e-9);
      cover.count[i] = stop - cover.first[i];
      for (let k = cover.first[i]; k < stop; k++) {
        cover.share[i * most + k - cover.first[i]] = (Math.min(end, k + 1) - Math.max(start, k)) / (end - start);
      }
    }
    shares.set(key, cover);
  }
  return shares.get(key);
}

/** Shrinks a picture, [height, width, channels] flat, by averages: Float32Array. A fourth channel stays 0. */
export function shrink(picture, width, height, newWidth, newHeight, channels) {
  if (width === newWidth && height === newHeight) return Float32Array.from(picture);
  const across = coverage(width, newWidth);
  const down = coverage(height, newHeight);
  const row = newWidth * channels;
  const line = new Float32Array(row);
  const result = new Float32Array(newHeight * row);
  const shrinkRow = channels === 1 ? shrinkGrey : shrinkColours;
  for (let y = 0, before = -1; y < newHeight; y++) {
    for (let k = 0; k < down.count[y]; k++) {
      const share = down.share[y * down.most + k];
      const at = down.first[y] + k;
      // An old row can lie in two new ones.
      if (at !== before) shrinkRow(picture, at * width * channels, across, newWidth, channels, line);
      before = at;
      for (let i = 0, to = y * row; i < row; i++, to++) result[to] += share * line[i];
    }
  }
  return result;
}

// Channels are written out: this is what a frame costs most.

function shrinkColours(picture, start, { first, count, share, most }, newWidth, channels, line) {
  for (let x = 0, to = 0; x < newWidth; x++, to += channels) {
    let from = start + first[x] * channels;
    let r = 0;
    let g = 0;
    let b = 0;
    const end = x * most + count[x];
    for (let k = x * most; k < end; k++, from += channels) {
      r += share[k] * picture[from];
      g += share[k] * picture[from + 1];
      b += share[k] * picture[from + 2];
    }
    line[to] = r;
    line[to + 1] = g;
    line[to + 2] = b;
  }
}

function shrinkGrey(picture, start, { first, count, share, most }, newWidth, _, line) {
  for (let x = 0; x < newWidth; x++) {
    let sum = 0;
    for (let k = 0; k < count[x]; k++) sum += share[x * most + k] * picture[start + first[x] + k];
    line[x] = sum;
  }
}

/** Blurs a square picture of one channel by a Gaussian; beyond its edges it is mirrored. */
export function blur(picture, size, sigma) {
  const reach = Math.min(Math.max(1, Math.ceil(3 * sigma)), size - 1);
  const kernel = new Float32Array(2 * reach + 1);
  let total = 0;
  for (let k = -reach; k <= reach; k++) total += kernel[k + reach] = Math.exp(-0.5 * (k / sigma) ** 2);
  for (let k = 0; k < kernel.length; k++) kernel[k] /= total;
  const line = new Float32Array(size + 2 * reach);
  const middle = new Float32Array(size * size);
  const result = new Float32Array(size * size);
  const along = (from, to, step, stride) => {
    for (let at = 0; at < size * stride; at += stride) {
      let isEmpty = true;
      for (let i = 0; i < size; i++) {
        line[i + reach] = from[at + i * step];
        isEmpty &&= line[i + reach] === 0;
      }
      if (isEmpty) continue; // most of a small part of the face is
      for (let i = 1; i <= reach; i++) {
        line[reach - i] = line[reach + i];
        line[reach + size - 1 + i] = line[reach + size - 1 - i];
      }
      for (let i = 0; i < size; i++) {
        let value = 0;
        for (let k = 0; k < kernel.length; k++) value += kernel[k] * line[i + k];
        to[at + i * step] = value;
      }
    }
  };
  along(picture, middle, 1, size);
  along(middle, result, size, 1);
  return result;
}

/**
 * Draws a picture by a matrix [a, b, x, c, d, y] from new pixels to old ones, [size, size, 3] of RGBA.
 *
 * Outside stands the nearest edge, or black. `into`: a Float32Array of size² × 3 that is written over.
 */
export function warp({ data, width, height }, [a, b, left, c, d, top], size, { black = false, into = null } = {}) {
  const result = into ?? new Float32Array(size * size * 3);
  const stride = 4 * width;
  for (let v = 0, to = 0; v < size; v++) {
    for (let u = 0; u < size; u++, to += 3) {
      const x = a * u + b * v + left;
      const y = c * u + d * v + top;
      // Never below 0 where it is used: cutting off is faster than Math.floor.
      const i = x | 0;
      const j = y | 0;
      if (x >= 0 && y >= 0 && i < width - 1 && j < height - 1) {
        const at = j * stride + 4 * i;
        const below = at + stride;
        const p = x - i;
        const q = y - j;
        const w3 = p * q;
        const w2 = q - w3;
        const w1 = p - w3;
        const w0 = 1 - p - w2;
        result[to] = w0 * data[at] + w1 * data[at + 4] + w2 * data[below] + w3 * data[below + 4];
        result[to + 1] = w0 * data[at + 1] + w1 * data[at + 5] + w2 * data[below + 1] + w3 * data[below + 5];
        result[to + 2] = w0 * data[at + 2] + w1 * data[at + 6] + w2 * data[below + 2] + w3 * data[below + 6];
      } else drawEdge(result, to, { data, width, height }, x, y, black);
    }
  }
  return result;
}

function drawEdge(result, to, { data, width, height }, x, y, black) {
  const left = Math.floor(x);
  const top = Math.floor(y);
  const sums = [0, 0, 0];
  for (let k = 0; k < 4; k++) {
    let i = left + (k & 1);
    let j = top + (k >> 1);
    const share = (k & 1 ? x - left : 1 - x + left) * (k >> 1 ? y - top : 1 - y + top);
    if (i < 0 || j < 0 || i >= width || j >= height) {
      if (black) continue;
      i = clamp(i, 0, width - 1);
      j = clamp(j, 0, height - 1);
    }
    for (let c = 0; c < 3; c++) sums[c] += share * data[(j * width + i) * 4 + c];
  }
  result.set(sums, to);
}

/** Averages blocks of a part of a picture: a smaller RGBA picture, for what would skip pixels otherwise. */
export function averaged({ data, width }, left, top, columns, rows, factor) {
  const result = new Float32Array(columns * rows * 4);
  for (let y = 0; y < rows * factor; y++) {
    for (let x = 0; x < columns * factor; x++) {
      const from = ((top + y) * width + left + x) * 4;
      const to = (Math.floor(y / factor) * columns + Math.floor(x / factor)) * 4;
      for (let c = 0; c < 3; c++) result[to + c] += data[from + c] / factor ** 2;
    }
  }
  return { data: result, width: columns, height: rows };
}

/** Returns the matrix from pixels of a square region drawn at size² to the picture's, see `FaceRegion`. */
export function toPicture({ x, y, side, angle }, size) {
  const scale = side / size;
  const [c, s] = [scale * Math.cos(angle), scale * Math.sin(angle)];
  const middle = (size - 1) / 2;
  return [c, -s, x - middle * (c - s), s, c, y - middle * (c + s)];
}

/** Draws a region upright, [size, size, 3]; a large one is averaged down first, so that no pixel is skipped. */
export function drawRegion(picture, region, size, factor, reach, options) {
  const matrix = toPicture(region, size);
  if (factor < 2) return warp(picture, matrix, size, options);
  const [left, right] = [-1, 1].map((k) => Math.trunc(clamp(region.x + k * reach, 0, picture.width)));
  const [top, bottom] = [-1, 1].map((k) => Math.trunc(clamp(region.y + k * reach, 0, picture.height)));
  const [columns, rows] = [Math.floor((right - left) / factor), Math.floor((bottom - top) / factor)];
  if (columns < 2 || rows < 2) return warp(picture, matrix, size, options);
  const small = averaged(picture, left, top, columns, rows, factor);
  matrix[2] = (matrix[2] - left - (factor - 1) / 2) / factor;
  matrix[5] = (matrix[5] - top - (factor - 1) / 2) / factor;
  for (const i of [0, 1, 3, 4]) matrix[i] /= factor;
  return warp(small, matrix, size, options);
}

export const clamp = (x, low, high) => Math.min(Math.max(x, low), high);
