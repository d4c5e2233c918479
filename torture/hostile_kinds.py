"""Kinds of hostile image files: how to create each, and the expected outcome.

A kind takes a random generator and a strip, and returns the content of a file and what to expect:

    a text   check refuses it, with these words
    pixels   it is read, with these values
    bytes    the undamaged file: it is refused, or has the same pixels, or the manifest of the
             undamaged file reports it

A kind of entry takes a path and creates something there that is not a regular file.
"""

import os
import socket
import struct
import zlib

import cv2
import numpy as np
import simplejpeg

from torture.image_files import chunk, flip_bit, png, scan_starts, with_exif

SHAPE = (64, 160)
LONG_TEXT = zlib.compress(bytes(50_000_000), 9)


def make_strip(chance):
    """A grey strip with some texture, of which no two are alike."""
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]]
    wave = 110 + 50 * np.sin(columns / chance.uniform(5, 30)) + rows / 2
    return (wave + chance.normal(0, 6, SHAPE)).clip(0, 255).astype(np.uint8)


def jpeg(chance, strip, *options):
    """The strip as a JPEG of one channel or of three, as cameras write them."""
    image = strip if chance.random() < 0.5 else np.repeat(strip[..., None], 3, axis=2)
    quality = int(chance.integers(60, 101))
    return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality, *options])[1].tobytes()


def plain_png(strip):
    return cv2.imencode(".png", strip)[1].tobytes()


def pixels_of(content):
    """Decode an undamaged file with OpenCV."""
    flags = cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION
    return cv2.imdecode(np.frombuffer(content, np.uint8), flags)


def truncated_jpeg(chance, strip):
    content = jpeg(chance, strip)
    return content[: chance.integers(1, len(content) - 1)], "truncated|whatever its name says"


def truncated_png(chance, strip):
    content = plain_png(strip)
    return content[: chance.integers(1, len(content))], "truncated|whatever its name says"


def flipped_jpeg_header(chance, strip):
    content = jpeg(chance, strip)
    bit = int(chance.integers(0, 8 * scan_starts(content)[0]))
    return flip_bit(content, bit), content


def flipped_jpeg_scan(chance, strip):
    content = jpeg(chance, strip)
    bit = int(chance.integers(8 * scan_starts(content)[0], 8 * len(content) - 16))
    return flip_bit(content, bit), content


def flipped_png(chance, strip):
    content = plain_png(strip)
    return flip_bit(content, int(chance.integers(8 * len(content)))), "damaged|truncated|neither"


def jpeg_with_a_hole(chance, strip):
    content = jpeg(chance, strip)
    begin = scan_starts(content)[0] + 20
    at = int(chance.integers(begin, len(content) - 400))
    return content[:at] + content[at + 300 :], content


