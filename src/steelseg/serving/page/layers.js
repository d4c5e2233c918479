// What is drawn of each class: the server's masks if they were made with the current settings,
// otherwise masks from the probabilities, which were sent once.

import { maskTable } from "./colors.js";
import { binarize } from "./masks.js";
import { rim, toPath, trace } from "./outlines.js";
import { drawPicture } from "./picture.js";
import { decode } from "./rle.js";

const NOTHING = { path: null, pictures: null };

/**
 * Make the layer of each class.
 *
 * @param look Result of `openLook`.
 * @param before The previous layers; those that are still valid are kept.
 * @returns For each class: path or pictures, area (null: unknown), defects ({channel, box, area,
 *   score}), isExact (whether the masks are the server's), and key, which identifies its inputs.
 */
export function makeLayers(session, look, before) {
  return session.model.names.map((_, channel) =>
    makeLayer(session, look, channel, before[channel]),
  );
}

function makeLayer(session, look, channel, before) {
  const { strip, levels } = look;
  const settings = settingsOf(session, channel);
  const isExact = session.isExact(strip, channel);
  // Without probabilities the old result is shown until the new one arrives.
  const isAnswered = isExact || (!levels && strip.answer !== null);
  if (!isAnswered && !levels) return { key: "", ...NOTHING, area: null, defects: [], isExact };
  const made = isExact || !isAnswered ? JSON.stringify(settings) : "old";
  const key = [session.model.sha256, strip.name, isAnswered, made].join(" ");
  if (before?.key === key) return before;
  const found = isAnswered
    ? fromAnswer(strip.answer, channel)
    : fromLevels(look, channel, settings);
  const { height, width } = isAnswered ? strip.answer : look;
  const drawn = found.area ? draw(found.mask, height, width, channel) : NOTHING;
  const defects = found.defects.map(({ box, area, score }) => ({ channel, box, area, score }));
  return { key, ...drawn, area: found.area, defects, isExact };
}

/** A mask as a path, or as pictures if it is made of thousands of specks. */
function draw(mask, height, width, channel) {
  const path = toPath(trace(mask, height, width));
  if (path) return { path, pictures: null };
  const toPicture = (one) => drawPicture([one], height, width, maskTable(channel));
  return { path, pictures: { fill: toPicture(mask), outline: toPicture(rim(mask, width)) } };
}

function settingsOf({ model, settings }, channel) {
  const own = {};
  for (const [name, values] of Object.entries({ ...model.filters, ...settings })) {
    own[name] = values[channel];
  }
  return own;
}

function fromAnswer(answer, channel) {
  const { rle, area } = answer.classes[channel];
  const defects = answer.defects.filter((defect) => defect.class === channel + 1);
  return { mask: area ? decode(rle, answer.height, answer.width) : null, area, defects };
}

function fromLevels({ levels, height, width }, channel, settings) {
  const { mask, defects } = binarize(levels[channel], height, width, settings);
  return { mask, defects, area: defects.reduce((total, defect) => total + defect.area, 0) };
}

/** All defects of the layers, from left to right. */
export function defectsOf(layers) {
  const defects = layers.flatMap((layer) => layer.defects);
  return defects.sort((a, b) => a.box[0] - b.box[0] || a.box[1] - b.box[1]);
}
