"""Where the tests of the interactions' Python module put their arrays."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest


class Device:
    """Makes arrays on a device and brings them back: NumPy, or PyTorch's for the GPU (CuPy has no bfloat16)."""

    def __init__(self, kind: str):
        self.kind = kind
        if kind != "numpy":
            self.torch = pytest.importorskip("torch", reason="PyTorch makes the GPU's arrays")

    def to(self, array):
        if self.kind == "numpy":
            return array
        if array.dtype == ml_dtypes.bfloat16:
            bits = self.torch.from_numpy(array.view(np.int16).copy())
            return bits.view(self.torch.bfloat16).cuda()
        return self.torch.from_numpy(np.ascontiguousarray(array)).cuda()

    def back(self, array):
        return array.astype(np.float64) if self.kind == "numpy" else array.double().cpu().numpy()
