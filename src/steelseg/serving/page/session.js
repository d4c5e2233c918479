// What the page knows: the model, the settings, the strips, and which one is looked at.
// Whoever shows a part of it listens for: model, settings, strips (the list), strip (one of
// them, in `detail`), current.

/**
 * One file. `state` is waiting, working, found or failed; `reason` says why it failed; `answer`
 * is the server's, `asked` the settings it was made with. Neither pixels nor probabilities are
 * kept here: a folder may hold hundreds.
 */
function makeStrip(file) {
  return { name: file.name, file, ...UNKNOWN };
}

const UNKNOWN = { state: "waiting", reason: "", answer: null, asked: null };

const NAMES = ["threshold", "min_size"];

function isSame(one, other, channel) {
  return NAMES.every((name) => one[name][channel] === other[name][channel]);
}

export class Session extends EventTarget {
  model = null;
  settings = null;
  strips = [];
  current = null;
  /** Which strips are listed: all, defects (that have some) or failed. */
  filter = "all";

  tell(kind, detail) {
    this.dispatchEvent(new CustomEvent(kind, { detail }));
  }

  /** Take a model and its settings; what another found is forgotten. */
  setModel(model) {
    this.model = model;
    this.settings = structuredClone(model.settings);
    for (const strip of this.strips) Object.assign(strip, UNKNOWN);
    for (const kind of ["model", "settings", "strips", "current"]) this.tell(kind);
  }

  /** The numbers of some classes: of one, or of all. */
  #channels(channel) {
    return channel === undefined ? [...this.model.names.keys()] : [channel];
  }

  /** Whether a setting of a class, or of any, is another than the model's. */
  isTouched(channel) {
    const { model, settings } = this;
    return this.#channels(channel).some((k) => !isSame(settings, model.settings, k));
  }

  /** Change `threshold` or `min_size` of a class. */
  set(name, channel, value) {
    if (this.settings[name][channel] === value) return;
    this.settings[name][channel] = value;
    this.tell("settings");
  }

  /** Go back to the model's settings, of a class or of all. */
  reset(channel) {
    for (const k of this.#channels(channel)) {
      for (const name of NAMES) this.settings[name][k] = this.model.settings[name][k];
    }
    this.tell("settings");
  }

  /** Whether the server's answer for a class was made with the settings as they are. */
  isExact(strip, channel) {
    return strip.answer !== null && isSame(strip.asked, this.settings, channel);
  }

  /** Whether a strip has an answer that was made with other settings. */
  isStale(strip) {
    return strip.state === "found" && !this.#channels().every((k) => this.isExact(strip, k));
  }

  /**
   * Add files, sorted by name among the others.
   *
   * @returns Names that are there already: a name stands for one strip in the files to download.
   */
  add(files) {
    const names = new Set(this.strips.map((strip) => strip.name));
    const doubles = [];
    for (const file of files) {
      if (names.has(file.name)) doubles.push(file.name);
      else this.strips.push(makeStrip(file));
      names.add(file.name);
    }
    this.strips.sort((a, b) => (a.name < b.name ? -1 : 1));
    this.tell("strips");
    if (!this.current && this.strips.length) this.select(this.strips[0]);
    return doubles;
  }

  /** Forget all strips. */
  clear() {
    this.strips = [];
    this.tell("strips");
    this.select(null);
  }

  select(strip) {
    this.current = strip;
    this.tell("current");
  }

  /** Whether the filter lets a strip through. */
  isListed(strip) {
    if (this.filter === "failed") return strip.state === "failed";
    return this.filter === "all" || strip.answer?.defects.length > 0;
  }

  setFilter(filter) {
    this.filter = filter;
    this.tell("filter");
  }

  /** The next listed strip, or the one before; undefined at the end. */
  beside(by) {
    const at = this.strips.indexOf(this.current);
    if (by > 0) return this.strips.slice(at + 1).find((strip) => this.isListed(strip));
    return this.strips.slice(0, Math.max(0, at)).findLast((strip) => this.isListed(strip));
  }

  /** Look at the next strip or the one before. */
  step(by) {
    const strip = this.beside(by);
    if (strip) this.select(strip);
  }

  /** Change the state of a strip. */
  update(strip, change) {
    Object.assign(strip, change);
    this.tell("strip", strip);
  }
}
