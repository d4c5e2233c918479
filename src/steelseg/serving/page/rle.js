// Masks as Kaggle writes them: "start length ...", counted from 1, down then right.
// A mask here is a Uint8Array of height * width, 0 or 1, row by row.

/** Pairs of start (from 0) and length, flat. */
function numbers(rle) {
  return rle === "" ? [] : rle.split(" ").map((text, i) => Number(text) - (i % 2 === 0 ? 1 : 0));
}

/** Draw an RLE string. */
export function decode(rle, height, width) {
  const mask = new Uint8Array(height * width);
  const runs = numbers(rle);
  for (let i = 0; i < runs.length; i += 2) {
    const end = runs[i] + runs[i + 1];
    for (let at = runs[i]; at < end; at++) {
      mask[(at % height) * width + Math.floor(at / height)] = 1;
    }
  }
  return mask;
}

/** Convert an RLE string to COCO counts: alternating lengths of zeros and ones, zeros first. */
export function cocoCounts(rle, pixels) {
  const counts = [];
  const runs = numbers(rle);
  let end = 0;
  for (let i = 0; i < runs.length; i += 2) {
    counts.push(runs[i] - end, runs[i + 1]);
    end = runs[i] + runs[i + 1];
  }
  if (end < pixels) counts.push(pixels - end);
  return counts;
}
