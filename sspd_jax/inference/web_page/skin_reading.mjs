// Heart rate and confidence from colour traces of a face's skin, in a browser or in Node: what `predict` computes
// of its traces, without a picture and without a server. A test holds every number to those of the package.
//
//     import { readWaves, judgeWindow } from "./skin_reading.mjs";
//     const table = await (await fetch("confidence.json")).json();  // sspd_jax/heart_rate/confidence.json
//     const waves = readWaves(traces, 30);                          // once over all that was recorded
//     const { bpm, confidence, why } = judgeWindow(traces, waves, 30, start, end, table);
//
// Traces are on a uniform clock; each is an array of Float64Arrays, one for every column:
//   skin      3 columns, mean RGB of the skin, 0 to 255
//   skinArea  1 column, how many pixels of the picture that mean weighs
//   patches   13 × 3 columns, the same of parts of the skin, in the order of `skin_map.PATCHES`; NaN where never seen
//   patchArea 13 columns, pixels; 0 where a patch is hidden
//   eyes      3 columns, of eyes and brows; NaN where they are not known
//   behind    3 columns, of what lies around the face; NaN where nothing does
//   track     7 columns, see `skin_evidence.track`
// A network's wave may stand in `waves.sspd`, a Float64Array; NaN where it has no sample.
//
// `heart_rate/` and `inference/skin_reading.py` say why each number is as it is, and where it comes from.

const NAN = Number.NaN;

// Numbers.

const sum = (x) => x.reduce((a, b) => a + b, 0);
const mean = (x) => sum(x) / x.length;
const highest = (x) => x.reduce((a, b) => Math.max(a, b), -Infinity);
const lowest = (x) => x.reduce((a, b) => Math.min(a, b), Infinity);
const range = (x) => highest(x) - lowest(x);
const clip = (x, low, high) => Math.min(Math.max(x, low), high);
const isFinite_ = (x) => x.every(Number.isFinite);
const argmax = (x) => x.reduce((best, value, i) => (value > x[best] ? i : best), 0);
const std = (x) => {
  const middle = mean(x);
  return Math.sqrt(mean(x.map((value) => (value - middle) ** 2)));
};
const log10 = Math.log10;

/** Takes the least-squares line off. */
export function removeLine(x) {
  const middle = mean(x);
  const centre = (x.length - 1) / 2;
  let [up, size] = [0, 0];
  for (let i = 0; i < x.length; i++) {
    up += (i - centre) * (x[i] - middle);
    size += (i - centre) ** 2;
  }
  const slope = size > 0 ? up / size : 0;
  return x.map((value, i) => value - middle - (i - centre) * slope);
}

function hann(n) {
  return Float64Array.from({ length: n }, (_, i) => (n > 1 ? 0.5 - 0.5 * Math.cos((2 * Math.PI * i) / (n - 1)) : 1));
}

/** Power |X|² of a real signal, padded with zeros to `length`, a power of two, up to half of it. */
function powerSpectrum(x, length) {
  const [re, im] = [new Float64Array(length), new Float64Array(length)];
  const bits = Math.log2(length);
  for (let i = 0; i < x.length; i++) {
    let at = 0;
    for (let b = 0; b < bits; b++) at |= ((i >> b) & 1) << (bits - 1 - b);
    re[at] = x[i];
  }
  for (let size = 2; size <= length; size *= 2) {
    const half = size / 2;
    for (let k = 0; k < half; k++) {
      const [c, s] = [Math.cos((2 * Math.PI * k) / size), -Math.sin((2 * Math.PI * k) / size)];
      for (let at = k; at < length; at += size) {
        const [a, b] = [re[at + half] * c - im[at + half] * s, re[at + half] * s + im[at + half] * c];
        re[at + half] = re[at] - a;
        im[at + half] = im[at] - b;
        re[at] += a;
        im[at] += b;
      }
    }
  }
  return Float64Array.from({ length: length / 2 + 1 }, (_, i) => re[i] ** 2 + im[i] ** 2);
}

/** Sums the Fourier bins of a signal whose frequencies are `wanted`; returns the real part, or both. */
function ofBins(x, fps, wanted) {
  const n = x.length;
  const [re, im] = [new Float64Array(n), new Float64Array(n)];
  for (let k = 0; k <= n / 2; k++) {
    if (!wanted((k * fps) / n)) continue;
    let [a, b] = [0, 0];
    for (let i = 0; i < n; i++) {
      const turn = (2 * Math.PI * ((k * i) % n)) / n;
      a += x[i] * Math.cos(turn);
      b -= x[i] * Math.sin(turn);
    }
    for (let i = 0; i < n; i++) {
      const turn = (2 * Math.PI * ((k * i) % n)) / n;
      const [c, s] = [Math.cos(turn), Math.sin(turn)];
      re[i] += (a * c - b * s) / n;
      im[i] += (a * s + b * c) / n;
    }
  }
  return { re, im };
}

