"""Generate train.csv texts: valid ones, and mutations as caused by people, programs and disks."""

import random

from steelseg.data.formats.mask_csv import JOINED, SEPARATE

NUMBERS = ["0", "-1", "+1", "01", "1.0", "1e3", "999999999", "1000000000", "9" * 25, "\u0661"]
NUMBERS += ["\u00b2", "\uff11", "0x1", "1_0", "", " ", "nan"]
CHARACTERS = [*'",\r\n \t\0_/\\.;-+0123456789', "\u00a0", "\u2028", "\x0b", "\x1c", "\x85"]
CHARACTERS += ["\u0661", "\ufeff", "e", "\U0001f600"]
CLASSES = ["0", "3", "-1", "+1", "01", "1.0", " 1", "1 ", "", "x", "\u0661", "9" * 11, "1\n"]
NAMES = ["", ".", "..", "/a.png", "../a.png", "a\\a.png", "none.png", "A.PNG", " a.png", "a.png\n"]
ENCODINGS = ("utf-16", "utf-16-le", "utf-32", "latin-1", "utf-7", "cp037", "utf-8-sig")


def make_text(number, sizes, num_classes):
    """Return text `number`: a valid file with up to three mutations; deterministic."""
    chance = random.Random(number)
    columns = list(chance.choice((JOINED, SEPARATE)))
    if chance.random() < 0.3:
        chance.shuffle(columns)
    pairs = [(image, k) for image in sizes for k in range(1, num_classes + 1)]
    chance.shuffle(pairs)
    rows = [
        [image, str(k), _mask(chance, sizes[image])]
        for image, k in pairs[: chance.randrange(len(pairs) + 1)]
    ]
    kinds = chance.choices(("row", "text", "bytes"), (6, 3, 1), k=chance.choice((0, 1, 1, 2, 3)))
    for _ in range(kinds.count("row")):
        chance.choice(ROW_MUTATIONS)(chance, rows)
    text = _write(chance, columns, rows)
    for _ in range(kinds.count("text")):
        text = chance.choice(TEXT_MUTATIONS)(chance, text)
    content = text.encode("utf-8", "surrogatepass")
    for _ in range(kinds.count("bytes")):
        content = chance.choice(BYTE_MUTATIONS)(chance, content)
    return content


def _mask(chance, size):
    """A sound mask of a few runs, sometimes of none."""
    edges = sorted(chance.sample(range(1, size + 2), 2 * chance.randrange(4)))
    return " ".join(f"{a} {b - a}" for a, b in zip(edges[::2], edges[1::2], strict=True))


def _write(chance, columns, rows):
    """Rows as CSV, by one of the ways in which programs write it."""
    end = chance.choice(("\n", "\r\n", "\r"))
    always = chance.random() < 0.2
    lines = [columns]
    for image, number, rle in rows:
        cells = {"ImageId": image, "ClassId": number, "EncodedPixels": rle}
        cells["ImageId_ClassId"] = f"{image}_{number}"
        lines.append([cells[column] for column in columns])
    text = end.join(",".join(_quote(cell, always) for cell in line) for line in lines)
    return text + end * chance.choice((0, 1, 1, 1, 2))


def _quote(cell, always):
    needed = always or any(c in '",\r\n' for c in cell)
    return '"' + cell.replace('"', '""') + '"' if needed else cell


def _change_mask(chance, rows):
    """Break one rule of one mask: a number, its order, a gap, an end."""
    if rows:
        row = chance.choice(rows)
        numbers = row[2].split()
        edits = [_swap, _number, _number, _drop, _space]
        if all(map(str.isdecimal, numbers)):
            edits += [_touch, _overlap, _lengthen]
        chance.choice(edits)(chance, numbers)
        row[2] = " ".join(numbers)


def _swap(chance, numbers):
    chance.shuffle(numbers)


def _number(chance, numbers):
    at = chance.randrange(len(numbers) + 1)
    numbers[at : at + chance.randrange(2)] = [chance.choice(NUMBERS)]


def _touch(_chance, numbers):
    if len(numbers) >= 4:
        numbers[2] = str(int(numbers[0]) + int(numbers[1]))


def _overlap(chance, numbers):
    if len(numbers) >= 4:
        numbers[2] = str(int(numbers[0]) + chance.randrange(int(numbers[1]) + 1))


def _lengthen(chance, numbers):
    if numbers:
        numbers[-1] = str(int(numbers[-1]) + chance.choice((1, 2, 24, 10**8)))


def _drop(chance, numbers):
    del numbers[chance.randrange(len(numbers) + 1) :]


def _space(chance, numbers):
    numbers.insert(chance.randrange(len(numbers) + 1), chance.choice(("", "\t", "\u00a0", "\n")))


def _change_class(chance, rows):
    if rows:
        chance.choice(rows)[1] = chance.choice(CLASSES)


def _change_name(chance, rows):
    if rows:
        chance.choice(rows)[0] = chance.choice(NAMES)


def _repeat(chance, rows):
    if rows:
        rows.insert(chance.randrange(len(rows) + 1), list(chance.choice(rows)))


def _reorder(chance, rows):
    chance.shuffle(rows)


def _insert(chance, text):
    at = chance.randrange(len(text) + 1)
    return text[:at] + chance.choice(CHARACTERS) + text[at:]


def _replace(chance, text):
    at = chance.randrange(len(text))
    return text[:at] + chance.choice(CHARACTERS) + text[at + 1 :]


def _cut(chance, text):
    at = chance.randrange(len(text))
    return text[:at] + text[at + chance.randrange(1, 12) :]


def _truncate(chance, text):
    return text[: chance.randrange(len(text)) + 1]


def _edit_lines(chance, text):
    """Repeat, drop, empty or move one line, the header too."""
    lines = text.split("\n")
    at = chance.randrange(len(lines))
    line = lines.pop(at)
    new = chance.choice(([line, line], [], ["", line], [" ", line], ['""', line], [line, ",,"]))
    where = at if chance.random() < 0.7 else chance.randrange(len(lines) + 1)
    return "\n".join([*lines[:where], *new, *lines[where:]]) or "\n"


def _change_header(chance, text):
    old = chance.choice(("ImageId", "ClassId", "EncodedPixels", "_", ","))
    new = chance.choice((old.lower(), old + " ", "", old + ",", f'"{old}"'))
    return text.replace(old, new, 1) or "x"


def _add_mark(_chance, text):
    return "\ufeff" + text


def _encode_otherwise(chance, content):
    return content.decode("utf-8", "replace").encode(chance.choice(ENCODINGS), "replace")


def _flip_bit(chance, content):
    at = chance.randrange(len(content))
    return content[:at] + bytes([content[at] ^ 1 << chance.randrange(8)]) + content[at + 1 :]


def _add_bytes(chance, content):
    at = chance.randrange(len(content) + 1)
    odd = (b"\xff", b"\xc3", b"\0", b"\xed\xa0\x80", b"\xc0\x80", b"\x80", b"\0" * 64)
    return content[:at] + chance.choice(odd) + content[at:]


ROW_MUTATIONS = (_change_mask,) * 5 + (_change_class, _change_name, _repeat, _reorder)
TEXT_MUTATIONS = (_insert, _insert, _replace, _replace, _cut, _truncate, _edit_lines, _edit_lines)
TEXT_MUTATIONS += (_change_header, _add_mark)
BYTE_MUTATIONS = (_encode_otherwise, _flip_bit, _add_bytes)
