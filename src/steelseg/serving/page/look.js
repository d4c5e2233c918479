// The strip on the screen: its pixels and probabilities, of this strip only.

import { fetchProbabilities, RequestError } from "./api.js";
import { decodePixels } from "./pixels.js";
import { readFile } from "./queue.js";

// While the user skips through strips, the probabilities of each are not needed.
const PAUSE_MS = 150;

/**
 * Load a strip; `onChange` is called whenever a part has arrived.
 *
 * @returns The look: strip, bitmap, levels (one array per class), height, width, problem, and `end`,
 *   to be called when another strip is shown.
 */
export function openLook(strip, { onChange, onWait }) {
  const leaving = new AbortController();
  const look = { strip, bitmap: null, levels: null, height: 0, width: 0, problem: "" };
  look.end = () => {
    leaving.abort();
    look.bitmap?.close();
  };
  load(look, { signal: leaving.signal, onChange, onWait });
  return look;
}

async function load(look, { signal, onChange, onWait }) {
  try {
    const content = await readFile(look.strip.file);
    await Promise.all([
      loadPixels(look, content, { signal, onChange }),
      loadLevels(look, content, { signal, onChange, onWait }),
    ]);
  } catch (error) {
    if (signal.aborted) return;
    if (!(error instanceof RequestError)) throw error;
    look.problem = error.message;
    onChange();
  }
}

async function loadPixels(look, content, { signal, onChange }) {
  let bitmap;
  try {
    bitmap = await decodePixels(content);
  } catch {
    throw new RequestError("This browser cannot decode the image, so only its defects are listed.");
  }
  if (signal.aborted) return bitmap.close();
  Object.assign(look, { bitmap, height: bitmap.height, width: bitmap.width });
  onChange();
}

async function loadLevels(look, content, { signal, onChange, onWait }) {
  await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
  signal.throwIfAborted();
  // levels, height and width
  Object.assign(look, await fetchProbabilities(content, { signal, onWait }));
  onChange();
}
