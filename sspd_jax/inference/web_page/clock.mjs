// Puts what comes with uneven times on a clock, as `video/resample.py` does, one unbroken part after the other.

const JITTER = 0.05; // of a period: what is this near to a tick is on it
const DENSER = 0.9; // what comes at shorter intervals than this share of a period is averaged

/** A clock that is fed by `push` and whose ticks `push` returns: [{ tickS, values }], values a Float64Array. */
export class Clock {
  constructor(fps) {
    this._period = 1 / fps;
    this._near = [];
    this._tick = 0;
  }

  push(timeS, values) {
    this._startS ??= timeS;
    this._near.push({ timeS, values });
    const ticks = [];
    for (;;) {
      const tickS = this._startS + this._tick * this._period;
      while (this._near.length > 1 && this._near[1].timeS <= tickS - this._period) this._near.shift();
      if (tickS + this._period > timeS) return ticks;
      ticks.push({ tickS, values: this._at(tickS) });
      this._tick += 1;
    }
  }

  _at(tickS) {
    const near = this._near;
    const after = near.findIndex((one) => one.timeS > tickS);
    if (after < 1) return near[near.length - 1].values;
    const [left, right] = [near[after - 1], near[after]];
    const spacing = right.timeS - left.timeS;
    const reach = Math.min(this._period, tickS - near[0].timeS, near[near.length - 1].timeS - tickS);
    if (spacing < DENSER * this._period && reach > spacing) {
      const weights = near.map((one) => Math.max(0, 1 - Math.abs(one.timeS - tickS) / reach));
      const total = weights.reduce((a, b) => a + b);
      return left.values.map((_, i) => near.reduce((sum, one, k) => sum + (weights[k] / total) * one.values[i], 0));
    }
    if (tickS - left.timeS <= JITTER * this._period) return left.values;
    if (right.timeS - tickS <= JITTER * this._period) return right.values;
    const share = (tickS - left.timeS) / spacing;
    const values = new Float64Array(left.values.length);
    for (let i = 0; i < values.length; i++) values[i] = mixed(left.values[i], right.values[i], share);
    return values;
  }
}

/** What is hidden at one moment is taken from the other. */
function mixed(a, b, share) {
  if (Number.isNaN(a)) return b;
  return Number.isNaN(b) ? a : (1 - share) * a + share * b;
}
