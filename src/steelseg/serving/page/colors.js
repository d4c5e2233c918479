// Colours that colour-blind people can distinguish, the same as in overlays and reports.

// Martin Krzywinski's twelve colours, in the order of `steelseg.writers.overlays.PALETTE`.
const PALETTE = [
  [255, 195, 59],
  [0, 141, 249],
  [226, 1, 52],
  [0, 252, 207],
  [255, 178, 253],
  [132, 0, 205],
  [255, 110, 58],
  [0, 159, 129],
  [0, 194, 249],
  [255, 90, 175],
  [164, 1, 34],
  [159, 1, 98],
];

// Inferno (Smith and van der Walt 2015) at every 32nd level: brighter is more
// probable, also without colour vision.
const HEAT = [
  [0, 0, 4],
  [33, 12, 74],
  [87, 16, 110],
  [138, 34, 106],
  [188, 55, 84],
  [228, 90, 49],
  [249, 142, 9],
  [249, 203, 53],
  [252, 255, 164],
];

/** Red, green and blue of a class, 0 to 255. */
export function rgbOf(channel) {
  return PALETTE[channel % PALETTE.length];
}

/** The colour of a class, as CSS writes it. */
export function colorOf(channel, alpha = 1) {
  return `rgb(${rgbOf(channel).join(" ")} / ${alpha})`;
}

/** Black or white, whichever is easier to read on the colour of a class. */
export function inkOn(channel) {
  const [red, green, blue] = rgbOf(channel);
  return 0.299 * red + 0.587 * green + 0.114 * blue > 140 ? "#000" : "#fff";
}

/** Red, green, blue and opacity of each level of a heat map. */
export function heatTable() {
  const table = new Uint8ClampedArray(256 * 4).fill(255);
  for (let level = 0; level < 256; level++) {
    const place = (level / 255) * (HEAT.length - 1);
    const below = Math.min(Math.floor(place), HEAT.length - 2);
    for (let i = 0; i < 3; i++) {
      const rise = HEAT[below + 1][i] - HEAT[below][i];
      table[4 * level + i] = HEAT[below][i] + (place - below) * rise;
    }
  }
  return table;
}

/** Red, green, blue and opacity of a mask: 0 is transparent, 1 the colour of a class. */
export function maskTable(channel) {
  return Uint8ClampedArray.of(0, 0, 0, 0, ...rgbOf(channel), 255);
}
