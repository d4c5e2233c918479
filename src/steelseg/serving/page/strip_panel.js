// The list of strips: the result of each, or what went wrong.

import { byId, count, make } from "./dom.js";

const STATES = { waiting: "waiting", working: "looking ..." };

export class StripPanel {
  #session;
  #rows = new Map();

  constructor(session) {
    this.#session = session;
    session.addEventListener("strips", () => this.#fill());
    session.addEventListener("strip", (event) => this.#update(event.detail));
    session.addEventListener("settings", () => session.strips.forEach((s) => this.#update(s)));
    session.addEventListener("current", () => this.#mark());
    session.addEventListener("filter", () => session.strips.forEach((s) => this.#update(s)));
    byId("filter").addEventListener("change", (event) => session.setFilter(event.target.value));
  }

  #fill() {
    this.#rows = new Map(this.#session.strips.map((strip) => [strip, this.#makeRow(strip)]));
    byId("strip-list").replaceChildren(...Array.from(this.#rows.values(), (row) => row.item));
    for (const strip of this.#session.strips) this.#update(strip);
    this.#mark();
  }

  #makeRow(strip) {
    const state = make("span", { className: "state" });
    const button = make(
      "button",
      { type: "button" },
      make("span", { className: "name" }, strip.name),
      state,
    );
    button.addEventListener("click", () => this.#session.select(strip));
    return { item: make("li", {}, button), button, state };
  }

  #update(strip) {
    const row = this.#rows.get(strip);
    if (!row) return;
    row.item.hidden = !this.#session.isListed(strip);
    const text = this.#textOf(strip);
    if (text === row.state.textContent) return;
    row.state.textContent = text;
    row.button.classList.toggle("failed", strip.state === "failed");
    row.button.classList.toggle("clean", strip.state === "found" && !strip.answer.defects.length);
    row.button.classList.toggle("stale", this.#session.isStale(strip));
  }

  #textOf(strip) {
    if (strip.state === "failed") return `Failed: ${strip.reason}`;
    if (strip.state !== "found") return STATES[strip.state];
    const { length } = strip.answer.defects;
    const found = length ? count(length, "defect") : "no defect";
    return this.#session.isStale(strip) ? `${found}, with other settings` : found;
  }

  #mark() {
    for (const [strip, { button }] of this.#rows) {
      const isCurrent = strip === this.#session.current;
      button.setAttribute("aria-current", String(isCurrent));
      if (isCurrent) button.scrollIntoView({ block: "nearest" });
    }
  }
}
