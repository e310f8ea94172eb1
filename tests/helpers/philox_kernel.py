"""A kernel of the tests: Triton reads a kernel's source from its file."""

from __future__ import annotations

import numpy as np
import torch
import triton
import triton.language as tl
from numpy.typing import NDArray

from formulavision.rendering.random_triton import philox4x32
from formulavision.rendering.triton_support import signed


@triton.jit(do_not_specialize=["c0", "c1", "c2", "c3", "k0", "k1"])
def _philox(words, c0, c1, c2, c3, k0, k1, COUNT: tl.constexpr):  # type: ignore[no-untyped-def]
    n = tl.arange(0, COUNT)
    w0, w1, w2, w3 = philox4x32(c0.to(tl.uint32) + n.to(tl.uint32), c1, c2, c3, k0, k1)
    tl.store(words + n, w0.to(tl.int64))
    tl.store(words + COUNT + n, w1.to(tl.int64))
    tl.store(words + 2 * COUNT + n, w2.to(tl.int64))
    tl.store(words + 3 * COUNT + n, w3.to(tl.int64))


def philox_words(counter: list[int], key: list[int], device: torch.device, count: int = 8) -> NDArray[np.int64]:
    """The words of ``count`` counters from this one on, int64 [4, count]."""
    words = torch.zeros((4, count), dtype=torch.int64, device=device)
    _philox[(1,)](words, *(signed(word) for word in counter + key), COUNT=count)
    return words.cpu().numpy()
