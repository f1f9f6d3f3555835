// How long the stages of the page take: ms in all, and how often.

export const spent = {};

/** Adds what has passed since a moment, `performance.now()`, to a stage; returns the moment now. */
export function note(stage, since) {
  const now = performance.now();
  const one = (spent[stage] ??= { ms: 0, count: 0 });
  one.ms += now - since;
  one.count += 1;
  return now;
}
