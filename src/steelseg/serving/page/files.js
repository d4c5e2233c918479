// What a user dropped or chose, as strips and what was left out.
// Of a folder its own images are taken, not those of folders inside it, as `steelseg predict` does.

const IMAGE = /\.(jpe?g|png)$/i;

/**
 * Read the files and folders of a drop. Call it at once: the drop is gone after its event.
 *
 * @returns {files, leftOut}: File objects of images, and names of what is none.
 */
export async function readDrop(transfer) {
  const entries = Array.from(transfer.items, (item) => item.webkitGetAsEntry?.());
  const found = { files: [], leftOut: [] };
  for (const entry of entries.filter(Boolean)) {
    if (entry.isFile) take(found, await fileOf(entry));
    else await readFolder(found, entry);
  }
  return found;
}

/** Read what an <input type="file"> holds, of files or of a folder. */
export function readInput(input) {
  const found = { files: [], leftOut: [] };
  const inside = new Set();
  for (const file of input.files) {
    const parts = file.webkitRelativePath.split("/");
    if (parts.length > 2) inside.add(`${parts[1]}/`);
    else take(found, file);
  }
  found.leftOut.push(...inside);
  return found;
}

function take(found, file) {
  if (IMAGE.test(file.name)) found.files.push(file);
  else found.leftOut.push(file.name);
}

async function readFolder(found, folder) {
  const reader = folder.createReader();
  // A folder is given a hundred entries at a time, and none at its end.
  for (let batch = await entriesOf(reader); batch.length; batch = await entriesOf(reader)) {
    for (const entry of batch) {
      if (entry.isFile) take(found, await fileOf(entry));
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
