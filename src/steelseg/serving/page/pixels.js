// The pixels of a file as stored, because these were predicted.
// Browsers rotate pictures by EXIF orientation, so that part of a JPEG or PNG is removed first.

const PNG_START = [0x89, 0x50, 0x4e, 0x47];
const JPEG_START = [0xff, 0xd8, 0xff];
const [EXIF_MARKER, SCAN_MARKER] = [0xe1, 0xda];

/** Decode an image file; rejects if the browser cannot, as with a format it does not know. */
export function decodePixels(content) {
  const bytes = new Uint8Array(content);
  return createImageBitmap(new Blob(partsOf(bytes)), { colorSpaceConversion: "none" });
}

function partsOf(bytes) {
  const startsWith = (start) => start.every((byte, i) => bytes[i] === byte);
  if (startsWith(PNG_START)) return pngParts(bytes);
  if (startsWith(JPEG_START)) return jpegParts(bytes);
  return [bytes];
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
