"""Visual word sense disambiguation: find the picture that a phrase means.

The task itself, thin enough to be read: data, encoders, language, analysis. What is built on it
lives beside it and is never imported from here: `polclip` (the second paper's model),
`vwsd_standins` (what exists because no hub answers) and `vwsd_companion` (facts, views, commands).
"""

__version__ = "0.2.0"
