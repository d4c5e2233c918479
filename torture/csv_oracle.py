"""A second, slow parser of train.csv: one character at a time, without csv or regex.

Written from the rules in docs/reliability.md, independently of `steelseg.data`, which it checks.
"""

BREAKS = ("\r\n", "\r", "\n")
FORMS = (["ClassId", "EncodedPixels", "ImageId"], ["EncodedPixels", "ImageId_ClassId"])


def judge(content, sizes, num_classes):
    """Read the bytes of a train.csv.

    Args:
        content: The file.
        sizes: Pixels of each image in the folder, by name.
        num_classes: Highest class.

    Returns:
        The lines on which faulty rows start ({0} if the whole file is faulty), and the pixels of
        each valid mask, by name and class.
    """
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        return {0}, {}
    rows = split(text[1:] if text[:1] == "\ufeff" else text)
    if not rows or sorted(rows[0][1]) not in FORMS:
        return {0}, {}
    bad, masks, seen = set(), {}, set()
    for line, cells in rows[1:]:
        if not cells:
            continue
        row = name(rows[0][1], cells, num_classes)
        if row is None or row[:2] in seen:
            bad.add(line)
            continue
        image, number, rle = row
        seen.add((image, number))
        pixels = paint(rle, sizes[image]) if image in sizes else None
        if pixels is None:
            bad.add(line)
        elif pixels:
            masks[image, number] = pixels
    return bad, masks


def split(text):
    """Take CSV apart: rows of (line, cells), blank ones without a cell; None if it is not CSV."""
    rows, cells, cell, state = [], [], "", "start"
    line, begun, at = 1, 1, 0
    while at < len(text):
        here = next((b for b in BREAKS if text.startswith(b, at)), text[at])
        at += len(here)
        line += here in BREAKS
        if state == "quoted":
            if here != '"':
                cell += here
            elif text[at : at + 1] == '"':
                cell += '"'
                at += 1
            else:
                state = "closed"
        elif here in BREAKS:
            rows.append((begun, [] if state == "start" and not cells else [*cells, cell]))
            cells, cell, state, begun = [], "", "start", line
        elif here == ",":
            cells, cell, state = [*cells, cell], "", "start"
        elif state == "closed":
            return None
        elif here == '"' and state == "start":
            state = "quoted"
        else:
            cell, state = cell + here, "plain"
    if state == "quoted":
        return None
    if state != "start" or cells:
        rows.append((begun, [*cells, cell]))
    return rows


def name(columns, cells, num_classes):
    """Image, class and mask of a row, or None."""
    if len(cells) != len(columns):
        return None
    row = dict(zip(columns, cells, strict=True))
    if "ImageId" in row:
        image, number = row["ImageId"], row["ClassId"]
    else:
        image, score, number = row["ImageId_ClassId"].rpartition("_")
        if not score:
            return None
    if image in ("", ".", "..") or any(c in "/\\" or ord(c) < 32 for c in image):
        return None
    # Any class that is written otherwise than a computer writes it is none.
    if number not in [str(k) for k in range(1, num_classes + 1)]:
        return None
    return image, int(number), row["EncodedPixels"]


def paint(rle, size):
    """The pixels of a mask, counted from 1; None if it breaks a rule."""
    if not rle:
        return set()
    numbers = rle.split(" ")
    if len(numbers) % 2 or not all(is_number(n) for n in numbers):
        return None
    pixels, free = set(), 1
    while numbers:
        start, length, *numbers = numbers
        # Between two runs lies at least one pixel; in front of the first, none need to.
        if int(start) < free or int(length) < 1 or int(start) + int(length) - 1 > size:
            return None
        pixels.update(range(int(start), int(start) + int(length)))
        free = int(start) + int(length) + 1
    return pixels


def is_number(text):
    """Whether a text is a whole number as the format writes it."""
    plain = text != "" and all(c in "0123456789" for c in text)
    return plain and len(text) <= 9 and (text == "0" or text[0] != "0")
