// The mapping between strip and screen. Lengths on the screen are CSS pixels.

const LARGEST_SCALE = 40;
const MARGIN = 60;

export class View {
  /** Screen pixels per strip pixel. */
  scale = 1;
  /** Where the strip's upper left corner lies on the screen. */
  left = 0;
  top = 0;
  #isFit = true;
  #screen = { width: 1, height: 1 };
  #strip = { width: 1, height: 1 };

  /** Take the size of the screen. */
  setScreen(width, height) {
    this.#screen = { width, height };
    this.#settle();
  }

  /** Take the size of a strip, and show the whole of it. */
  setStrip(width, height) {
    this.#strip = { width, height };
    this.fit();
  }

  /** Show the whole strip. */
  fit() {
    this.#isFit = true;
    this.#settle();
  }

  /** Set the scale; the place on the screen stays where it is, by default its middle. */
  zoomTo(scale, x = this.#screen.width / 2, y = this.#screen.height / 2) {
    const smallest = Math.min(1, this.#fitScale());
    const bounded = Math.min(LARGEST_SCALE, Math.max(smallest, scale));
    const [stripX, stripY] = this.toStrip(x, y);
    Object.assign(this, { scale: bounded, left: x - stripX * bounded, top: y - stripY * bounded });
    this.#isFit = false;
    this.#settle();
  }

  zoomBy(factor, x, y) {
    this.zoomTo(this.scale * factor, x, y);
  }

  /** Move the strip on the screen. */
  pan(x, y) {
    this.left += x;
    this.top += y;
    this.#isFit = false;
    this.#settle();
  }

  /** Bring a box of the strip to the middle, as large as leaves something around it. */
  show([x, y, width, height]) {
    const wanted = 0.4 * Math.min(this.#screen.width / width, this.#screen.height / height);
    const scale = Math.min(4, Math.max(wanted, this.#fitScale()));
    this.scale = scale;
    this.left = this.#screen.width / 2 - (x + width / 2) * scale;
    this.top = this.#screen.height / 2 - (y + height / 2) * scale;
    this.#isFit = false;
    this.#settle();
  }

  /** The place of the strip under a place of the screen. */
  toStrip(x, y) {
    return [(x - this.left) / this.scale, (y - this.top) / this.scale];
  }

  #fitScale() {
    const { width, height } = this.#screen;
    return Math.min(width / this.#strip.width, height / this.#strip.height);
  }

  #settle() {
    if (this.#isFit) this.scale = this.#fitScale();
    this.left = settle(this.left, this.#strip.width * this.scale, this.#screen.width);
    this.top = settle(this.top, this.#strip.height * this.scale, this.#screen.height);
  }
}

/** What fits is centred; what does not may leave a margin, so that its ends can be looked at. */
function settle(start, length, room) {
  if (length <= room) return (room - length) / 2;
  return Math.min(MARGIN, Math.max(room - length - MARGIN, start));
}
