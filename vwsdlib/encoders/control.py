"""A control that knows nothing: what any ranking must beat, and a stand-in where a test needs an
encoder without weights.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from ..paths import sha256_bytes


class RandomEncoder:
    """A fixed random unit vector for each picture (by pixels) and each text: [n, 64] float32."""

    name, dim, batch_size = "random", 64, 256

    def encode_images(self, images: Sequence[Image.Image]) -> np.ndarray:
        """RGB pictures -> [n, 64] unit rows."""
        return np.stack([self._vector(i.tobytes()) for i in images])

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Texts -> [n, 64] unit rows."""
        return np.stack([self._vector(t.encode()) for t in texts])

    def _vector(self, content: bytes) -> np.ndarray:
        v = np.random.default_rng(int(sha256_bytes(content)[:16], 16)).standard_normal(self.dim)
        return (v / np.linalg.norm(v)).astype(np.float32)

    def identity(self) -> dict:
        """What decides a vector: nothing but this class."""
        return {
            "model": "random",
            "revision": "1",
            "weights_sha256": "",
            "processor": "none",
            "image_variant": "as stored",
            "dtype": "float32",
            "device": "cpu",
        }


def load_random() -> RandomEncoder:
    """The control under its registry name."""
    return RandomEncoder()
