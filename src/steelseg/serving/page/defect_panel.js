// The list of defects of a strip, with place and area; a click goes there.

import { makeChip } from "./class_panel.js";
import { byId, make, readable } from "./dom.js";

// A threshold near 0 makes thousands of specks; who wants to see those lowers nothing by it.
const MOST_ROWS = 300;

export class DefectPanel {
  #onChoose;
  #rows = [];
  #listed = [];

  /**
   * @param onChoose Told which defect was chosen.
   */
  constructor({ onChoose }) {
    this.#onChoose = onChoose;
  }

  /**
   * List defects.
   *
   * @param defects From left to right.
   * @param model For the names of classes and the size of a pixel.
   * @param none What stands there when there is no defect.
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

  /** Show which defect is chosen. */
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

/** The largest defects, in their order. */
function largest(defects, most) {
  if (defects.length <= most) return defects;
  const kept = new Set(defects.toSorted((a, b) => b.area - a.area).slice(0, most));
  return defects.filter((defect) => kept.has(defect));
}

/** Place and area as text, in millimetres where the size of a pixel is known. */
function describe({ box: [x, y], area }, pixelMm) {
  const pixels = [`x ${readable(x)}, y ${readable(y)}`, `${readable(area)} px`];
  if (!pixelMm) return pixels;
  const [across, down] = [x * pixelMm, y * pixelMm];
  return [
    `${readable(across, 1)}, ${readable(down, 1)} mm`,
    `${readable(area * pixelMm ** 2, 1)} mm²`,
  ];
}
