// Files and folders that a user dropped or chose: the strips, and what is left out.
// Only images directly in a folder are read, not those in subfolders, as in `steelseg predict`.

/**
 * Read dropped files and folders. Call it in the event handler: they are gone afterwards.
 *
 * @param extensions Of the images that the server reads, in lower case.
 * @returns {files, leftOut}: File objects of images, and names of other files.
 */
export async function readDrop(transfer, extensions) {
  const entries = Array.from(transfer.items, (item) => item.webkitGetAsEntry?.());
  const found = { files: [], leftOut: [] };
  for (const entry of entries.filter(Boolean)) {
    if (entry.isFile) take(found, await fileOf(entry), extensions);
    else await readFolder(found, entry, extensions);
  }
  return found;
}

/** Read the files or the folder of an <input type="file">. */
export function readInput(input, extensions) {
  const found = { files: [], leftOut: [] };
  const inside = new Set();
  for (const file of input.files) {
    const parts = file.webkitRelativePath.split("/");
    if (parts.length > 2) inside.add(`${parts[1]}/`);
    else take(found, file, extensions);
  }
  found.leftOut.push(...inside);
  return found;
}

function take(found, file, extensions) {
  const name = file.name.toLowerCase();
  if (extensions.some((extension) => name.endsWith(extension))) found.files.push(file);
  else found.leftOut.push(file.name);
}

async function readFolder(found, folder, extensions) {
  const reader = folder.createReader();
  // A folder returns up to a hundred entries at a time, and none at the end.
  for (let batch = await entriesOf(reader); batch.length; batch = await entriesOf(reader)) {
    for (const entry of batch) {
      if (entry.isFile) take(found, await fileOf(entry), extensions);
      else found.leftOut.push(`${entry.name}/`);
    }
  }
}

function fileOf(entry) {
  return new Promise((resolve, reject) => entry.file(resolve, reject));
}

function entriesOf(reader) {
  return new Promise((resolve, reject) => reader.readEntries(resolve, reject));
}
