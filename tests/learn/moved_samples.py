"""What mixing and moving samples is, in numpy: for run_train.py."""
import numpy as np

MASK = (1 << 64) - 1


def random_at(seed, stream, k):
    """Number k of a stream (driver/train/random.h)."""
    def mixed(v):
        v = (v ^ v >> 30) * 0xBF58476D1CE4E5B9 & MASK
        v = (v ^ v >> 27) * 0x94D049BB133111EB & MASK
        return v ^ v >> 31
    golden = 0x9E3779B97F4A7C15
    s = mixed(mixed((seed + golden) & MASK) ^ (stream + 1) * golden & MASK)
    return mixed(s + (k + 1) * golden & MASK)


def shuffled(seed, stream, v):
    v = list(v)
    for k in range(len(v) - 1, 0, -1):
        i = random_at(seed, stream, k) * (k + 1) >> 64
        v[k], v[i] = v[i], v[k]
    return v


def draw(seed, call):
    """The numbers of a call in (0, 1)."""
    return iter((((random_at(seed, call ^ 1 << 63, k) >> 12) + 0.5) * 2.0 ** -52 for k in range(100)))


def partners(seed, n, order):
    return [order[random_at(seed, 3 << 56 | 1, k) * n >> 64] for k in range(n)]


def sgd_step(x, w, b, y, other, share):
    """Of softmax cross-entropy against both labels, with a rate of 1."""
    z = x.reshape(len(x), -1) @ w.T + b
    p = np.exp(z - z.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    p -= share * np.eye(len(b))[y] + (1 - share) * np.eye(len(b))[other]
    return w - p.T @ x.reshape(len(x), -1) / len(x), b - p.mean(0)


def taps(first, size, n):
    at = first + (np.arange(n) + 0.5) * size / n - 0.5
    low = np.floor(at).astype(int)
    return np.clip(low, 0, n - 1), np.clip(low + 1, 0, n - 1), at - low


def warped(image, draw, crop, color):
    """A part of [C, H, W] as large as the whole, in other colours (driver/train/warp.c)."""
    u = [(random_at(draw, 0, k) >> 11) / 2**53 for k in range(7)]
    _, h, w = image.shape
    if crop:
        area, ratio = crop + (1 - crop) * u[0], 3 / 4 + (4 / 3 - 3 / 4) * u[1]
        high, wide = min(np.sqrt(area * ratio), 1) * h, min(np.sqrt(area / ratio), 1) * w
        (a, b, part), (left, right, across) = taps(u[2] * (h - high), high, h), taps(u[3] * (w - wide), wide, w)
        lines = image[:, a] + part[:, None] * (image[:, b] - image[:, a])
        image = lines[:, :, left] + across * (lines[:, :, right] - lines[:, :, left])
    if color:
        contrast, saturation, shift = 1 + color * (2 * u[4] - 1), 1 + color * (2 * u[5] - 1), color * image.std() * (2 * u[6] - 1)
        mean, grey = image.mean(), image.mean(0)
        image = mean + shift + contrast * (grey + saturation * (image - grey) - mean)
    return image
