// The files to download: masks as Kaggle writes them, and defects as COCO.
// Both equal those of `steelseg predict`: the server's masks, in the order of the names.

import { cocoCounts } from "./rle.js";

/** Write submission.csv of strips that have an answer. */
export function toCsv(strips) {
  const rows = ["ImageId_ClassId,EncodedPixels"];
  for (const { name, answer } of strips) {
    for (const [k, { rle }] of answer.classes.entries()) {
      rows.push(`${cell(`${name}_${k + 1}`)},${rle}`);
    }
  }
  return `${rows.join("\n")}\n`;
}

function cell(text) {
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

/** Write predictions.json of strips that have an answer. */
export function toCoco(strips, { names }) {
  const images = [];
  const annotations = [];
  for (const { name, answer } of strips) {
    const { height, width } = answer;
    const id = images.length + 1;
    images.push({ id, file_name: name, height, width });
    for (const defect of answer.defects) {
      annotations.push({
        id: annotations.length + 1,
        image_id: id,
        category_id: defect.class,
        segmentation: { counts: cocoCounts(defect.rle, height * width), size: [height, width] },
        bbox: defect.box,
        area: defect.area,
        score: defect.score,
        iscrowd: 0,
      });
    }
  }
  const categories = names.map((name, k) => ({ id: k + 1, name }));
  return JSON.stringify({ categories, annotations, images });
}

/** Download a file. */
export function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  // By then the browser has started to read it.
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