def progressive_without_last_scan(chance, strip):
    content = jpeg(chance, strip, cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
    return content[: scan_starts(content)[-1]] + b"\xff\xd9", "incomplete: the JPEG lacks scans"


def turned_by_exif(chance, strip):
    content = jpeg(chance, strip)
    return with_exif(content, int(chance.integers(2, 9))), pixels_of(content)


def preview_behind_the_end(chance, strip):
    content = jpeg(chance, strip)
    return content + jpeg(chance, strip[:8, :8]), pixels_of(content)


def cmyk(_chance, strip):
    inks = np.repeat(strip[..., None], 4, axis=2)
    return simplejpeg.encode_jpeg(inks, colorspace="CMYK"), "4 channels .CMYK.. Save it as grey"


def twelve_bits(chance, strip):
    content = bytearray(jpeg(chance, strip))
    content[content.index(b"\xff\xc0") + 4] = 12
    return bytes(content), "12 bits per channel. Save it with 8"


def sixteen_bits(_chance, strip):
    content = cv2.imencode(".png", strip.astype(np.uint16) * 16)[1].tobytes()
    return content, "16 bits per channel. Save it with 8"


def palette(chance, strip):
    """Grey values in a shuffled order: their numbers alone make another picture."""
    order = chance.permutation(256).astype(np.uint8)
    colours = np.repeat(np.argsort(order).astype(np.uint8)[:, None], 3, axis=1).tobytes()
    return _png(order[strip], colour=3, extra=chunk(b"PLTE", colours)), strip


def opaque_alpha(_chance, strip):
    return _png(np.stack([strip, np.full_like(strip, 255)], -1), colour=4), strip


def transparent(chance, strip):
    alpha = np.full_like(strip, 255)
    alpha[chance.integers(SHAPE[0]), chance.integers(SHAPE[1])] = 254
    return _png(np.stack([strip, alpha], -1), colour=4), "transparent pixels"


def transparent_colour(_chance, strip):
    return _png(strip, colour=0, extra=chunk(b"tRNS", b"\0\x80")), "a transparent colour"


def animated_png(_chance, strip):
    return _png(strip, colour=0, extra=chunk(b"acTL", struct.pack(">II", 2, 0))), "is animated"


def animated_gif(_chance, _strip):
    return b"GIF89a" + bytes(100), "whatever its name says"


def text(_chance, _strip):
    return b"<html>404 Not Found</html>", "whatever its name says"


def zero_bytes(_chance, _strip):
    return b"", "the file is empty"


def wrong_size(chance, strip):
    return jpeg(chance, strip[:, :-1]), "the image is 64x159, but masks are 64x160"


def png_bomb():
    """30,000 x 30,000 pixels of one bit in 109 KB."""
    packer = zlib.compressobj(9)
    row = bytes(1 + 30_000 // 8)
    packed = b"".join(packer.compress(row) for _ in range(30_000)) + packer.flush()
    header = struct.pack(">IIBBBBB", 30_000, 30_000, 1, 0, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts, "30000x30000 pixels; at most"


def jpeg_bomb(chance, strip):
    content = bytearray(jpeg(chance, strip))
    frame = content.index(b"\xff\xc0")
    content[frame + 5 : frame + 9] = struct.pack(">HH", 65_500, 65_500)
    return bytes(content), "65500x65500 pixels; at most"


def text_bomb(_chance, strip):
    """A comment and a colour profile that unpack to 50 MB each."""
    kinds = (b"zTXt", b"iCCP")
    extra = b"".join(chunk(kind, b"name\0\0" + LONG_TEXT) for kind in kinds)
    return _png(strip, colour=0, extra=extra), strip


def _png(pixels, *, colour, extra=b""):
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    return png(*SHAPE, colour=colour, pixels=rows, extra=extra)


def folder(path):
    path.mkdir()
    return "a folder, socket, pipe or device"


def pipe(path):
    os.mkfifo(path)
    return "a folder, socket, pipe or device"


def unix_socket(path):
    # A socket stays in its folder when it is closed; its path has at most 107 bytes.
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
    return "a folder, socket, pipe or device"


def link_to_nowhere(path):
    path.symlink_to("nowhere.png")
    return "contains a link named"


def link_outside(path):
    path.symlink_to("/etc/passwd")
    return "contains a link named"


FILES = (
    truncated_jpeg,
    truncated_png,
    flipped_jpeg_header,
    flipped_jpeg_scan,
    flipped_png,
    jpeg_with_a_hole,
    progressive_without_last_scan,
    turned_by_exif,
    preview_behind_the_end,
    cmyk,
    twelve_bits,
    sixteen_bits,
    palette,
    opaque_alpha,
    transparent,
    transparent_colour,
    animated_png,
    animated_gif,
    text,
    zero_bytes,
    wrong_size,
    jpeg_bomb,
    text_bomb,
)

# What is no file, and names that are and are not those of an image.
ENTRIES = (folder, pipe, unix_socket, link_to_nowhere, link_outside)
GOOD_NAMES = ("stahlb\u00e4nder \u93a2.jpg", "a,b\"c'.jpeg", "-rf.PNG", "\U0001f529.png")
BAD_NAMES = ("a\nb.jpg", "a\rb.png", "\x1b[2Ja.jpg", "a\u2028b.png", "a\u200fb.jpg")
