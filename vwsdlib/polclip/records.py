"""Records: one question of word sense disambiguation with the glosses and pictures of its candidate senses. What PolCLIP is trained on and tested with."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Candidate:
    """One sense that the target may have: its id, its gloss, names of its pictures (files; none where there is no picture)."""

    id: str
    gloss: str
    pictures: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Record:
    """One question: in which sense are the words `span[0]` to `span[1]` (both included) used?

    `golds` holds the ids of the right candidates, none where the answer is not known; `definition` is text about the target from elsewhere
    (never the gold gloss), empty by default.
    """

    id: str
    language: str
    words: tuple[str, ...]
    span: tuple[int, int]
    candidates: tuple[Candidate, ...]
    golds: tuple[str, ...]
    pos: str = ""
    set: str = ""
    definition: str = ""

    @property
    def target(self) -> str:
        """The target as it stands in the context."""
        return " ".join(self.words[self.span[0]: self.span[1] + 1])

    @property
    def sentence(self) -> str:
        """The words with a space between them."""
        return " ".join(self.words)
