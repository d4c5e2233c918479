// From probabilities to masks and defects, by the rules of `steelseg.scoring.postprocess`.
// Used while a slider moves. Probabilities are levels q from 0 to 255 and mean q / 255.
// Arrays hold height * width values of one class, row by row.

// A threshold of 0.6 is level 153, also where floating point makes it 153.000006.
const LEVEL_NOISE = 1e-4;

/** The lowest level that reaches a threshold. */
export function levelOf(threshold) {
  return Math.ceil(threshold * 255 - LEVEL_NOISE);
}

/**
 * Turn the levels of one class into a mask and its defects.
 *
 * @param levels Uint8Array.
 * @param settings threshold, min_size, min_area and top_threshold of the class.
 * @returns {mask, defects}; a defect has box [x, y, width, height], area and score.
 */
export function binarize(levels, height, width, settings) {
  const lowest = levelOf(settings.threshold);
  const mask = new Uint8Array(levels.length);
  for (let i = 0; i < levels.length; i++) mask[i] = levels[i] >= lowest ? 1 : 0;
  const found = components(mask, levels, height, width);
  const kept = found.filter((part) => part.area >= settings.min_size);
  if (isSmall(kept, mask, levels, settings)) return { mask: mask.fill(0), defects: [] };
  for (const part of found) {
    if (part.area < settings.min_size) erase(mask, part.runs);
  }
  return { mask, defects: kept.map(({ box, area, score }) => ({ box, area, score })) };
}

/** Whether the rest of a mask has too few pixels of high probability. */
function isSmall(parts, mask, levels, { threshold, min_area, top_threshold }) {
  if (parts.length === 0) return true;
  if (top_threshold <= threshold) return sum(parts, (part) => part.area) < min_area;
  const top = levelOf(top_threshold);
  return sum(parts, (part) => countFrom(levels, part.runs, top)) < min_area;
}

function sum(items, value) {
  return items.reduce((total, item) => total + value(item), 0);
}

function countFrom(levels, runs, lowest) {
  let count = 0;
  for (const run of runs) {
    for (let at = run.at; at < run.at + run.length; at++) count += levels[at] >= lowest ? 1 : 0;
  }
  return count;
}

function erase(mask, runs) {
  for (const run of runs) mask.fill(0, run.at, run.at + run.length);
}

/**
 * Split a mask into components; pixels that touch at a corner belong together.
 *
 * @returns A list of {runs, box, area, score}, in the order of their first pixel, row by row.
 */
export function components(mask, levels, height, width) {
  const runs = rowRuns(mask, height, width);
  joinRows(runs);
  const parts = new Map();
  for (const run of runs) {
    const first = root(runs, run.index);
    if (!parts.has(first)) parts.set(first, []);
    parts.get(first).push(run);
  }
  return [...parts.values()].map((members) => describe(members, levels));
}

/** Runs of set pixels, each within a row: x, y, length, and `at`, its index in the mask. */
function rowRuns(mask, height, width) {
  const runs = [];
  for (let y = 0, at = 0; y < height; y++) {
    const end = at + width;
    while (at < end) {
      // indexOf and the inner loop are faster than a step per pixel.
      const start = mask.indexOf(1, at);
      if (start < 0 || start >= end) break;
      at = start;
      while (at < end && mask[at] === 1) at++;
      const index = runs.length;
      runs.push({
        index,
        parent: index,
        y,
        x: start - (end - width),
        at: start,
        length: at - start,
      });
    }
    at = end;
  }
  return runs;
}

/** Give touching runs a common root. */
function joinRows(runs) {
  let above = 0;
  for (const run of runs) {
    while (runs[above].y < run.y - 1) above++;
    for (; runs[above].y === run.y - 1; above++) {
      const other = runs[above];
      if (other.x > run.x + run.length) break;
      if (other.x + other.length >= run.x) join(runs, other.index, run.index);
      // A run that reaches further may also touch the next run of this row.
      if (other.x + other.length > run.x + run.length) break;
    }
  }
}

function join(runs, one, two) {
  const [low, high] = [root(runs, one), root(runs, two)].sort((a, b) => a - b);
  runs[high].parent = low;
}

function root(runs, index) {
  let at = index;
  while (runs[at].parent !== at) {
    runs[at].parent = runs[runs[at].parent].parent;
    at = runs[at].parent;
  }
  return at;
}

function describe(runs, levels) {
  let [left, right, area, total] = [Infinity, 0, 0, 0];
  for (const run of runs) {
    left = Math.min(left, run.x);
    right = Math.max(right, run.x + run.length);
    area += run.length;
    for (let at = run.at; at < run.at + run.length; at++) total += levels[at];
  }
  const top = runs[0].y;
  const bottom = runs[runs.length - 1].y + 1;
  return { runs, box: [left, top, right - left, bottom - top], area, score: total / area / 255 };
}
