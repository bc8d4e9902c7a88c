"""The normal draws that stand for a lane's ascent gradient under `sam.direction = "random"`, bit for bit.

Entry i of tensor number `tensor` (from 0, in ascending order of name), in step `step` (from 0) and for the lane whose first example is
the `first` of its batch (from 0), is draw i of the stream of Philox4x32-10 (Salmon et al., SC 2011)

    key      the first two words of philox(counter = (step mod 2^32, step div 2^32, 6, 0x57425448), key = (seed mod 2^32, seed div 2^32))
    counter  (k mod 2^32, k div 2^32, first, tensor) for block k, which gives words 4 k .. 4 k + 3

and of its words a = 2 j, b = 2 j + 1 come the draws 2 j and 2 j + 1, after Box and Muller, in float64:

    r cos t, r sin t    with r = sqrt(-2 ln((a + 1) / 2^32)), t = 2 pi b / 2^32

Logarithm, cosine and sine are the sums below, in this order of operations: libraries differ in the last bit.
"""
import math

import numpy as np


def philox(counter, key):
    """128 bits for each counter: four arrays of 32-bit words in, four out (10 rounds)."""
    c, low = [np.asarray(x, np.uint64) for x in counter], np.uint64(0xFFFFFFFF)
    for r in range(10):
        k = [np.uint64((key[i] + r * weyl) % 2**32) for i, weyl in enumerate((0x9E3779B9, 0xBB67AE85))]
        a, b = c[0] * np.uint64(0xD2511F53), c[2] * np.uint64(0xCD9E8D57)
        c = [(b >> np.uint64(32)) ^ c[1] ^ k[0], b & low, (a >> np.uint64(32)) ^ c[3] ^ k[1], a & low]
    return c


def log(a):
    """ln((a + 1) / 2^32) = e ln 2 + 2 artanh f, where (a + 1) / 2^32 = m 2^e and f = (m - 1) / (m + 1)."""
    m, e = np.frexp(a.astype(np.float64) + 1)
    small = 2 * m <= math.sqrt(2)
    m, e = np.where(small, 2 * m, m), np.where(small, e - 1, e) - 32
    f = (m - 1) / (m + 1)
    s, p = f * f, 1 / 21
    for n in range(19, 0, -2):
        p = p * s + 1 / n
    return e.astype(np.float64) * math.log(2) + 2 * f * p


def turn(b):
    """Cosine and sine of 2 pi b / 2^32: the nearest quarter turn is taken off in integers, the rest goes into Taylor's series."""
    quarter = ((b.astype(np.int64) + 2**29) >> 30)
    x = (b.astype(np.int64) - (quarter << 30)).astype(np.float64) * (2 * math.pi / 2**32)
    quarter, s = quarter % 4, x * x
    sine, cosine = 1 / math.factorial(17), 1 / math.factorial(16)
    for n in range(15, 0, -2):
        sine = sine * s + (-1) ** (n // 2) / math.factorial(n)
    for n in range(14, -1, -2):
        cosine = cosine * s + (-1) ** (n // 2) / math.factorial(n)
    sine = x * sine
    a, b = np.where(quarter % 2 == 1, sine, cosine), np.where(quarter % 2 == 1, cosine, sine)
    return np.where((quarter == 1) | (quarter == 2), -a, a), np.where(quarter >= 2, -b, b)


def normal(seed, step, first, tensor, count):
    """The first `count` draws of a tensor, float64; the program rounds each to float32, as a gradient is."""
    key = philox((step % 2**32, step >> 32, 6, 0x57425448), (seed % 2**32, seed >> 32))[:2]
    k = np.arange((count + 3) // 4, dtype=np.uint64)
    blocks = philox((k & np.uint64(0xFFFFFFFF), k >> np.uint64(32), np.full_like(k, first), np.full_like(k, tensor)), [int(x) for x in key])
    words = np.stack(blocks, 1).reshape(-1)
    radius, (cosine, sine) = np.sqrt(-2 * log(words[0::2])), turn(words[1::2])
    return np.stack([radius * cosine, radius * sine], 1).reshape(-1)[:count]
