"""Items, pictures and sets. Knows the files; knows nothing of models or notebooks."""

from .sets import fingerprint, load_set  # noqa: F401
