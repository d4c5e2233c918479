// The state of the page: the model, the settings, the strips, and the current one.
// It emits the events: model, settings, strips (the list), strip (one of them, in `detail`),
// current.

/**
 * One file. `state` is waiting, working, found or failed; `reason` says why it failed; `answer`
 * is the server's, `asked` the settings it was made with. Neither pixels nor probabilities are
 * kept here: a folder may contain hundreds of strips.
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
  /** Which strips are listed: all, defects (those with a defect) or failed. */
  filter = "all";

  tell(kind, detail) {
    this.dispatchEvent(new CustomEvent(kind, { detail }));
  }

  /** Set the model and its settings; results of another model are dropped. */
  setModel(model) {
    this.model = model;
    this.settings = structuredClone(model.settings);
    for (const strip of this.strips) Object.assign(strip, UNKNOWN);
    for (const kind of ["model", "settings", "strips", "current"]) this.tell(kind);
  }

  /** The channels of one class, or of all. */
  #channels(channel) {
    return channel === undefined ? [...this.model.names.keys()] : [channel];
  }

  /** Whether a setting of a class, or of any class, differs from the model's. */
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

  /** Restore the model's settings, of a class or of all. */
  reset(channel) {
    for (const k of this.#channels(channel)) {
      for (const name of NAMES) this.settings[name][k] = this.model.settings[name][k];
    }
    this.tell("settings");
  }

  /** Whether the server's result for a class was made with the current settings. */
  isExact(strip, channel) {
    return strip.answer !== null && isSame(strip.asked, this.settings, channel);
  }

  /** Whether the result of a strip was made with other settings. */
  isStale(strip) {
    return strip.state === "found" && !this.#channels().every((k) => this.isExact(strip, k));
  }

  /**
   * Add files; the list is sorted by name.
   *
   * @returns Names that already exist: downloads identify strips by name.
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

  /** Remove all strips. */
  clear() {
    this.strips = [];
    this.tell("strips");
    this.select(null);
  }

  select(strip) {
    this.current = strip;
    this.tell("current");
  }

  /** Whether a strip passes the filter. */
  isListed(strip) {
    if (this.filter === "failed") return strip.state === "failed";
    return this.filter === "all" || strip.answer?.defects.length > 0;
  }

  setFilter(filter) {
    this.filter = filter;
    this.tell("filter");
  }

  /** The next or previous listed strip; undefined at the end. */
  beside(by) {
    const at = this.strips.indexOf(this.current);
    if (by > 0) return this.strips.slice(at + 1).find((strip) => this.isListed(strip));
    return this.strips.slice(0, Math.max(0, at)).findLast((strip) => this.isListed(strip));
  }

  /** Go to the next or previous strip. */
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
