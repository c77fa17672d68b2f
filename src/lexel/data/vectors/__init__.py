"""Vectors, such as embeddings: from arrays and tables to float32 tensors, and back. Needs the extra `lexel[train]`."""

try:
    import numpy  # noqa: F401
except ImportError as error:
    raise ImportError("lexel.data.vectors needs numpy: pip install 'lexel[train]'") from error

from lexel.data.vectors.open import Vectors, open_vectors

__all__ = ["Vectors", "open_vectors"]
