// Classes: which outlines and fills are visible, and sliders for threshold and minimum size.

import { colorOf, inkOn } from "./colors.js";
import { byId, make, readable } from "./dom.js";

// The size slider is finer at its lower end: its position is the square root of the size.
const SIZE_STEPS = 100;
// Larger sizes are not useful: nobody filters out defects of a twentieth of the strip.
const LARGEST_SIZE = Math.round((256 * 1600) / 20);

/**
 * Show one row per class.
 *
 * @param session The session that the sliders change.
 * @param shown `outline` and `fill` of each class; changed by the checkboxes.
 * @param onShown Called when a checkbox changes.
 * @returns update(layers, levels), which shows the results.
 */
export function showClasses(session, shown, onShown) {
  const rows = session.model.names.map((name, channel) =>
    makeRow(session, channel, { name, shown: shown[channel], onShown }),
  );
  byId("class-list").replaceChildren(...rows.map((row) => row.element));
  return {
    update: (layers, answer) => rows.forEach((row, k) => row.update(layers[k], answer?.classes[k])),
  };
}

/** A badge with the number of a class in its colour. */
export function makeChip(channel) {
  const chip = make("span", { className: "chip", textContent: channel + 1 });
  chip.style.background = colorOf(channel);
  chip.style.color = inkOn(channel);
  return chip;
}

function makeRow(session, channel, { name, shown, onShown }) {
  const facts = make("span", { className: "facts soft" });
  const reset = make("button", { type: "button", textContent: "Reset", hidden: true });
  reset.setAttribute("aria-label", `Reset ${name} to what the model uses`);
  reset.addEventListener("click", () => session.reset(channel));
  const title = make("strong", { textContent: name, title: name });
  const boxes = ["outline", "fill"].map((part) => makeBox(part, { name, shown, onShown }));
  const controls = [makeThreshold(session, channel, name), makeSize(session, channel, name)];
  const element = make(
    "div",
    { className: "class", role: "group", "aria-label": `Class ${channel + 1}, ${name}` },
    make(
      "div",
      { className: "head" },
      makeChip(channel),
      title,
      facts,
      reset,
      ...boxes.map(elementOf),
    ),
    ...controls.map(elementOf),
  );
  const update = (layer, found) => {
    const isKnown = layer && layer.area !== null;
    const parts = isKnown ? [layer.area ? `${readable(layer.area)} px` : "none"] : [];
    if (found) parts.push(`max ${found.max_probability.toFixed(2)}`);
    facts.textContent = parts.join(", ");
    facts.title = "pixels of its mask, and its highest probability";
    reset.hidden = !session.isTouched(channel);
    for (const part of [...boxes, ...controls]) part.update();
  };
  return { element, update };
}

function elementOf({ element }) {
  return element;
}

function makeBox(part, { name, shown, onShown }) {
  const input = make("input", { type: "checkbox", "aria-label": `${part} of ${name}` });
  input.addEventListener("change", () => {
    shown[part] = input.checked;
    onShown();
  });
  return {
    element: make("label", {}, input, part),
    update: () => (input.checked = shown[part]),
  };
}

function makeThreshold(session, channel, name) {
  return makeControl({
    title: "Threshold",
    label: `threshold of ${name}`,
    slider: { min: 0, max: 1, step: 0.01 },
    number: { min: 0, max: 1, step: "any" },
    get: () => session.settings.threshold[channel],
    set: (value) => session.set("threshold", channel, value),
    toPlace: (value) => value,
    fromPlace: (place) => place,
    // Tuned values have many digits; four are enough to read.
    toText: (value) => String(Number(value.toFixed(4))),
  });
}

function makeSize(session, channel, name) {
  return makeControl({
    title: "Min size",
    label: `smallest size of ${name} in pixels`,
    slider: { min: 0, max: SIZE_STEPS, step: 1 },
    number: { min: 0, step: 1 },
    get: () => session.settings.min_size[channel],
    set: (value) => session.set("min_size", channel, Math.round(value)),
    toPlace: (value) => SIZE_STEPS * Math.sqrt(value / LARGEST_SIZE),
    fromPlace: (place) => LARGEST_SIZE * (place / SIZE_STEPS) ** 2,
    toText: String,
  });
}

/** A slider and a number box for one setting. */
function makeControl({ title, label, slider, number, get, set, toPlace, fromPlace, toText }) {
  const range = make("input", { type: "range", ...slider, "aria-label": label });
  const box = make("input", { type: "number", ...number, "aria-label": `${label}, as a number` });
  range.addEventListener("input", () => set(fromPlace(range.valueAsNumber)));
  box.addEventListener("change", () => {
    if (box.value !== "" && box.validity.valid) set(box.valueAsNumber);
    box.value = toText(get());
  });
  return {
    element: make("div", { className: "control" }, make("span", {}, title), range, box),
    update: () => {
      // A slider that is being moved is already in position.
      if (get() !== fromPlace(range.valueAsNumber)) range.value = toPlace(get());
      range.setAttribute("aria-valuetext", toText(get()));
      if (document.activeElement !== box) box.value = toText(get());
    },
  };
}
