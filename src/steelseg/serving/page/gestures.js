// Mouse, pen and fingers on the canvas: drag to move, wheel or pinch to zoom, tap to choose.

const TAP_PIXELS = 6;
const WHEEL_SPEED = 0.0015;
const LINE_PIXELS = 16;

/**
 * Listen to the pointers of an element.
 *
 * @param on pan(x, y), zoom(factor, x, y), tap(x, y), double(x, y) and hover(x, y), in CSS pixels
 *   of the element.
 */
export function listen(element, on) {
  const pointers = new Map();
  let moved = 0;
  const placeOf = (event) => {
    const edge = element.getBoundingClientRect();
    return { x: event.clientX - edge.left, y: event.clientY - edge.top };
  };

  element.addEventListener("pointerdown", (event) => {
    if (event.pointerType === "mouse" && event.button !== 0) return;
    element.setPointerCapture(event.pointerId);
    if (pointers.size === 0) moved = 0;
    pointers.set(event.pointerId, placeOf(event));
  });

  element.addEventListener("pointermove", (event) => {
    const place = placeOf(event);
    on.hover(place.x, place.y);
    if (!pointers.has(event.pointerId)) return;
    const before = grip(pointers);
    const old = pointers.get(event.pointerId);
    moved += Math.hypot(place.x - old.x, place.y - old.y);
    pointers.set(event.pointerId, place);
    const after = grip(pointers);
    on.pan(after.x - before.x, after.y - before.y);
    if (before.spread && after.spread) on.zoom(after.spread / before.spread, after.x, after.y);
  });

  element.addEventListener("pointerup", (event) => {
    if (!pointers.delete(event.pointerId) || pointers.size) return;
    const { x, y } = placeOf(event);
    if (moved < TAP_PIXELS) on.tap(x, y);
  });
  element.addEventListener("pointercancel", (event) => pointers.delete(event.pointerId));
  element.addEventListener("dblclick", (event) => {
    const { x, y } = placeOf(event);
    on.double(x, y);
  });

  element.addEventListener(
    "wheel",
    (event) => {
      event.preventDefault();
      const { x, y } = placeOf(event);
      const unit = event.deltaMode === WheelEvent.DOM_DELTA_LINE ? LINE_PIXELS : 1;
      if (event.shiftKey) on.pan(-(event.deltaX || event.deltaY) * unit, 0);
      // A pinch on a touch pad arrives as a wheel event with Ctrl, in small steps.
      else on.zoom(Math.exp(-event.deltaY * unit * WHEEL_SPEED * (event.ctrlKey ? 8 : 1)), x, y);
    },
    { passive: false },
  );
}

/** The centre of the fingers, and the distance between two of them. */
function grip(pointers) {
  const [one, two = one] = pointers.values();
  return {
    x: (one.x + two.x) / 2,
    y: (one.y + two.y) / 2,
    spread: Math.hypot(one.x - two.x, one.y - two.y),
  };
}
