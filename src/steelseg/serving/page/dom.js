// Find and create elements of the page.

/** The element with an id. */
export function byId(id) {
  return document.getElementById(id);
}

/**
 * Create an element.
 *
 * @param properties Properties; names with a dash are attributes.
 * @param children Elements and texts.
 */
export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.includes("-")) element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children);
  return element;
}

/** Format a number for people. */
export function readable(number, digits = 0) {
  const fraction = { minimumFractionDigits: digits, maximumFractionDigits: digits };
  return number.toLocaleString("en", fraction);
}

/** "1 strip", "2 strips". */
export function count(number, word) {
  return `${readable(number)} ${word}${number === 1 ? "" : "s"}`;
}