/** Solves A·X = B for a symmetric positive A, n × n, and columns B. */
function solve(matrix, columns) {
  const n = matrix.length;
  const lower = matrix.map((row) => Float64Array.from(row));
  for (let j = 0; j < n; j++) {
    for (let k = 0; k < j; k++) for (let i = j; i < n; i++) lower[i][j] -= lower[i][k] * lower[j][k];
    const root = Math.sqrt(lower[j][j]);
    for (let i = j; i < n; i++) lower[i][j] /= root;
  }
  return columns.map((column) => {
    const y = Float64Array.from(column);
    for (let i = 0; i < n; i++) {
      for (let k = 0; k < i; k++) y[i] -= lower[i][k] * y[k];
      y[i] /= lower[i][i];
    }
    for (let i = n - 1; i >= 0; i--) {
      for (let k = i + 1; k < n; k++) y[i] -= lower[k][i] * y[k];
      y[i] /= lower[i][i];
    }
    return y;
  });
}

// Filters, as `heart_rate.filters`.

const designed = new Map();

/** Designs a Butterworth band-pass of second-order sections b = [g, 0, −g], a = [1, a1, a2]. */
function sections(low, high, fps, order) {
  const key = [low, high, fps, order].join();
  if (designed.has(key)) return designed.get(key);
  const [first, last] = [low, high].map((hz) => 4 * Math.tan((Math.PI * hz) / fps));
  const [width, centre] = [last - first, first * last];
  const found = [];
  let gain = width ** order * 4 ** order;
  for (let m = 1 - order; m <= 0; m += 2) {
    // A pole of the prototype, and of the two that it becomes in the band, each with its conjugate.
    const [x, y] = [
      (-Math.cos((Math.PI * m) / (2 * order)) * width) / 2,
      (-Math.sin((Math.PI * m) / (2 * order)) * width) / 2,
    ];
    const [u, v] = [x * x - y * y - centre, 2 * x * y]; // its square root follows
    const size = Math.hypot(u, v);
    const root = [Math.sqrt((size + u) / 2), Math.sign(v || 1) * Math.sqrt((size - u) / 2)];
    for (const sign of m === 0 ? [1] : [1, -1]) {
      const [p, q] = [x + sign * root[0], y + sign * root[1]];
      const below = (4 - p) ** 2 + q * q; // |4 − pole|²: the pole's factor and its conjugate's
      gain /= below;
      const [zr, zi] = [((4 + p) * (4 - p) - q * q) / below, ((4 - p) * q + (4 + p) * q) / below];
      found.push([-2 * zr, zr * zr + zi * zi]);
    }
  }
  designed.set(key, { found, gain });
  return designed.get(key);
}

/** Filters forwards and backwards, so that no beat moves in time. */
function bandpass(x, low, high, fps, order) {
  if (!(high < fps / 2)) throw new RangeError(`a band up to ${high} Hz does not fit ${fps} frames/s`);
  const padding = 3 * (2 * order + 1);
  const n = x.length;
  if (n <= padding) throw new RangeError(`a band-pass of order ${order} needs more than ${padding} samples, got ${n}`);
  const whole = new Float64Array(n + 2 * padding);
  for (let i = 0; i < padding; i++) {
    whole[i] = 2 * x[0] - x[padding - i];
    whole[n + padding + i] = 2 * x[n - 1] - x[n - 2 - i];
  }
  whole.set(x, padding);
  const { found, gain } = sections(low, high, fps, order);
  const once = (signal) => {
    const start = signal[0];
    found.forEach(([a1, a2], number) => {
      const g = number ? 1 : gain;
      // The state that a constant leaves; after the first section nothing of it is left.
      let [one, two] = number ? [0, 0] : [-g * start, -g * start];
      for (let i = 0; i < signal.length; i++) {
        const y = g * signal[i] + one;
        one = two - a1 * y;
        two = -g * signal[i] - a2 * y;
        signal[i] = y;
      }
    });
    return signal.reverse();
  };
  return once(once(whole)).slice(padding, padding + n);
}

/** Takes off what changes slowly: smoothness priors, a system of five diagonals. */
function detrend(x, smoothness) {
  const n = x.length;
  if (n < 5) throw new RangeError(`smoothness priors need 5 samples or more, got ${n}`);
  const weight = smoothness ** 2;
  const [d, e, f] = [new Float64Array(n), new Float64Array(n), new Float64Array(n)];
  for (let i = 0; i < n; i++) {
    const edge = Math.min(i, n - 1 - i);
    d[i] = 1 + weight * [1, 5, 6][Math.min(edge, 2)];
    e[i] = weight * (i === 0 || i === n - 2 ? -2 : -4); // beside the diagonal, of rows i and i + 1
    f[i] = weight;
  }
  const y = Float64Array.from(x);
  for (let i = 0; i < n; i++) {
    const [one, two] = [e[i] / d[i], f[i] / d[i]];
    if (i + 1 < n) {
      d[i + 1] -= one * e[i];
      e[i + 1] -= one * f[i];
      y[i + 1] -= one * y[i];
    }
    if (i + 2 < n) {
      d[i + 2] -= two * f[i];
      y[i + 2] -= two * y[i];
    }
  }
  for (let i = n - 1; i >= 0; i--) {
    if (i + 1 < n) y[i] -= e[i] * y[i + 1];
    if (i + 2 < n) y[i] -= f[i] * y[i + 2];
    y[i] /= d[i];
  }
  return x.map((value, i) => value - y[i]);
}

