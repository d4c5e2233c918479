// The outline of a mask as closed loops along the edges of its pixels: sharp at every zoom.

// Browsers draw this many in a twentieth of a second; ten times as many take seconds.
const MOST_CORNERS = 8000;

// Right, down, left, up.
const STEP_X = [1, 0, -1, 0];
const STEP_Y = [0, 1, 0, -1];
// The two pixels in front of a corner, seen in each direction, from the corner's own pixel.
const LEFT_X = [0, 0, -1, -1];
const LEFT_Y = [-1, 0, 0, -1];
const RIGHT_X = [0, -1, -1, 0];
const RIGHT_Y = [0, 0, -1, -1];

/**
 * Trace a mask. The mask is on the right of the path; holes are loops in the other direction.
 *
 * @returns A list of loops, each a flat list of corners x, y.
 */
export function trace(mask, height, width) {
  const isSet = (x, y) => x >= 0 && y >= 0 && x < width && y < height && mask[y * width + x] === 1;
  const seen = new Uint8Array(mask.length);
  const loops = [];
  for (let at = mask.indexOf(1); at >= 0; at = mask.indexOf(1, at + 1)) {
    const isTop = at < width || mask[at - width] === 0;
    if (isTop && !seen[at]) {
      loops.push(follow(at % width, Math.floor(at / width), { isSet, seen, width }));
    }
  }
  return loops;
}

/** Follow one loop, starting at the upper edge of a pixel. */
function follow(startX, startY, { isSet, seen, width }) {
  const corners = [];
  let [x, y, direction] = [startX, startY, 0];
  do {
    if (direction === 0) seen[y * width + x] = 1;
    x += STEP_X[direction];
    y += STEP_Y[direction];
    let next = direction;
    if (!isSet(x + RIGHT_X[direction], y + RIGHT_Y[direction])) next = (direction + 1) % 4;
    else if (isSet(x + LEFT_X[direction], y + LEFT_Y[direction])) next = (direction + 3) % 4;
    if (next !== direction) corners.push(x, y);
    direction = next;
  } while (x !== startX || y !== startY || direction !== 0);
  return corners;
}

/** The pixels of a mask that have a neighbour outside it, as a mask. */
export function rim(mask, width) {
  const isOut = (at) => !mask[at - 1] || !mask[at + 1] || !mask[at - width] || !mask[at + width];
  return mask.map((value, at) => (value && isOut(at) ? 1 : 0));
}

/** Convert loops to a path to fill and stroke; null if it would take too long to draw. */
export function toPath(loops) {
  if (loops.reduce((total, corners) => total + corners.length / 2, 0) > MOST_CORNERS) return null;
  const path = new Path2D();
  for (const corners of loops) {
    path.moveTo(corners[0], corners[1]);
    for (let i = 2; i < corners.length; i += 2) path.lineTo(corners[i], corners[i + 1]);
    path.closePath();
  }
  return path;
}
