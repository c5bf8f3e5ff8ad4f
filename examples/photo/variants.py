#!/usr/bin/env python3
"""Makes a dozen pictures of one PNG (8-bit RGB): parts of it, mirrored, brighter, darker, with more contrast.

usage: variants.py PICTURE.png FOLDER
Needs nothing but Python. They stand in for the pictures that a real calibration would take.
"""
import struct
import sys
import zlib
from pathlib import Path

# left, top and size of the part (of 1), mirrored, contrast, brightness
VARIANTS = [
    (0, 0, 1, False, 1, 0), (0, 0, 1, True, 0.8, 20), (0, 0, 0.8, False, 1, 0), (0.2, 0, 0.8, True, 1.2, -20),
    (0, 0.2, 0.8, True, 1, 0), (0.2, 0.2, 0.8, False, 0.7, 40), (0.15, 0.1, 0.7, False, 1, 0), (0.1, 0.2, 0.6, True, 1, 25),
    (0.3, 0.1, 0.6, False, 1.1, -30), (0.4, 0.4, 0.6, True, 1, 0), (0, 0.4, 0.6, False, 0.9, 0), (0.25, 0.25, 0.5, False, 1, -15),
]


def chunks(data):
    at = 8
    while at < len(data):
        size, kind = struct.unpack(">I4s", data[at:at + 8])
        yield kind, data[at + 8:at + 8 + size]
        at += size + 12


def predict(kind, left, up, corner):
    """What a PNG filter adds to a byte (PNG specification, section 9)."""
    if kind == 4:
        p = left + up - corner
        return min((left, up, corner), key=lambda v: abs(p - v))
    return (0, left, up, (left + up) // 2)[kind]


def read_png(path):
    """Rows of bytes, three a pixel."""
    data = path.read_bytes()
    parts = list(chunks(data))
    width, height, *form = struct.unpack(">IIBBBBB", parts[0][1])
    if data[:8] != b"\x89PNG\r\n\x1a\n" or form != [8, 2, 0, 0, 0]:
        sys.exit(f"{path}: not a PNG of 8-bit RGB")
    raw = zlib.decompress(b"".join(d for kind, d in parts if kind == b"IDAT"))
    rows, above = [], bytes(3 * width)
    for y in range(height):
        kind, *row = raw[y * (3 * width + 1):(y + 1) * (3 * width + 1)]
        for i, v in enumerate(row):
            left, corner = (row[i - 3], above[i - 3]) if i >= 3 else (0, 0)
            row[i] = (v + predict(kind, left, above[i], corner)) & 255
        rows.append(row)
        above = row
    return rows


def write_png(path, rows):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    header = struct.pack(">IIBBBBB", len(rows[0]) // 3, len(rows), 8, 2, 0, 0, 0)
    raw = zlib.compress(b"".join(b"\0" + bytes(r) for r in rows))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", raw) + chunk(b"IEND", b""))


def sources(n, start, size, mirrored):
    """For each of n positions two neighbours in the part, and the weight of the second one."""
    for i in range(n):
        at = min(max((start + size * ((n - 1 - i if mirrored else i) + 0.5) / n) * n - 0.5, 0), n - 1)
        a = min(int(at), n - 2)
        yield a, a + 1, at - a


def variant(rows, left, top, size, mirrored, contrast, brightness):
    """The part at the size of the whole, by linear interpolation."""
    shade = [min(max(round((v - 128) * contrast + 128 + brightness), 0), 255) for v in range(256)]
    columns, out = list(sources(len(rows[0]) // 3, left, size, mirrored)), []
    for a, b, f in sources(len(rows), top, size, False):
        row = [p + (q - p) * f for p, q in zip(rows[a], rows[b])]
        out.append([shade[round(row[3 * x + c] + (row[3 * y + c] - row[3 * x + c]) * g)]
                    for x, y, g in columns for c in range(3)])
    return out


def main(picture, folder):
    rows = read_png(Path(picture))
    for k, v in enumerate(VARIANTS):
        write_png(Path(folder) / f"{k:02}.png", variant(rows, *v))


if __name__ == "__main__":
    main(*sys.argv[1:])