// Classical methods, as `heart_rate.host_classical`. Each takes three columns.

const WINDOW_S = 1.6;
const STILL = 1e-9;

function requireWindow(length, samples) {
  if (samples < length) {
    throw new RangeError(`a window of ${WINDOW_S} s has ${length} samples, the trace only ${samples}`);
  }
}

function balance(x, y) {
  return x > STILL && y > STILL ? x / y : null;
}

function chrom(rgb, fps) {
  const half = Math.ceil(Math.ceil(WINDOW_S * fps) / 2);
  requireWindow(2 * half, rgb[0].length);
  const count = Math.floor(rgb[0].length / half) - 1;
  const weights = hann(2 * half);
  const wave = new Float64Array((count + 1) * half);
  for (let w = 0; w < count; w++) {
    const parts = rgb.map((column) => column.slice(w * half, (w + 2) * half));
    const means = parts.map(mean);
    const lit = means.every((value) => value > 0);
    const [r, g, b] = parts.map((part, c) => part.map((value) => (lit ? value / means[c] : 0)));
    const x = bandpass(r.map((value, i) => 3 * value - 2 * g[i]), 0.7, 2.5, fps, 3);
    const y = bandpass(r.map((value, i) => 1.5 * value + g[i] - 1.5 * b[i]), 0.7, 2.5, fps, 3);
    const ratio = balance(std(x), std(y));
    if (ratio !== null) for (let i = 0; i < 2 * half; i++) wave[w * half + i] += (x[i] - ratio * y[i]) * weights[i];
  }
  return wave;
}

function pos(rgb, fps) {
  const [length, samples] = [Math.ceil(WINDOW_S * fps), rgb[0].length];
  requireWindow(length, samples - 1);
  const wave = new Float64Array(samples);
  for (let w = 0; w < samples - length; w++) {
    const means = rgb.map((column) => {
      let total = 0;
      for (let i = w; i < w + length; i++) total += column[i];
      return total / length;
    });
    if (!means.every((value) => value > 0)) continue;
    let [xx, yy] = [0, 0];
    const both = [];
    for (let i = w; i < w + length; i++) {
      const [r, g, b] = rgb.map((column, c) => column[i] / means[c]);
      const [x, y] = [g - b, g + b - 2 * r];
      xx += x * x;
      yy += y * y;
      both.push([x, y]);
    }
    const ratio = balance(Math.sqrt(xx / length), Math.sqrt(yy / length));
    if (ratio !== null) both.forEach(([x, y], i) => (wave[w + i] += x + ratio * y));
  }
  return bandpass(detrend(wave, 100), 0.75, 3, fps, 1);
}

function omit(rgb) {
  const first = rgb.map((column) => column[0]);
  const size = Math.hypot(...first) || 1;
  const colour = first.map((value) => value / size);
  const left = rgb[1].map((green, i) => green - sum(rgb.map((column, c) => column[i] * colour[c])) * colour[1]);
  const largest = highest(rgb.map((column) => highest(column.map(Math.abs))));
  return highest(left.map(Math.abs)) > STILL * largest ? left : left.map(() => 0);
}

const METHODS = { green: (rgb) => rgb[1].slice(), pos, chrom, omit };
const LEAST_FPS = { chrom: 14 };
const readable = (fps) => Object.keys(METHODS).filter((name) => fps >= (LEAST_FPS[name] ?? 0));

function runMethod(name, rgb, fps) {
  const wave = METHODS[name](rgb, fps);
  const whole = new Float64Array(rgb[0].length).fill(wave[wave.length - 1]);
  whole.set(wave);
  return whole;
}

// Spectra, as `heart_rate.rate` and `heart_rate.fusion`.

const WIDE_BAND = [0.6, 3.6];
const BAND = [0.65, 3.6];
const TILT = 1.5;
const FLOOR = 0.15;
const PEAK_HZ = 0.1;
const RIVAL_HZ = 0.2;
const LOBE = 0.5 / (Math.PI ** 2 / 3 - 2);
const LEAST_AREA = 20;
const FOLLOW_BRIGHTNESS = ["green", "omit"];
const LEAST_OF_PATCHES = 0.2;

const nextPower = (n) => 2 ** Math.ceil(Math.log2(n));

function requireRate(samples, fps, highest_) {
  if (samples < 8 || fps <= 2 * highest_) {
    throw new RangeError(`${samples} samples at ${fps} Hz have no spectrum up to ${highest_} Hz`);
  }
}

function powerShares(wave, fps, tilt = TILT) {
  const n = wave.length;
  requireRate(n, fps, BAND[1]);
  const padded = nextPower(Math.max(8 * n, fps / 0.01));
  const hz = [];
  const bins = [];
  for (let k = 0; k <= padded / 2; k++) {
    const at = (k * fps) / padded;
    if (at >= BAND[0] && at <= BAND[1]) {
      hz.push(at);
      bins.push(k);
    }
  }
  const even = { hz, share: hz.map(() => 1 / hz.length) };
  if (!isFinite_(wave)) return even;
  const steady = removeLine(wave);
  if (highest(steady.map(Math.abs)) <= 1e-12 * highest(wave.map(Math.abs))) return even;
  const window = hann(n);
  const spectrum = powerSpectrum(steady.map((value, i) => value * window[i]), padded);
  const power = bins.map((k, i) => spectrum[k] * hz[i] ** tilt);
  const total = sum(power);
  return total > 0 ? { hz, share: power.map((value) => value / total) } : even;
}

