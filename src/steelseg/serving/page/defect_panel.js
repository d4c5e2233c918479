// The list of defects of a strip, with position and area; a click shows the defect.

import { makeChip } from "./class_panel.js";
import { byId, make, readable } from "./dom.js";

// A threshold near 0 gives thousands of specks, which are not worth listing.
const MOST_ROWS = 300;

export class DefectPanel {
  #onChoose;
  #rows = [];
  #listed = [];

  /**
   * @param onChoose Called with the chosen defect.
   */
  constructor({ onChoose }) {
    this.#onChoose = onChoose;
  }

  /**
   * List defects.
   *
   * @param defects From left to right.
   * @param model Has the class names and the pixel size.
   * @param none Text if there is no defect.
   */
  show(defects, model, none) {
    this.#listed = largest(defects, MOST_ROWS);
    this.#rows = this.#listed.map((defect) => this.#makeRow(defect, model));
    const items = this.#rows.map((row) => make("li", {}, row));
    if (defects.length > MOST_ROWS) {
      const text = `The largest ${MOST_ROWS} of ${readable(defects.length)} are listed.`;
      items.unshift(make("li", { className: "soft" }, text));
    }
    if (defects.length === 0) items.push(make("li", { className: "soft" }, none));
    byId("defect-list").replaceChildren(...items);
    const many = defects.length ? ` (${readable(defects.length)})` : "";
    byId("defects-title").textContent = `Defects${many}`;
  }

  /** Highlight the chosen defect. */
  mark(chosen) {
    this.#rows.forEach((row, i) => {
      const isChosen = this.#listed[i] === chosen;
      row.setAttribute("aria-current", String(isChosen));
      if (isChosen) row.scrollIntoView({ block: "nearest" });
    });
  }

  /** The defect after the chosen one, or before it; the first or last if none is chosen. */
  beside(chosen, by) {
    const at = this.#listed.indexOf(chosen);
    if (at < 0) return this.#listed.at(by > 0 ? 0 : -1);
    return this.#listed[at + by];
  }

  #makeRow(defect, model) {
    const [place, size] = describe(defect, model.pixelMm);
    const row = make(
      "button",
      { type: "button" },
      makeChip(defect.channel),
      make(
        "span",
        { className: "name", title: model.names[defect.channel] },
        model.names[defect.channel],
      ),
      make("span", { className: "place" }, place),
      make("span", { className: "size" }, size),
      make("span", { className: "score", title: "mean probability" }, defect.score.toFixed(2)),
    );
    row.addEventListener("click", () => this.#onChoose(defect));
    return row;
  }
}

/** The largest defects, in the original order. */
function largest(defects, most) {
  if (defects.length <= most) return defects;
  const kept = new Set(defects.toSorted((a, b) => b.area - a.area).slice(0, most));
  return defects.filter((defect) => kept.has(defect));
}

/** Position and area as text, in millimetres if the pixel size is known. */
function describe({ box: [x, y], area }, pixelMm) {
  const pixels = [`x ${readable(x)}, y ${readable(y)}`, `${readable(area)} px`];
  if (!pixelMm) return pixels;
  const [across, down] = [x * pixelMm, y * pixelMm];
  return [
    `${readable(across, 1)}, ${readable(down, 1)} mm`,
    `${readable(area * pixelMm ** 2, 1)} mm²`,
  ];
}
