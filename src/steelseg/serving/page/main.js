// The page: connects its parts, opens files and offers downloads.

import { fetchModel, fetchOverlay, RequestError } from "./api.js";
import { byId, count } from "./dom.js";
import { save, toCoco, toCsv } from "./export.js";
import { readDrop, readInput } from "./files.js";
import { Inspection } from "./inspection.js";
import { listenToKeys } from "./keys.js";
import { Queue, readFile } from "./queue.js";
import { Session } from "./session.js";
import { Status } from "./status.js";
import { StripPanel } from "./strip_panel.js";

const PAN_PIXELS = 80;

const session = new Session();
const status = new Status(session);
const onWait = (reason, seconds) => status.wait(reason, seconds);
const queue = new Queue(session, { onWait, onSwap: takeModel });
new StripPanel(session);
const inspection = new Inspection(session, queue, { onWait });

/** Load the server's model, unless the session already has it. */
async function takeModel(sha256) {
  if (sha256 && sha256 === session.model.sha256) return;
  const content = await fetchModel({ onWait });
  if (content.sha256 === session.model?.sha256) return;
  if (session.model) {
    status.warn("The server uses another model now. All strips are predicted again.");
  }
  session.setModel(readModel(content));
  byId("model").textContent = `Model ${content.provenance.source}, ${content.sha256.slice(0, 12)}`;
  byId("model").title = `SHA-256 ${content.sha256}`;
  byId("files").accept = session.model.extensions.join(",");
  byId("formats").textContent = session.model.formats;
}

/** The parts of the server's model description that the page needs. */
function readModel({ sha256, classes, pixel_mm: pixelMm, image_formats: formats }) {
  const each = (name, missing) => classes.map((one) => one[name] ?? missing);
  return {
    sha256,
    pixelMm,
    extensions: formats.flatMap((format) => format.extensions),
    formats: oneOf(formats.map((format) => format.name)),
    names: each("name"),
    settings: { threshold: each("threshold"), min_size: each("min_size") },
    filters: { min_area: each("min_area", 0), top_threshold: each("top_threshold", 0) },
  };
}

/** Names as a message lists them: "JPEG or PNG". */
function oneOf(names) {
  return new Intl.ListFormat("en-GB", { type: "disjunction" }).format(names);
}

/** Add dropped or chosen files, and report what was left out. */
function open({ files, leftOut }) {
  const doubles = session.add(files);
  const { formats } = session.model;
  const said = [];
  if (files.length === 0) said.push(`No ${formats} file among them.`);
  if (leftOut.length) {
    said.push(`Left out, because they are not ${formats} files: ${list(leftOut)}.`);
  }
  if (leftOut.some((name) => name.endsWith("/"))) {
    said.push("Subfolders are not read; open them one by one.");
  }
  if (doubles.length) {
    said.push(`Left out, because strips with these names are already open: ${list(doubles)}.`);
  }
  status.warn(said.join(" "));
  queue.run();
}

function list(names) {
  const some = names.slice(0, 5).join(", ");
  return names.length > 5 ? `${some} and ${names.length - 5} more` : some;
}

/** Predict all strips with the current settings, and download the result as a file. */
async function download(name, type, toText) {
  await queue.refresh();
  const found = session.strips.filter((strip) => strip.answer !== null);
  const missing = session.strips.length - found.length;
  save(new Blob([toText(found, session.model)], { type }), name);
  status.warn(missing ? `${name} does not include ${count(missing, "strip")} that failed.` : "");
}

async function downloadOverlay() {
  const { name, file } = session.current;
  try {
    const settings = session.isTouched() ? session.settings : null;
    const picture = await fetchOverlay(await readFile(file), { settings, onWait });
    save(picture, `${name}.png`);
    status.warn("");
  } catch (error) {
    if (!(error instanceof RequestError)) throw error;
    status.warn(`The overlay of ${name} was not made: ${error.message}`);
  }
}

/** Retry failed strips, and missing parts of the strip on the screen. */
function retry() {
  queue.askAgain(session.strips.filter((strip) => strip.state === "failed"));
  session.select(session.current);
}

function onClick(id, act) {
  byId(id).addEventListener("click", act);
}

function takeFiles() {
  for (const [button, input] of [
    ["open-files", "files"],
    ["open-folder", "folder"],
  ]) {
    onClick(button, () => byId(input).click());
    byId(input).addEventListener("change", (event) => {
      const found = readInput(event.target, session.model.extensions);
      // So that the same files can be chosen again.
      event.target.value = "";
      open(found);
    });
  }
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    document.body.classList.add("dropping");
  });
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) document.body.classList.remove("dropping");
  });
  document.addEventListener("drop", async (event) => {
    event.preventDefault();
    document.body.classList.remove("dropping");
    open(await readDrop(event.dataTransfer, session.model.extensions));
  });
}

function takeClicks() {
  onClick("previous", () => session.step(-1));
  onClick("next", () => session.step(1));
  onClick("retry", retry);
  onClick("refresh", () => queue.refresh());
  onClick("clear", () => session.clear());
  onClick("reset", () => session.reset());
  onClick("show-help", () => byId("help").showModal());
  onClick("download-csv", () => download("submission.csv", "text/csv", toCsv));
  onClick("download-coco", () => download("predictions.json", "application/json", toCoco));
  onClick("download-overlay", downloadOverlay);
  byId("all-outlines").addEventListener("change", (e) =>
    inspection.showAll("outline", e.target.checked),
  );
  byId("all-fills").addEventListener("change", (e) => inspection.showAll("fill", e.target.checked));
}

function takeKeys() {
  const { stage } = inspection;
  const digits = Array.from("123456789");
  const pans = { ArrowLeft: [1, 0], ArrowRight: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
  listenToKeys([
    { keys: ["n", "PageDown"], text: "next strip", run: () => session.step(1) },
    { keys: ["p", "PageUp"], text: "strip before", run: () => session.step(-1) },
    { keys: ["j"], text: "next defect", run: () => inspection.step(1) },
    { keys: ["k"], text: "defect before", run: () => inspection.step(-1) },
    {
      keys: digits,
      shown: "1 to 9",
      text: "show or hide a class",
      run: (key) => inspection.toggleClass(Number(key) - 1),
    },
    { keys: ["o"], text: "outlines of all classes", run: () => byId("all-outlines").click() },
    { keys: ["i"], text: "fills of all classes", run: () => byId("all-fills").click() },
    { keys: ["h"], text: "heat map over half of the strip", run: () => stage.divider.toggle() },
    { keys: ["f", "0"], text: "fit the strip", run: () => stage.fit() },
    { keys: ["g"], text: "one pixel to one", run: () => stage.full() },
    { keys: ["+", "="], shown: "+", text: "zoom in", run: () => stage.zoomIn() },
    { keys: ["-"], text: "zoom out", run: () => stage.zoomOut() },
    {
      keys: Object.keys(pans),
      shown: "arrows",
      text: "move the strip",
      run: (key) => stage.pan(...pans[key].map((way) => way * PAN_PIXELS)),
    },
    { keys: ["?"], text: "this help", run: () => byId("help").showModal() },
  ]);
}

try {
  await takeModel();
  takeFiles();
  takeClicks();
  takeKeys();
  document.body.classList.add("ready");
} catch (error) {
  if (!(error instanceof RequestError)) throw error;
  status.warn(`${error.message} Reload the page to try again.`);
}
