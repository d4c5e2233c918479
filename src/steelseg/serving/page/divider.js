// The handle that pulls the heat map over the strip, from the right edge of the stage.

const KEY_STEP = 0.05;
// Beyond this the label of the handle would leave the stage on the left.
const FAR = 0.7;

export class Divider {
  /** Share of the stage that the heat map covers, 0 to 1. */
  share = 0;
  #element;
  #onChange;

  constructor(element, onChange) {
    this.#element = element;
    this.#onChange = onChange;
    element.addEventListener("pointerdown", (event) => {
      element.setPointerCapture(event.pointerId);
      event.preventDefault();
      element.focus();
    });
    element.addEventListener("pointermove", (event) => {
      if (!element.hasPointerCapture(event.pointerId)) return;
      const stage = element.parentElement.getBoundingClientRect();
      this.set(1 - (event.clientX - stage.left) / stage.width);
    });
    element.addEventListener("keydown", (event) => this.#press(event));
    this.set(0);
  }

  set(share) {
    this.share = Math.min(1, Math.max(0, share));
    this.#element.style.left = `${100 * (1 - this.share)}%`;
    this.#element.setAttribute("aria-valuenow", String(Math.round(100 * this.share)));
    this.#element.classList.toggle("pulled", this.share > 0);
    this.#element.classList.toggle("far", this.share > FAR);
    this.#onChange();
  }

  /** Move the heat map halfway over the strip, or away. */
  toggle() {
    this.set(this.share > 0 ? 0 : 0.5);
  }

  #press(event) {
    const places = {
      ArrowLeft: this.share + KEY_STEP,
      ArrowRight: this.share - KEY_STEP,
      Home: 0,
      End: 1,
    };
    if (!(event.key in places)) return;
    event.preventDefault();
    this.set(places[event.key]);
  }
}
