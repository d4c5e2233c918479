// The queue of strips to predict: a few at a time, the one on the screen first.

import { fetchDefects, RequestError } from "./api.js";

const AT_ONCE = 2;

export class Queue {
  #session;
  #onWait;
  #onSwap;
  #running = 0;
  #whenIdle = [];

  /**
   * @param onWait Called with the reason and the number of seconds that a request waits.
   * @param onSwap Called when another model answers; returns a promise that the session has it.
   */
  constructor(session, { onWait, onSwap }) {
    this.#session = session;
    this.#onWait = onWait;
    this.#onSwap = onSwap;
  }

  /** Continue while strips are waiting. */
  run() {
    while (this.#running < AT_ONCE && this.#next()) this.#work();
  }

  /** Queue strips again, and continue. */
  askAgain(strips) {
    for (const strip of strips) this.#session.update(strip, { state: "waiting", reason: "" });
    this.run();
  }

  /** Predict every strip with the current settings. */
  async refresh() {
    for (;;) {
      this.askAgain(this.#session.strips.filter((strip) => this.#session.isStale(strip)));
      if (this.#running === 0) return;
      await new Promise((resolve) => this.#whenIdle.push(resolve));
    }
  }

  #next() {
    const { current, strips } = this.#session;
    return current?.state === "waiting" ? current : strips.find((s) => s.state === "waiting");
  }

  async #work() {
    this.#running++;
    for (let strip = this.#next(); strip; strip = this.#next()) await this.#predict(strip);
    this.#running--;
    if (this.#running === 0) for (const resolve of this.#whenIdle.splice(0)) resolve();
  }

  async #predict(strip) {
    const session = this.#session;
    session.update(strip, { state: "working" });
    const asked = structuredClone(session.settings);
    const isOwn = !session.isTouched();
    try {
      const content = await readFile(strip.file);
      const settings = isOwn ? null : asked;
      const answer = await fetchDefects(content, { settings, onWait: this.#onWait });
      if (answer.model === session.model.sha256) {
        session.update(strip, { state: "found", answer, asked });
      } else {
        await this.#onSwap(answer.model);
        session.update(strip, { state: "waiting" });
      }
    } catch (error) {
      if (!(error instanceof RequestError)) throw error;
      session.update(strip, { state: "failed", reason: error.message, answer: null });
    }
  }
}

/** Read a file that was chosen a while ago. */
export async function readFile(file) {
  try {
    return await file.arrayBuffer();
  } catch {
    throw new RequestError("The file cannot be read. Was it moved or changed? Open it again.");
  }
}
