// The status line: how many strips are done, what the page waits for, what went wrong.

import { byId, count, make } from "./dom.js";

export class Status {
  #session;
  #waiting = "";
  #timer = 0;

  constructor(session) {
    this.#session = session;
    for (const kind of ["strips", "strip", "model", "settings"]) {
      session.addEventListener(kind, () => this.#show());
    }
  }

  /** Show that a request waits. */
  wait(reason, seconds) {
    this.#waiting = `${reason}; asking again in ${seconds} s. `;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      this.#waiting = "";
      this.#show();
    }, seconds * 1000);
    this.#show();
  }

  /** Show an error until the next one, or until the user closes it; "" clears it. */
  warn(text) {
    const close = make("button", { type: "button", textContent: "Close" });
    close.addEventListener("click", () => this.warn(""));
    byId("notice").hidden = text === "";
    byId("notice").replaceChildren(text, close);
  }

  #show() {
    const { strips } = this.#session;
    const numberOf = (state) => strips.filter((strip) => strip.state === state).length;
    const [found, failed] = [numberOf("found"), numberOf("failed")];
    const done = found + failed;
    const isBusy = done < strips.length;
    byId("progress").hidden = !isBusy;
    byId("progress").max = Math.max(1, strips.length);
    byId("progress").value = done;
    byId("status").textContent =
      this.#waiting + summarize({ done, found, failed, all: strips.length });
    byId("retry").hidden = failed === 0;
    byId("clear").hidden = strips.length === 0;
    byId("filter").hidden = strips.length === 0;
    byId("refresh").hidden = isBusy || !strips.some((strip) => this.#session.isStale(strip));
    byId("download-csv").disabled = found === 0;
    byId("download-coco").disabled = found === 0;
    byId("strips-title").textContent = strips.length ? `Strips (${strips.length})` : "Strips";
  }
}

function summarize({ done, found, failed, all }) {
  if (all === 0) return "Ready.";
  const wrong = failed ? ` ${count(failed, "strip")} failed: the list says why.` : "";
  if (done < all) return `Finding defects: ${done} of ${all} strips done.${wrong}`;
  return `${found} of ${count(all, "strip")} done.${wrong}`;
}
