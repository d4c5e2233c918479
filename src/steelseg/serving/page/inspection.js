// The current strip: keeps picture, layers and lists in sync with the session.

import { showClasses } from "./class_panel.js";
import { DefectPanel } from "./defect_panel.js";
import { byId, make } from "./dom.js";
import { defectsOf, makeLayers } from "./layers.js";
import { openLook } from "./look.js";
import { Stage } from "./stage.js";

// After this long without movement of a slider, the server predicts.
const REST_MS = 400;

export class Inspection {
  stage = new Stage({ onTap: (defect) => this.#choose(defect) });
  #session;
  #queue;
  #onWait;
  #look = null;
  #layers = [];
  #shown = [];
  #defects = [];
  #chosen = null;
  #classes = null;
  #timer = 0;
  #panel = new DefectPanel({
    onChoose: (defect) => {
      this.#choose(defect);
      this.stage.goTo(defect);
    },
  });

  constructor(session, queue, { onWait }) {
    this.#session = session;
    this.#queue = queue;
    this.#onWait = onWait;
    session.addEventListener("model", () => this.#showModel());
    session.addEventListener("current", () => this.#open());
    session.addEventListener("settings", () => this.#refresh());
    session.addEventListener("strip", ({ detail }) => {
      if (detail === session.current) this.#refresh();
    });
    for (const kind of ["current", "strips", "strip", "filter"]) {
      session.addEventListener(kind, () => this.#showWays());
    }
  }

  /** Go to the next or previous defect. */
  step(by) {
    const defect = this.#panel.beside(this.#chosen, by);
    if (!defect) return;
    this.#choose(defect);
    this.stage.goTo(defect);
  }

  /** Show or hide a class. */
  toggleClass(channel) {
    const shown = this.#shown[channel];
    if (!shown) return;
    const isOn = shown.outline || shown.fill;
    Object.assign(shown, { outline: !isOn, fill: !isOn });
    this.#showLayers();
  }

  /** Show or hide `outline` or `fill` of all classes. */
  showAll(part, isOn) {
    for (const shown of this.#shown) shown[part] = isOn;
    this.#showLayers();
  }

  #showModel() {
    const { names } = this.#session.model;
    this.#layers = [];
    this.#shown = names.map(() => ({ outline: true, fill: true }));
    this.#classes = showClasses(this.#session, this.#shown, () => this.#showLayers());
    byId("heat-class").replaceChildren(
      make("option", { value: "all" }, "any class"),
      ...names.map((name, k) => make("option", { value: k }, `${k + 1} ${name}`)),
    );
    this.stage.set({ shown: this.#shown });
  }

  #open() {
    const { current, strips } = this.#session;
    this.#look?.end();
    this.#chosen = null;
    this.#look = current
      ? openLook(current, { onChange: () => this.#refresh(), onWait: this.#onWait })
      : null;
    byId("invitation").hidden = current !== null;
    byId("strip-name").textContent = current?.name ?? "No strip yet";
    const place = strips.indexOf(current);
    byId("strip-place").textContent = current ? `${place + 1} of ${strips.length}` : "";
    byId("download-overlay").disabled = !current;
    this.#queue.run();
    this.#refresh();
  }

  /** Enable the arrows if there is a strip to go to. */
  #showWays() {
    byId("previous").disabled = !this.#session.beside(-1);
    byId("next").disabled = !this.#session.beside(1);
  }

  /** Update everything on the screen. */
  #refresh() {
    if (!this.#session.model) return;
    this.stage.setLook(this.#look);
    this.#layers = this.#look ? makeLayers(this.#session, this.#look, this.#layers) : [];
    const defects = defectsOf(this.#layers);
    this.#chosen = defects.find((defect) => isSame(defect, this.#chosen)) ?? null;
    this.#defects = defects;
    this.#panel.show(defects, this.#session.model, this.#none());
    this.#panel.mark(this.#chosen);
    byId("exactness").textContent = this.#exactness();
    byId("reset").hidden = !this.#session.isTouched();
    this.#showLayers();
    this.#askWhenAtRest();
  }

  #showLayers() {
    this.#classes.update(this.#layers, this.#look?.strip.answer);
    byId("all-outlines").checked = this.#shown.some((shown) => shown.outline);
    byId("all-fills").checked = this.#shown.some((shown) => shown.fill);
    this.stage.set({ layers: this.#layers, defects: this.#defects, chosen: this.#chosen });
  }

  #none() {
    const { state } = this.#session.current ?? {};
    return state === "found" ? "No defect with these settings." : "";
  }

  #exactness() {
    const strip = this.#look?.strip;
    if (!strip || strip.state === "failed") return "";
    if (this.#layers.every((layer) => layer.isExact)) return "";
    return strip.answer ? "drawn here; asking the server ..." : "asking the server ...";
  }

  /** Let the server predict with the current settings, once they no longer change. */
  #askWhenAtRest() {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      const { current } = this.#session;
      if (current && this.#session.isStale(current)) this.#queue.askAgain([current]);
    }, REST_MS);
  }

  #choose(defect) {
    this.#chosen = defect;
    this.#panel.mark(defect);
    this.#showLayers();
  }
}

function isSame(defect, other) {
  return defect.channel === other?.channel && String(defect.box) === String(other?.box);
}
