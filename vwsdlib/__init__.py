"""Companion library for visual word sense disambiguation: find the picture that a phrase means.

Rooms, each importing only from those to its right: `cli -> explore -> runner, pipeline, notebook ->
results -> analysis -> polclip -> language -> rehearsal -> encoders -> data -> errors, paths`.
"""

__version__ = "0.2.0"
