// Requests to the server: retried while it is busy, with a plain error when it refuses.

const MOST_TRIES = 5;
const BUSY = [429, 503];

/** A request that failed, at the server or on the way to it; the message is for the user. */
export class RequestError extends Error {}

/** Classes, thresholds, sizes and hash of the model. */
export function fetchModel({ onWait } = {}) {
  return ask("v1/model", {}, { onWait, read: (response) => response.json() });
}

/**
 * Request the defects of a strip.
 *
 * @param content The bytes of the file.
 * @param settings threshold and min_size, one per class; null uses those of the server.
 * @param onWait Called with the reason and the number of seconds that a request waits.
 */
export function fetchDefects(content, { settings, onWait }) {
  const read = (response) => response.json();
  return ask(...predict(content, { answer: "json", settings }), { onWait, read });
}

/** Request the picture of a strip with its defects, as a Blob. */
export function fetchOverlay(content, { settings, onWait }) {
  const read = (response) => response.blob();
  return ask(...predict(content, { answer: "overlay", settings }), { onWait, read });
}

/**
 * Request the probabilities of a strip, as levels from 0 to 255.
 *
 * @param signal Aborts the request.
 * @returns {levels, height, width}: an array of height * width levels for each class.
 */
export function fetchProbabilities(content, { onWait, signal }) {
  const [path, options] = predict(content, { answer: "probabilities", settings: null });
  return ask(path, { ...options, signal }, { onWait, read: readLevels });
}

async function readLevels(response) {
  const [classes, height, width] = response.headers.get("X-Shape").split(",").map(Number);
  const all = new Uint8Array(await response.arrayBuffer());
  const size = height * width;
  const levels = Array.from({ length: classes }, (_, k) => all.subarray(k * size, (k + 1) * size));
  return { levels, height, width };
}

/** Path and options of a request. */
function predict(content, { answer, settings }) {
  const query = new URLSearchParams({ answer });
  for (const [name, values] of Object.entries(settings ?? {})) query.set(name, values.join(","));
  const headers = { "Content-Type": "application/octet-stream" };
  return [`v1/predict?${query}`, { method: "POST", body: content, headers }];
}

/** Send a request until it is answered; a busy server is retried after the time it asks for. */
async function ask(path, options, { onWait = () => {}, read }) {
  for (let failures = 0; ;) {
    const { response, body } = await send(path, options, read);
    if (response?.ok) return body;
    if (response && !BUSY.includes(response.status)) throw await refusal(response);
    if (!response && ++failures === MOST_TRIES) {
      throw new RequestError("The server cannot be reached. Is it running?");
    }
    const seconds = response ? retryAfter(response) : 2 ** (failures - 1);
    onWait(response ? "The server is busy" : "The server does not answer", seconds);
    await pause(seconds, options.signal);
  }
}

/** The response and its content; neither if the server cannot be reached. */
async function send(path, options, read) {
  try {
    const response = await fetch(path, options);
    return { response, body: response.ok ? await read(response) : null };
  } catch (error) {
    if (error.name === "AbortError") throw error;
    return {};
  }
}

/** Seconds that the server asks to wait, at least one. */
function retryAfter(response) {
  return Math.max(1, Number(response.headers.get("Retry-After")) || 1);
}

/** The reason that the server gives. */
async function refusal(response) {
  const text = await response.text();
  try {
    return new RequestError(JSON.parse(text).error);
  } catch {
    return new RequestError(`The server answered ${response.status} ${response.statusText}.`);
  }
}

function pause(seconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, seconds * 1000);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(new DOMException("No longer wanted.", "AbortError"));
    });
  });
}
