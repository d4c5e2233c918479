"""Build unusual image files byte by byte."""

import struct
import zlib


def chunk(kind, content):
    """Return one chunk of a PNG, with its checksum."""
    checksum = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I4s", len(content), kind) + content + checksum


def png(height, width, *, bits=8, colour=0, pixels=b"", extra=b""):
    """A PNG of any header; `pixels` as PNG has them before compression, filter bytes and all."""
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(pixels))
    return b"\x89PNG\r\n\x1a\n" + chunks + chunk(b"IEND", b"")


def with_exif(jpeg, orientation):
    """Put an EXIF segment that turns the image behind the start of a JPEG."""
    entry = struct.pack(">HHIHH", 0x0112, 3, 1, orientation, 0)
    exif = b"Exif\0\0MM\0*" + struct.pack(">IH", 8, 1) + entry + bytes(4)
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + jpeg[2:]


def flip_bit(content, bit):
    """Turn one bit of a file over, counted from its first."""
    flipped = bytearray(content)
    flipped[bit // 8] ^= 1 << bit % 8
    return bytes(flipped)


def scan_starts(jpeg):
    """Where the header of each scan of a JPEG begins."""
    return [i for i in range(len(jpeg)) if jpeg[i : i + 2] == b"\xff\xda"]
