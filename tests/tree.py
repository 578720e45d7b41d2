"""Where the project's files lie, for tests that read them."""

from vwsdlib import paths

ROOT = paths.PACKAGE.parent
SOURCES = sorted(path for package in paths.PACKAGES for path in (ROOT / package).rglob("*.py"))


def module_name(path):
    """Dotted name of a source file."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
