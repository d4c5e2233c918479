// Levels from 0 to 255 as a picture over the strip: probabilities as a heat map, or a mask.

// Every browser supports this canvas size; of larger strips every second or third pixel is drawn.
const [MOST_PIXELS, LONGEST_SIDE] = [16_000_000, 16_000];

/**
 * Draw levels.
 *
 * @param levels Arrays of height * width levels; of several the maximum is drawn.
 * @param colors Red, green, blue and opacity of each level.
 * @returns A canvas, as large as the strip or a whole fraction of it.
 */
export function drawPicture(levels, height, width, colors) {
  const step = Math.ceil(
    Math.max(
      Math.sqrt((height * width) / MOST_PIXELS),
      height / LONGEST_SIDE,
      width / LONGEST_SIDE,
    ),
  );
  const [rows, columns] = [Math.ceil(height / step), Math.ceil(width / step)];
  const picture = new ImageData(columns, rows);
  const pixels = new Uint32Array(picture.data.buffer);
  const table = new Uint32Array(colors.buffer);
  for (let row = 0, to = 0; row < rows; row++) {
    let from = row * step * width;
    for (let column = 0; column < columns; column++, to++, from += step) {
      let level = 0;
      for (const one of levels) if (one[from] > level) level = one[from];
      pixels[to] = table[level];
    }
  }
  const canvas = document.createElement("canvas");
  canvas.width = columns;
  canvas.height = rows;
  canvas.getContext("2d").putImageData(picture, 0, 0);
  return canvas;
}
