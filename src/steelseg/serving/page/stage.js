// The strip on the screen: canvas, zoom, heat map, and what is under the pointer.

import { heatTable } from "./colors.js";
import { Divider } from "./divider.js";
import { byId } from "./dom.js";
import { listen } from "./gestures.js";
import { paint } from "./paint.js";
import { drawPicture } from "./picture.js";
import { View } from "./view.js";

const KEY_ZOOM = 1.25;

export class Stage {
  view = new View();
  #canvas = byId("canvas");
  #look = null;
  #scene = { layers: [], defects: [], shown: [], chosen: null };
  #heat = { key: "", canvas: null };
  #isDrawn = true;

  /**
   * @param onTap Called with the tapped defect, or null.
   */
  constructor({ onTap }) {
    this.divider = new Divider(byId("divider"), () => this.draw());
    drawScale(byId("legend-bar"));
    listen(this.#canvas, {
      pan: (x, y) => this.#move(() => this.view.pan(x, y)),
      zoom: (factor, x, y) => this.#move(() => this.view.zoomBy(factor, x, y)),
      double: (x, y) => this.#move(() => this.view.zoomTo(1, x, y)),
      tap: (x, y) => onTap(this.#defectAt(x, y)),
      hover: (x, y) => this.#tellUnder(x, y),
    });
    new ResizeObserver(() => this.#resize()).observe(byId("stage"));
    byId("heat-class").addEventListener("change", () => this.draw());
    byId("zoom-in").addEventListener("click", () => this.zoomIn());
    byId("zoom-out").addEventListener("click", () => this.zoomOut());
    byId("zoom-fit").addEventListener("click", () => this.fit());
    byId("zoom-full").addEventListener("click", () => this.full());
  }

  fit() {
    this.#move(() => this.view.fit());
  }

  full() {
    this.#move(() => this.view.zoomTo(1));
  }

  zoomIn() {
    this.#move(() => this.view.zoomBy(KEY_ZOOM));
  }

  zoomOut() {
    this.#move(() => this.view.zoomBy(1 / KEY_ZOOM));
  }

  pan(x, y) {
    this.#move(() => this.view.pan(x, y));
  }

  goTo(defect) {
    this.#move(() => this.view.show(defect.box));
  }

  /** Show a strip, or that there is none. */
  setLook(look) {
    const isNew = look?.bitmap && look.bitmap !== this.#scene.bitmap;
    this.#look = look;
    this.#scene.bitmap = look?.bitmap ?? null;
    if (isNew) this.view.setStrip(look.width, look.height);
    byId("divider").hidden = !look?.levels;
    byId("heat-class").disabled = !look?.levels;
    // The server's reason says more than the browser's.
    const problem = look?.strip.reason || look?.problem || "";
    byId("problem").hidden = problem === "";
    byId("problem").textContent = problem;
    byId("under").textContent = look?.bitmap ? `${look.width} × ${look.height} pixels` : "\u00a0";
    this.draw();
  }

  /** Update layers, defects, shown or chosen. */
  set(change) {
    Object.assign(this.#scene, change);
    this.draw();
  }

  /** Draw before the next frame. */
  draw() {
    if (!this.#isDrawn) return;
    this.#isDrawn = false;
    requestAnimationFrame(() => {
      this.#isDrawn = true;
      this.#draw();
    });
  }

  #draw() {
    byId("zoom").textContent = this.#look ? `${Math.round(100 * this.view.scale)} %` : "";
    const isHeat = Boolean(this.#look?.levels) && this.divider.share > 0;
    byId("legend").hidden = !isHeat;
    paint(this.#canvas, this.view, {
      ...this.#scene,
      height: this.#look?.height ?? 0,
      width: this.#look?.width ?? 0,
      heat: isHeat ? this.#heatMap() : null,
      heatFrom: (1 - this.divider.share) * this.#canvas.clientWidth,
    });
  }

  #heatMap() {
    const { strip, levels, height, width } = this.#look;
    const wanted = byId("heat-class").value;
    const key = `${strip.name} ${wanted}`;
    if (this.#heat.key !== key || this.#heat.levels !== levels) {
      const chosen = wanted === "all" ? levels : [levels[Number(wanted)]];
      const canvas = drawPicture(chosen, height, width, heatTable());
      this.#heat = { key, levels, canvas };
    }
    return this.#heat.canvas;
  }

  #move(change) {
    change();
    this.draw();
  }

  #resize() {
    const { clientWidth, clientHeight } = byId("stage");
    this.#canvas.width = Math.round(clientWidth * devicePixelRatio);
    this.#canvas.height = Math.round(clientHeight * devicePixelRatio);
    this.view.setScreen(clientWidth, clientHeight);
    // Immediately, because setting the size of a canvas clears it.
    this.#draw();
  }

  #defectAt(screenX, screenY) {
    const [x, y] = this.view.toStrip(screenX, screenY);
    const under = this.#scene.defects.filter(
      ({ box }) => x >= box[0] && y >= box[1] && x < box[0] + box[2] && y < box[1] + box[3],
    );
    return under.sort((a, b) => a.area - b.area)[0] ?? null;
  }

  #tellUnder(screenX, screenY) {
    if (!this.#look?.bitmap) return;
    const { levels, width, height } = this.#look;
    const [x, y] = this.view.toStrip(screenX, screenY).map(Math.floor);
    if (x < 0 || y < 0 || x >= width || y >= height) return;
    const probs = levels?.map((one, k) => `${k + 1}: ${(one[y * width + x] / 255).toFixed(2)}`);
    const text = [`x ${x}, y ${y}`, ...(probs ? [`probability of class ${probs.join("  ")}`] : [])];
    byId("under").textContent = text.join("   ");
  }
}

/** Draw the colours from 0 to 1 on a canvas of 256x1 pixels. */
function drawScale(canvas) {
  const levels = Uint8Array.from({ length: 256 }, (_, level) => level);
  canvas.getContext("2d").drawImage(drawPicture([levels], 1, 256, heatTable()), 0, 0);
}
