// The keyboard: what each key does, and the help table.

import { byId, make } from "./dom.js";

/**
 * Listen to keys.
 *
 * @param actions A list of {keys, text, run}; `run` gets the key. Key names are those of the
 *   browser; `shown` is the name for the user.
 */
export function listenToKeys(actions) {
  const runs = new Map(actions.flatMap(({ keys, run }) => keys.map((key) => [key, run])));
  document.addEventListener("keydown", (event) => {
    const run = runs.get(event.key);
    if (!run || event.ctrlKey || event.metaKey || event.altKey || isTaken(event)) return;
    event.preventDefault();
    run(event.key);
  });
  byId("keys").replaceChildren(
    ...actions.map(({ keys, shown, text }) =>
      make(
        "tr",
        {},
        make("th", { scope: "row" }, shown ?? keys.join(" or ")),
        make("td", {}, text),
      ),
    ),
  );
}

/** Whether the focused element needs the key itself. */
function isTaken({ key, target, defaultPrevented }) {
  if (defaultPrevented || byId("help").open) return true;
  if (target.matches("select, input[type=number]")) return true;
  const isMoving = key.startsWith("Arrow") || key.startsWith("Page");
  return isMoving && target !== document.body && target.id !== "canvas";
}
