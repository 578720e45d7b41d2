"""Companion library for visual word sense disambiguation: find the picture that a phrase means.

Rooms, each importing only from those to its right:
`cli, explore, runner, pipeline -> results -> analysis -> polclip, language -> encoders -> data -> config, errors, paths`.
"""

__version__ = "0.1.0"
