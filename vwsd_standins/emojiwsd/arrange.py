"""Which ten pictures stand beside each phrase: an arrangement that tells nothing without the text.

The official sets leak: gold images are rarer than distractors. Here every picture of a file fills
the same number of slots and is gold the same number of times, so counting tells nothing. Nor does
likeness: distractors of the gold's own kind alone would mark the gold as the odd one *in*, so every
sense of the lemma gets one mate of its kind and the other distractors come in such pairs too. Gold
positions are dealt out evenly.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from vwsdlib.data.items import CANDIDATES
from vwsdlib.errors import VwsdError

from .drawings import STYLES
from .senses import Sense

Picture = tuple[str, str]  # (emoji, style)


@dataclass
class Question:
    """A phrase waiting for its pictures: `fixed` are the gold and the other senses of the lemma,
    `filler` the rest.
    """

    sense: Sense
    target: str
    phrase: str
    gold: Picture
    fixed: list[Picture] = field(default_factory=list)
    filler: list[Picture] = field(default_factory=list)


def questions(senses: Sequence[Sense], language: str, rng: random.Random) -> list[Question]:
    """The questions of one file, without distractors.

    English asks two phrases a sense, one for each drawing in random order; the other languages one
    phrase with a random drawing.
    """
    asked = []
    for sense in senses:
        styles = rng.sample(STYLES, 2)
        if language == "en":
            texts = [(sense.lemma, phrase) for phrase in sense.phrases]
        else:
            texts = [getattr(sense, language)]
        for (target, phrase), style in zip(texts, styles):
            asked.append(Question(sense, target, phrase, (sense.emoji, style)))
    return asked


def arrange(
    asked: list[Question], kind: dict[str, str], rng: random.Random
) -> list[tuple[Picture, ...]]:
    """Ten candidates for each question, gold included; fills `fixed` and `filler` of the questions
    on the way.

    kind: emoji -> subgroup, as `kinds` gives it. Every picture of the pool (all golds) ends in
    exactly ten slots.
    """
    _add_other_senses(asked, rng)
    spare = Counter({q.gold: CANDIDATES - 1 for q in asked})
    for q in asked:
        spare.subtract(q.fixed[1:])
    _deal(asked, spare, kind, rng)
    _repair(asked, kind, rng)
    places = [i % CANDIDATES for i in range(len(asked))]
    rng.shuffle(places)
    return [_seat(q, place, rng) for q, place in zip(asked, places)]


def kinds(senses: Sequence[Sense], subgroup: dict[str, tuple[str, str]]) -> dict[str, str]:
    """Emoji -> kind: its Unicode subgroup, or its group (then "other") where fewer than four senses
    share it.

    subgroup: emoji -> (group, subgroup).
    """
    kind = {s.emoji: subgroup[s.emoji][1] for s in senses}
    groups = {emoji: subgroup[emoji][0] for emoji in kind}
    for coarser in (groups, dict.fromkeys(kind, "other")):
        sizes = Counter(kind.values())
        kind = {e: k if sizes[k] >= 4 else coarser[e] for e, k in kind.items()}
    return kind


def _add_other_senses(asked: list[Question], rng: random.Random) -> None:
    drawings, by_lemma = defaultdict(list), defaultdict(list)
    for q in asked:
        drawings[q.gold[0]].append(q.gold)  # the pool's drawings of each emoji
        by_lemma[q.sense.lemma].append(q)
    for group in by_lemma.values():
        for emoji in dict.fromkeys(q.gold[0] for q in group):
            others = [q for q in group if q.gold[0] != emoji]
            turns = (drawings[emoji] * len(others))[: len(others)]  # both drawings equally often
            rng.shuffle(turns)
            for q, picture in zip(others, turns):
                q.fixed.append(picture)
    for q in asked:
        q.fixed.insert(0, q.gold)


def _deal(asked: list[Question], spare: Counter, kind: dict[str, str], rng: random.Random) -> None:
    """Give out all spare slots in pairs of a kind as far as the rules allow; `_repair` mends what
    is left.
    """
    order = []
    for q in asked:
        order += [q] * (CANDIDATES - len(q.fixed))
    rng.shuffle(order)
    for q in order:
        have = Counter(kind[p[0]] for p in q.fixed + q.filler)
        options = [p for p in spare if spare[p] > 0]
        fitting = [p for p in options if _allowed(q, p)]
        halves = [p for p in fitting if have[kind[p[0]]] == 1]
        wanted = halves or [p for p in fitting if not have[kind[p[0]]]] or fitting or options
        most = max(spare[p] for p in wanted)
        picture = rng.choice([p for p in wanted if spare[p] == most])
        spare[picture] -= 1
        q.filler.append(picture)


def _allowed(q: Question, picture: Picture, but: Picture | None = None) -> bool:
    """May `picture` stand in the question (in the place of `but`)? No emoji twice, none that also
    answers the phrase.
    """
    others = [p for p in q.fixed + q.filler if p is not but]
    return picture[0] not in q.sense.not_with and all(picture[0] != p[0] for p in others)


def _cost(q: Question, kind: dict[str, str]) -> int:
    """Broken rules count a hundred; a kind that is not exactly a pair counts by its distance."""
    emoji = [p[0] for p in q.fixed + q.filler]
    broken = len(emoji) - len(set(emoji)) + sum(p[0] in q.sense.not_with for p in q.filler)
    sizes = Counter(kind[e] for e in emoji)
    return 100 * broken + sum(abs(size - 2) for size in sizes.values())


def _repair(
    asked: list[Question], kind: dict[str, str], rng: random.Random, rounds: int = 60
) -> None:
    """Swap fillers between questions (which keeps every picture's count) while that lowers the
    cost.
    """
    costs = [_cost(q, kind) for q in asked]
    for _ in range(rounds):
        bad = [i for i, c in enumerate(costs) if c]
        rng.shuffle(bad)
        for i in bad:
            for j in rng.sample(range(len(asked)), min(12, len(asked))):
                if i != j:
                    _try_swap(asked, i, j, costs, kind, rng)
    if max(costs) >= 100:
        raise VwsdError(
            "no arrangement of candidates keeps all rules",
            where="EmojiWSD",
            remedy="Loosen a not_with list or add senses of other kinds.",
        )


def _try_swap(
    asked: list[Question],
    i: int,
    j: int,
    costs: list[int],
    kind: dict[str, str],
    rng: random.Random,
) -> None:
    a, b = asked[i], asked[j]
    x, y = rng.randrange(len(a.filler)), rng.randrange(len(b.filler))
    a.filler[x], b.filler[y] = b.filler[y], a.filler[x]
    after = _cost(a, kind), _cost(b, kind)
    if sum(after) <= costs[i] + costs[j]:
        costs[i], costs[j] = after
    else:
        a.filler[x], b.filler[y] = b.filler[y], a.filler[x]


def _seat(q: Question, place: int, rng: random.Random) -> tuple[Picture, ...]:
    rest = q.fixed[1:] + q.filler
    rng.shuffle(rest)
    return (*rest[:place], q.gold, *rest[place:])