function fuseShares(shares, weights = shares.map(() => 1)) {
  const total = sum(weights);
  return shares[0].map((_, i) => {
    const weighted = sum(shares.map((share, k) => weights[k] * Math.log(share[i] + FLOOR / share.length)));
    return weighted / (total > 0 ? total : 1);
  });
}

function peakBpm(hz, share, durationS, tilt = TILT) {
  if (range(share) <= 1e-9 * highest(share)) return NAN;
  const top = hz[argmax(share)];
  return 60 * (top - (tilt * LOBE) / (durationS ** 2 * top));
}

/** Fuses the spectra of the skin's waves, of the patches' ([k][p]) and of a network's; see fusion.py. */
function fusedRate(skinWaves, names, fps, options = {}) {
  const { patchWaves = null, patchArea = null, network = null, still = null, steady = 1 } = options;
  const spectra = skinWaves.map((wave) => powerShares(wave, fps));
  const { hz } = spectra[0];
  const durationS = skinWaves[0].length / fps;
  const shares = spectra.map(({ share }) => share);
  const heard = still ? still.map((wave) => powerShares(wave, fps).share) : shares;
  const trusted = names.map((name) => (FOLLOW_BRIGHTNESS.includes(name) ? steady : 1));
  const groups = [fuseShares(heard, trusted)];
  const counts = [2 - steady];
  if (patchWaves && patchWaves[0].length) {
    const parts = patchWaves.map((waves) => waves.map((wave) => powerShares(wave, fps).share));
    const weights = parts.map((ofPatches) =>
      ofPatches.map((share, p) => {
        const peak = hz[argmax(share)];
        const near = sum(share.filter((_, i) => Math.abs(hz[i] - peak) <= PEAK_HZ));
        return patchArea && patchArea[p] < LEAST_AREA ? 0 : near;
      }),
    );
    if (weights.some((row) => row.some((weight) => weight > 0))) {
      const fused = parts.map((ofPatches, k) => fuseShares(ofPatches, weights[k]));
      groups.push(hz.map((_, i) => sum(fused.map((one, k) => trusted[k] * one[i])) / sum(trusted)));
      counts.push(LEAST_OF_PATCHES + (1 - LEAST_OF_PATCHES) * steady);
    }
  }
  const rates = Object.fromEntries(names.map((name, k) => [name, peakBpm(hz, shares[k], durationS)]));
  if (network) {
    const learned = powerShares(network, fps, 0).share;
    groups.push(fuseShares([learned]));
    counts.push(1);
    rates.sspd = peakBpm(hz, learned, durationS, 0);
  }
  const fused = hz.map((_, i) => sum(groups.map((group, k) => counts[k] * group[i])) / sum(counts));
  const top = highest(fused);
  const share = fused.map((value) => Math.exp(value - top));
  const total = sum(share);
  return { bpm: peakBpm(hz, share, durationS), share: share.map((value) => value / total), hz, rates };
}

function hannPeriodogram(x, fps, padding) {
  const window = hann(x.length);
  const total = sum(window);
  const padded = padding * nextPower(x.length);
  const spectrum = powerSpectrum(x.map((value, i) => value * window[i]), padded);
  return { step: fps / padded, power: spectrum.map((value) => (2 * value) / total ** 2) };
}

/** The interpolated peak of a wave's spectrum, bpm. */
function spectralPeakRate(wave, fps) {
  requireRate(wave.length, fps, WIDE_BAND[1]);
  if (!isFinite_(wave)) return NAN;
  const steady = removeLine(wave);
  if (highest(steady.map(Math.abs)) <= 1e-12 * highest(wave.map(Math.abs))) return NAN;
  const { step, power } = hannPeriodogram(steady, fps, 8);
  const [first, last] = WIDE_BAND.map((edge) => Math.round(edge / step));
  let top = -1;
  for (let k = first + 1; k < last; k++) {
    if (power[k] >= power[k - 1] && power[k] > power[k + 1] && (top < 0 || power[k] > power[top])) top = k;
  }
  if (top < 0) return NAN;
  const [left, middle, right] = [-1, 0, 1].map((i) => Math.log(power[top + i] + 1e-300));
  return 60 * step * (top + (0.5 * (left - right)) / (left - 2 * middle + right));
}

// Evidence, as `heart_rate.signal_quality` and `heart_rate.skin_evidence`.

const BLOOD = [0.33, 0.77, 0.53];
const GREY = [1, 1, 1];
const FAINTEST = 1e-6;
const NEAR_HZ = 0.12;
const AGREE_BPM = 3;
const FAR_BPM = 20;
const PULSE_CHANGE = 0.004;
const TREMBLE = [0.004, 0.004, 0.004, 0.004, 0.01, 0.01, 0.01];
const SIDES = [-1, 0, 1, 0, 0, -1, 1, -1, 1, -1, 1, 0, 0];

