"""How far outputs are from what they should be."""
import math

import numpy as np


def sqnr(got, wanted, exact=math.inf):
    """The power of the outputs over that of their errors, in dB; `exact` where there are none."""
    noise = sum(float(((np.asarray(a, np.float64) - b) ** 2).sum()) for a, b in zip(got, wanted))
    signal = sum(float((np.asarray(b, np.float64) ** 2).sum()) for b in wanted)
    return exact if noise == 0 else 10 * np.log10(signal / noise)
