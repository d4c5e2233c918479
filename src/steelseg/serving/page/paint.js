// Draws a strip on the canvas: pixels, heat map, fills, outlines, numbers, the chosen defect.

import { colorOf, inkOn } from "./colors.js";

const [FILL, RIM, HEAT] = [0.3, 0.8, 0.9];
// More numbers would hide the strip.
const MOST_NUMBERS = 60;

/**
 * Draw everything.
 *
 * @param scene bitmap, height and width of the strip; layers; shown, with `outline` and `fill` of
 *   each class; defects; chosen, one of them or null; heat, a canvas or null; heatFrom, the position
 *   on the screen where the heat map begins, in CSS pixels.
 */
export function paint(canvas, view, scene) {
  const context = canvas.getContext("2d");
  const ratio = devicePixelRatio;
  const toScreen = () => context.setTransform(ratio, 0, 0, ratio, 0, 0);
  const toStrip = () => {
    const scale = view.scale * ratio;
    context.setTransform(scale, 0, 0, scale, view.left * ratio, view.top * ratio);
  };
  toScreen();
  context.clearRect(0, 0, canvas.width, canvas.height);
  toStrip();
  paintPixels(context, scene, { isSmooth: view.scale * ratio < 2 });
  if (scene.heat) {
    context.save();
    toScreen();
    context.beginPath();
    context.rect(scene.heatFrom, 0, canvas.width, canvas.height);
    context.clip();
    toStrip();
    paintHeat(context, scene);
    context.restore();
  }
  paintLayers(context, view, scene);
  toScreen();
  paintNumbers(context, view, scene);
  if (scene.chosen) paintChosen(context, view, scene.chosen);
}

function paintPixels(context, { bitmap, width, height }, { isSmooth }) {
  context.imageSmoothingEnabled = isSmooth;
  context.imageSmoothingQuality = "medium";
  if (bitmap) {
    context.drawImage(bitmap, 0, 0);
  } else {
    context.fillStyle = "#ddd";
    context.fillRect(0, 0, width, height);
  }
}

function paintHeat(context, { heat, width, height }) {
  context.globalAlpha = HEAT;
  context.drawImage(heat, 0, 0, width, height);
}

function paintLayers(context, view, { layers, shown, width, height }) {
  layers.forEach(({ pictures }, channel) => {
    for (const [part, alpha] of [
      ["fill", FILL],
      ["outline", RIM],
    ]) {
      if (!pictures || !shown[channel][part]) continue;
      context.globalAlpha = alpha;
      context.drawImage(pictures[part], 0, 0, width, height);
    }
  });
  context.globalAlpha = 1;
  layers.forEach(({ path }, channel) => {
    if (!path || !shown[channel].fill) return;
    context.fillStyle = colorOf(channel, FILL);
    context.fill(path, "evenodd");
  });
  context.lineJoin = "round";
  layers.forEach(({ path }, channel) => {
    if (!path || !shown[channel].outline) return;
    // A dark line next to the colour, so that it is visible on bright steel.
    stroke(context, path, { color: "rgb(0 0 0 / 0.55)", width: 3.4 / view.scale });
    stroke(context, path, { color: colorOf(channel), width: 1.8 / view.scale });
  });
}

function stroke(context, path, { color, width }) {
  context.strokeStyle = color;
  context.lineWidth = width;
  context.stroke(path);
}

function paintNumbers(context, view, { defects, shown }) {
  const visible = defects.filter(({ channel }) => shown[channel].outline || shown[channel].fill);
  const largest = visible.toSorted((a, b) => b.area - a.area).slice(0, MOST_NUMBERS);
  context.font = "bold 12px system-ui, sans-serif";
  context.textAlign = "center";
  context.textBaseline = "middle";
  for (const { channel, box } of largest) {
    const bottom = (box[1] + box[3]) * view.scale + view.top;
    if (bottom < 0) continue;
    const text = String(channel + 1);
    const width = context.measureText(text).width + 9;
    const [x, y] = [box[0] * view.scale + view.left, box[1] * view.scale + view.top - 18];
    context.fillStyle = colorOf(channel);
    context.fillRect(x, Math.max(0, y), width, 16);
    context.fillStyle = inkOn(channel);
    context.fillText(text, x + width / 2, Math.max(0, y) + 8.5);
  }
}

function paintChosen(context, view, { box }) {
  const [x, y] = [box[0] * view.scale + view.left - 5, box[1] * view.scale + view.top - 5];
  const [width, height] = [box[2] * view.scale + 10, box[3] * view.scale + 10];
  context.lineWidth = 2;
  for (const [color, dash] of [
    ["#000", []],
    ["#fff", [7, 5]],
  ]) {
    context.setLineDash(dash);
    context.strokeStyle = color;
    context.strokeRect(x, y, width, height);
  }
  context.setLineDash([]);
}