const length3 = (colour) => Math.hypot(...colour.flat());
const size = ([re, im]) => Math.hypot(re, im);
const apart = (rate, bpm) => (Number.isFinite(rate) ? Math.min(Math.abs(rate - bpm), FAR_BPM) : FAR_BPM);
/** a · conj(b) of complex numbers. */
const byConjugate = ([a, b], [c, d]) => [a * c + b * d, b * c - a * d];
const addUp = (numbers) => numbers.reduce(([a, b], [c, d]) => [a + c, b + d], [0, 0]);

function relativeChange(rgb) {
  return rgb.map((column) => {
    const middle = mean(column);
    return removeLine(column.map((value) => (middle > 0 ? value / middle - 1 : 0)));
  });
}

const inBand = (x, fps) => ofBins(x, fps, (hz) => hz >= WIDE_BAND[0] && hz <= WIDE_BAND[1]).re.map((v) => 2 * v);

function chrominance([r, g, b], fps) {
  const x = inBand(g.map((value, i) => value - b[i]), fps);
  const y = inBand(g.map((value, i) => value + b[i] - 2 * r[i]), fps);
  const spread = std(y);
  const ratio = spread > FAINTEST * 1e-3 ? std(x) / spread : 0;
  return x.map((value, i) => value + ratio * y[i]);
}

function amplitudeAt(x, fps, hz) {
  const window = hann(x.length);
  const total = sum(window);
  let [re, im] = [0, 0];
  for (let i = 0; i < x.length; i++) {
    const turn = (-2 * Math.PI * hz * i) / fps;
    re += (2 * window[i] * x[i] * Math.cos(turn)) / total;
    im += (2 * window[i] * x[i] * Math.sin(turn)) / total;
  }
  return [re, im];
}

const amplitudesAt = (columns, fps, hz) => columns.map((column) => amplitudeAt(column, fps, hz));

function shareNear(x, fps, hz) {
  const { step, power } = hannPeriodogram(removeLine(x), fps, 4);
  let [near, total] = [0, 0];
  power.forEach((value, k) => {
    const at = k * step;
    if (at < WIDE_BAND[0] || at > WIDE_BAND[1]) return;
    total += value;
    if (Math.abs(at - hz) <= NEAR_HZ || Math.abs(at - 2 * hz) <= NEAR_HZ) near += value;
  });
  return total > 0 ? near / total : 0;
}

function cosine(colour, direction) {
  const along = addUp(colour.map(([re, im], c) => [re * direction[c], im * direction[c]]));
  return size(along) / ((length3(colour) + FAINTEST) * Math.hypot(...direction));
}

function inStep(beats) {
  return size(addUp(beats)) / (sum(beats.map(size)) + FAINTEST);
}

function ofSpectra(window, wave, hz, fused) {
  const near = fused.share.filter((_, i) => Math.abs(fused.hz[i] - hz) <= PEAK_HZ);
  const elsewhere = fused.share.filter(
    (_, i) => Math.abs(fused.hz[i] - hz) > RIVAL_HZ && Math.abs(fused.hz[i] - 2 * hz) > RIVAL_HZ,
  );
  const height = (shares) => Math.max(-28, highest(shares.map((share) => Math.log(share + 1e-12))));
  const off = window.names.map((name) => apart(fused.rates[name], 60 * hz));
  return {
    wave_share: shareNear(wave, window.fps, hz),
    fused_share: sum(near),
    rival: height(near) - height(elsewhere),
    estimators_agree: mean(off.map((one) => Number(one <= AGREE_BPM))),
    estimators_off: mean(off),
    estimators_share: mean(window.names.map((name) => shareNear(window.waves[name], window.fps, hz))),
  };
}

function ofPatches(window, colour, hz) {
  const { fps } = window;
  const seen = window.patches
    .map((_, p) => p)
    .filter((p) => window.patchArea[p] >= LEAST_AREA && window.patches[p].every(isFinite_));
  if (seen.length < 3) {
    const names = ["patches_agree", "patches_share", "in_step", "green_in_step", "spread", "sides"];
    return Object.fromEntries([...names, "patches_blood", "same_colour"].map((name) => [name, NAN]));
  }
  const roots = seen.map((p) => Math.sqrt(window.patchArea[p]));
  const weight = roots.map((root) => root / sum(roots));
  const weighed = (numbers) => sum(numbers.map((number, i) => weight[i] * number));
  const change = seen.map((p) => relativeChange(window.patches[p]));
  const pulse = change.map((one) => chrominance(one, fps));
  const colours = change.map((one) => amplitudesAt(one, fps, hz));
  const greens = colours.map((one) => one[1]);
  const sizes = greens.map(size);
  const middle = weighed(sizes);
  const scaled = (numbers) => numbers.map(([re, im], i) => [weight[i] * re, weight[i] * im]);
  const [right, left] = [-1, 1].map((side) => mean(sizes.filter((_, i) => SIDES[seen[i]] === side)));
  const sides = Math.abs(log10((right + FAINTEST) / (left + FAINTEST)));
  const like = colours.map((one) => cosine(one, BLOOD)).sort((a, b) => a - b);
  const at = 0.2 * (like.length - 1);
  const below = Math.floor(at);
  const same = colours.map((one) => {
    const along = addUp(one.map((number, c) => byConjugate(number, colour[c])));
    return size(along) / ((length3(one) + FAINTEST) * (length3(colour) + FAINTEST));
  });
  return {
    patches_agree: weighed(pulse.map((one) => Number(Math.abs(spectralPeakRate(one, fps) - 60 * hz) <= AGREE_BPM))),
    patches_share: weighed(pulse.map((one) => shareNear(one, fps, hz))),
    in_step: inStep(scaled(pulse.map((one) => amplitudeAt(one, fps, hz)))),
    green_in_step: inStep(scaled(greens)),
    spread: Math.sqrt(weighed(sizes.map((one) => (one - middle) ** 2))) / (middle + FAINTEST),
    sides: Number.isFinite(sides) ? Math.min(sides, 1) : 0,
    patches_blood: like[below] + (at - below) * ((like[below + 1] ?? like[below]) - like[below]),
    same_colour: weighed(same),
  };
}

