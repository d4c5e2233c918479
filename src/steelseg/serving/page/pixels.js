// The pixels of a file as stored, because these were predicted.
// Browsers rotate pictures by EXIF orientation, so that part of the file is removed first.

const PNG_START = [0x89, 0x50, 0x4e, 0x47];
const [EXIF_MARKER, SCAN_MARKER] = [0xe1, 0xda];

/** Decode a JPEG or PNG file; rejects if the browser cannot. */
export function decodePixels(content) {
  const bytes = new Uint8Array(content);
  const isPng = PNG_START.every((byte, i) => bytes[i] === byte);
  const blob = new Blob(isPng ? pngParts(bytes) : jpegParts(bytes));
  return createImageBitmap(blob, { colorSpaceConversion: "none" });
}

/** The parts of a PNG without its eXIf chunks. */
function pngParts(bytes) {
  const view = new DataView(bytes.buffer);
  const parts = [bytes.subarray(0, 8)];
  for (let at = 8; at + 12 <= bytes.length;) {
    const end = at + 12 + view.getUint32(at);
    const isExif = String.fromCharCode(...bytes.subarray(at + 4, at + 8)) === "eXIf";
    if (!isExif) parts.push(bytes.subarray(at, end));
    at = end;
  }
  return parts;
}

/** The segments of a JPEG without EXIF, and everything from the first scan on. */
function jpegParts(bytes) {
  const view = new DataView(bytes.buffer);
  const parts = [bytes.subarray(0, 2)];
  let at = 2;
  while (at + 4 <= bytes.length && bytes[at] === 0xff && bytes[at + 1] !== SCAN_MARKER) {
    // Any number of 0xFF may precede a marker.
    const isFilling = bytes[at + 1] === 0xff;
    const end = isFilling ? at + 1 : at + 2 + view.getUint16(at + 2);
    if (bytes[at + 1] !== EXIF_MARKER) parts.push(bytes.subarray(at, end));
    at = end;
  }
  return [...parts, bytes.subarray(at)];
}