function ofColour(colour) {
  const power = size(colour[1]) ** 2 + FAINTEST ** 2;
  const [red, blue] = [0, 2].map((c) => byConjugate(colour[c], colour[1])[0] / power);
  return {
    blood: cosine(colour, BLOOD),
    grey: cosine(colour, GREY),
    red_green: clip(red, -2, 3),
    blue_green: clip(blue, -2, 3),
    strength: log10(length3(colour) + FAINTEST),
  };
}

function tintOf(colour) {
  const [re, im] = addUp(colour).map((value) => value / 3);
  return length3(colour.map(([a, b]) => [a - re, b - im])) + FAINTEST;
}

function ofSurroundings(window, colour, hz) {
  const { fps } = window;
  const green = size(colour[1]) + FAINTEST;
  const found = { eyes: NAN, eyes_in_step: NAN, behind: NAN, behind_share: NAN, behind_colour: NAN };
  if (window.eyes.every(isFinite_)) {
    const eyes = amplitudesAt(relativeChange(window.eyes), fps, hz);
    found.eyes = log10((size(eyes[1]) + FAINTEST) / green);
    found.eyes_in_step = byConjugate(eyes[1], colour[1])[0] / green ** 2;
  }
  if (window.behind.every(isFinite_)) {
    const change = relativeChange(window.behind);
    const behind = amplitudesAt(change, fps, hz);
    found.behind = log10((size(behind[1]) + FAINTEST) / green);
    found.behind_share = shareNear(change[1], fps, hz);
    found.behind_colour = log10(tintOf(behind) / tintOf(colour));
  }
  return found;
}

function steadiness(skin, fps) {
  const change = std(inBand(relativeChange(skin)[1], fps));
  return 1 / (1 + (change / PULSE_CHANGE) ** 2);
}

function withoutMotion(signals, moved, fps) {
  const steady = moved.map((column, i) => removeLine(column.map((value) => value / TREMBLE[i])));
  const squares = steady.map((column) => removeLine(column.map((value) => value ** 2)).map((value) => value / 10));
  const design = [...steady, ...squares].map((column) => inBand(column, fps));
  const wanted = signals.map((column) => {
    const middle = mean(column);
    return inBand(column.map((value) => value - middle), fps);
  });
  const dot = (a, b) => a.reduce((total, value, i) => total + value * b[i], 0);
  const n = design[0].length;
  const normal = design.map((a, i) => design.map((b, j) => dot(a, b) + (i === j ? n : 0)));
  const fits = solve(normal, wanted.map((column) => design.map((a) => dot(a, column))));
  return wanted.map((column, k) =>
    column.map((value, t) => value - sum(design.map((a, i) => a[t] * fits[k][i]))),
  );
}

function ofMotion(window, skin, wave, bpm) {
  const [hz, { fps }] = [bpm / 60, window];
  const steady = window.track.map(removeLine);
  const sizes = amplitudesAt(steady, fps, hz).map((number, i) => size(number) / TREMBLE[i]);
  const flat = removeLine(wave);
  const spread = std(flat) + 1e-12;
  const signals = [...skin, flat.map((value) => value / spread)];
  const left = withoutMotion(signals, window.track, fps);
  const share = left.map((column, i) => {
    const before = size(amplitudeAt(signals[i], fps, hz)) ** 2;
    return size(amplitudeAt(column, fps, hz)) ** 2 / Math.max(before, 1e-30);
  });
  return {
    moved: log10(Math.max(highest(sizes.slice(0, 4)), 0.03)),
    posed: log10(Math.max(highest(sizes.slice(4)), 0.03)),
    moved_share: highest(steady.slice(0, 4).map((column) => shareNear(column, fps, hz))),
    green_left: Math.min(share[1], 1.5),
    wave_left: Math.min(share[3], 1.5),
    left_off: apart(spectralPeakRate(chrominance(left.slice(0, 3), fps), fps), bpm),
  };
}

function wanderOf(wave, fps, hz) {
  const middle = mean(wave);
  const { re, im } = ofBins(wave.map((value) => value - middle), fps, (at) => Math.abs(at - hz) <= 0.3);
  const momentary = [];
  for (let i = 1; i < re.length; i++) {
    let turn = Math.atan2(im[i], re[i]) - Math.atan2(im[i - 1], re[i - 1]);
    turn -= 2 * Math.PI * Math.round(turn / (2 * Math.PI));
    momentary.push((turn * fps) / (2 * Math.PI));
  }
  const length = Math.max(1, Math.min(Math.round(fps), Math.floor(momentary.length / 3)));
  const slow = [];
  for (let i = 0; i + length <= momentary.length; i++) slow.push(mean(momentary.slice(i, i + length)));
  const edge = Math.floor(length / 2);
  return log10(Math.max(std(slow.slice(edge, edge ? -edge : undefined)) / hz, 0.002));
}

function ofTime(window, skin, bpm) {
  const [hz, { fps, names }] = [bpm / 60, window];
  const half = Math.floor(skin[0].length / 2);
  const halves = [(x) => x.slice(0, half), (x) => x.slice(half)];
  const rates = halves.map((cut) => fusedRate(names.map((name) => cut(window.waves[name])), names, fps).bpm);
  const [one, other] = halves.map((cut) => amplitudesAt(skin.map(cut), fps, hz));
  const along = addUp(other.map((number, c) => byConjugate(number, one[c])));
  return {
    wander: wanderOf(window.waves.pos, fps, hz),
    halves_off: mean(rates.map((rate) => apart(rate, bpm))),
    halves_colour: size(along) / (length3(one) * length3(other) + FAINTEST ** 2),
  };
}

function ofNetwork(window, hz, fused) {
  if (!("sspd" in fused.rates)) return { network_off: NAN, network_share: NAN };
  return { network_off: apart(fused.rates.sspd, 60 * hz), network_share: shareNear(window.waves.sspd, window.fps, hz) };
}

function evidenceOf(window, wave, bpm, fused) {
  const [hz, skin] = [bpm / 60, relativeChange(window.skin)];
  const colour = amplitudesAt(skin, window.fps, hz);
  return {
    ...ofSpectra(window, wave, hz, fused),
    ...ofPatches(window, colour, hz),
    ...ofColour(colour),
    ...ofSurroundings(window, colour, hz),
    ...ofMotion(window, skin, wave, bpm),
    ...ofTime(window, skin, bpm),
    brightness: log10(Math.max(mean(window.skin[1]), 1)),
    area: log10(Math.max(window.skinArea, 1)),
    ...ofNetwork(window, hz, fused),
  };
}

// Confidence, as `heart_rate.confidence`.

const REASONS = {
  rhythm: "the wave has no clear rhythm",
  agreement: "what looks at the skin in different ways finds different rates",
  patches: "the parts of the face do not beat together",
  blood: "what beats does not have the colour of blood",
  faint: "the skin's colour changes too little: it is too dark, too small or compressed too much",
  motion: "the head moves at this rate",
  light: "light on the face changes at this rate",
  time: "the rate does not hold through the window",
};
export const THRESHOLD = 0.75;

function odds(share) {
  const within = clip(share, 0.005, 0.995);
  return Math.log(within / (1 - within));
}

function featuresOf(e) {
  return {
    "rhythm wave": odds(e.wave_share),
    "rhythm fused": odds(e.fused_share),
    "rhythm rival": clip(e.rival, -3, 3),
    "agreement share": e.estimators_agree,
    "agreement off": e.estimators_off / 10,
    "agreement power": odds(e.estimators_share),
    "agreement network": e.network_off / 10,
    "agreement learned": odds(e.network_share),
    "patches agree": e.patches_agree,
    "patches share": odds(e.patches_share),
    "patches step": odds(e.in_step),
    "patches green": odds(e.green_in_step),
    "patches spread": clip(e.spread, 0, 1.5),
    "blood cosine": log10(Math.max(1 - e.blood, 1e-3)),
    "blood grey": clip(e.blood - e.grey, -0.2, 0.2) * 10,
    "blood red": Math.min(Math.abs(e.red_green - 0.43), 1.5),
    "blood blue": Math.min(Math.abs(e.blue_green - 0.69), 1.5),
    "blood patches": log10(clip(1 - e.patches_blood, 1e-3, 1)),
    "blood same": odds(e.same_colour),
    "blood halves": odds(e.halves_colour),
    "faint colour": Math.max(0, -3.3 - e.strength),
    "faint area": Math.min(e.area, 4),
    "faint light": Math.min(e.brightness, 2.2),
    "light strong": Math.max(0, e.strength + 2.2),
    "light eyes": clip(e.eyes_in_step, 0, 1.5),
    "light behind": clip(e.behind + 1, 0, 2) * e.behind_share,
    "light behind colour": clip(e.behind_colour + 1, 0, 1.5),
    "light sides": e.sides,
    "light steady": Math.max(0, -1.7 - e.wander),
    "motion size": Math.max(0, e.moved) * e.moved_share,
    "motion share": e.moved_share,
    "motion pose": Math.max(0, e.posed),
    "motion green": Math.min(e.green_left, 1),
    "motion wave": Math.min(e.wave_left, 1),
    "motion off": e.left_off / 10,
    "time halves": e.halves_off / 10,
    "time wander": Math.max(0, e.wander + 1.3),
  };
}

function confidenceOf(evidence, weights) {
  const features = featuresOf(evidence);
  const sums = new Map();
  weights.names.forEach((name, i) => {
    // What cannot be told speaks neither way.
    const part = Number.isFinite(features[name]) ? weights.weight[i] * (features[name] - weights.centre[i]) : 0;
    const kind = name.split(" ")[0];
    sums.set(kind, (sums.get(kind) ?? 0) + part);
  });
  const [worst] = [...sums].reduce((least, one) => (one[1] < least[1] ? one : least));
  return { confidence: 1 / (1 + Math.exp(-(weights.bias + sum([...sums.values()])))), why: REASONS[worst] };
}

// A window, as `inference.skin_reading`.

const FLAT = "the wave is flat";
const NO_COLOUR = "the picture is black and white, and a pulse shows in colour";
const PART_S = 10;

/**
 * Runs the estimators over everything that was recorded of a face, without a gap.
 *
 * Returns name → Float64Array of the skin, and under `patches` name → 13 of them. Throws a RangeError where there
 * are too few samples, or too few a second, for an estimator.
 */
export function readWaves(traces, fps) {
  const waves = {};
  const patches = {};
  for (const name of readable(fps)) {
    waves[name] = runMethod(name, traces.skin, fps);
    patches[name] = traces.patches.map((rgb) => {
      const known = rgb.map((column) => column.map((value) => (Number.isFinite(value) ? value : 1)));
      return runMethod(name, known, fps);
    });
  }
  return { ...waves, patches };
}

/**
 * Reads the rate of the samples from `start` to before `end`, and judges it.
 *
 * `table` is the content of confidence.json. Returns `bpm` (null where there is no reading), `confidence` (0 to 1),
 * `why` there is none ('' where there is one), `rate` (trusted or not, null where there is not even one to doubt),
 * `interval` (lowest and highest bpm, or null), `estimates` (name → bpm), `wave` (the name of the clearest one),
 * `upright` (below 0 where that wave is upside down) and `evidence`.
 */
export function judgeWindow(traces, waves, fps, start, end, table, { leastConfidence = THRESHOLD } = {}) {
  const cut = (column) => column.slice(start, end);
  const { patches: patchWaves, ...ofSkin } = waves;
  const names = readable(fps);
  const window = {
    fps,
    names,
    skin: traces.skin.map(cut),
    skinArea: mean(cut(traces.skinArea)),
    patches: traces.patches.map((rgb) => rgb.map(cut)),
    patchArea: traces.patchArea.map((column) => mean(cut(column))),
    eyes: traces.eyes.map(cut),
    behind: traces.behind.map(cut),
    track: traces.track.map(cut),
    waves: Object.fromEntries(Object.entries(ofSkin).map(([name, wave]) => [name, cut(wave)])),
  };
  const [r, g, b] = window.skin;
  const isGrey = r.every((red, i) => Math.max(red, g[i], b[i]) - Math.min(red, g[i], b[i]) < 0.5);
  const none = isGrey ? NO_COLOUR : FLAT;
  const blank = { bpm: null, confidence: 0, why: none, rate: null, interval: null, estimates: {}, wave: "pos" };
  if (window.skin.every((column) => range(column) <= 1e-5 * mean(column))) return blank;
  const learned = window.waves.sspd;
  const heard = names.map((name) => window.waves[name]);
  const fused = fusedRate(heard, names, fps, {
    still: withoutMotion(heard, window.track, fps),
    steady: steadiness(window.skin, fps),
    patchWaves: names.map((name) => patchWaves[name].map(cut)),
    patchArea: window.patchArea,
    network: learned && isFinite_(learned) ? learned : null,
  });
  const rate = fused.bpm;
  if (!Number.isFinite(rate)) return blank;
  const usable = Object.keys(window.waves).filter((name) => isFinite_(window.waves[name]));
  const wave = usable[argmax(usable.map((name) => shareNear(window.waves[name], fps, rate / 60)))];
  const evidence = evidenceOf(window, window.waves[wave], rate, fused);
  let { confidence, why } = confidenceOf(evidence, table.skin);
  const durationS = (end - start) / fps;
  if (isGrey) why = NO_COLOUR;
  else if (confidence >= leastConfidence) why = "";
  else if (durationS < 0.9 * PART_S) {
    why += `, and ${durationS.toFixed(1)} s are too short to be sure: take ${PART_S} s or more`;
  }
  const share = clip(evidence.fused_share, 0.02, 0.98);
  const half = (table.interval.bpm * (1 - share)) / share;
  const pulse = chrominance(relativeChange(window.skin), fps).map((value) => -value);
  const [re, im] = byConjugate(
    amplitudeAt(removeLine(window.waves[wave]), fps, rate / 60),
    amplitudeAt(pulse, fps, rate / 60),
  );
  return {
    bpm: why ? null : rate,
    confidence,
    why,
    rate,
    interval: why ? null : [rate - half, rate + half],
    estimates: fused.rates,
    wave,
    upright: re / Math.max(Math.hypot(re, im), 1e-300),
    evidence,
  };
}
