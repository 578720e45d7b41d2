"""Baselines of textual WSD: a number for each candidate of each item, higher is better, and the
answers that follow from the numbers.

Ties go to the earlier candidate, so to the more frequent sense where the inventory has an order; an
item without candidates stays unanswered.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cache

import numpy as np

from ..data.wordnet import WordNet
from ..data.wsd import WsdItem
from ..encoders.registry import load_encoder
from ..encoders.store import VectorStore
from ..errors import VwsdError
from ..finite import best, finite
from ..paths import quiet
from ..progress import tqdm

NO_BEST = "none of them is the best"
Scores = list[np.ndarray]  # an array [candidates] an item
STOP = frozenset(
    """about after all also an and any are as at be because been before being but by can could did
    do does each either esp etc for from had has have he her him his how if in into is it its
    just may me more most much must my no nor not of off on one only or other our out over own
    same she should so some such than that the their them then there these they this those
    through to too under up upon us used using usually very was we were what when where which
    while who whom whose why will with within without would you your""".split()
)


def first_sense_scores(items: Sequence[WsdItem]) -> Scores:
    """The first candidate of each item: in WordNet's order the sense most frequent in SemCor, the
    field's baseline (ALL 65.2).
    """
    return [-np.arange(len(item.candidates), dtype=float) for item in items]


def lesk_scores(items: Sequence[WsdItem], wordnet: WordNet | None = None) -> Scores:
    """Simplified Lesk (Kilgarriff & Rosenzweig 2000): how many distinct words the sentence shares
    with gloss and examples.

    Words are lower-cased and not stemmed; stop words, single letters and the target itself do not
    count. Examples come from `wordnet` where it is given (the candidates must be its sense keys);
    without it glosses stand alone.
    """

    @cache
    def signature(key: str, gloss: str) -> frozenset[str]:
        examples = wordnet.sense(key).examples if wordnet else ()
        return _content(" ".join((gloss, *examples)))

    scores = []
    for item in tqdm(items, desc="lesk", unit=" items", leave=False, disable=quiet()):
        first, last = item.span
        target = _content(" ".join((*item.tokens[first : last + 1], item.lemma.replace("_", " "))))
        context = _content(" ".join((*item.tokens[:first], *item.tokens[last + 1 :]))) - target
        pairs = zip(item.candidates, glosses_of(item))
        shared = [len(context & signature(key, gloss)) for key, gloss in pairs]
        scores.append(np.array(shared, dtype=float))
    return scores


def encoder_scores(items: Sequence[WsdItem], store: VectorStore | None = None) -> Scores:
    """Cosine of the sentence and "lemma: gloss" under a sentence encoder, any one of the
    registry's, by default the lite encoder's texts.

    Nothing is trained. All targets of a sentence share its vector: what tells them apart is their
    own candidates.
    """
    store = store or VectorStore(load_encoder("lite"))
    texts = dict.fromkeys(item.sentence for item in items)  # each once, in the order of coming
    senses = []
    for item in items:
        lemma = item.lemma.replace("_", " ")
        senses.append([f"{lemma}: {gloss}" for gloss in glosses_of(item)])
        texts |= dict.fromkeys(senses[-1])
    vectors = store.texts(list(texts))  # [texts, d]
    finite(
        vectors,
        f"the vectors of the encoder {getattr(store.encoder, 'name', '')}",
        "it overflows, or its weights are damaged",
        remedy="Take another encoder or variant.",
    )
    row = {text: i for i, text in enumerate(texts)}
    scores = []
    for item, glosses in zip(items, senses):
        candidates = vectors[[row[text] for text in glosses]].astype(np.float64)
        scores.append(candidates @ vectors[row[item.sentence]].astype(np.float64))
    return scores


# name -> scores of items, given WordNet where the candidates are its sense keys (else None) and the
# name of an encoder
BASELINES: dict[str, Callable[[Sequence[WsdItem], WordNet | None, str], Scores]] = {
    "first-sense": lambda items, wordnet, encoder: first_sense_scores(items),
    "lesk": lambda items, wordnet, encoder: lesk_scores(items, wordnet),
    "encoder": lambda items, wordnet, encoder: encoder_scores(
        items, VectorStore(load_encoder(encoder))
    ),
}


def choose(items: Sequence[WsdItem], scores: Scores) -> dict[str, tuple[str, ...]]:
    """Item id -> its best candidate, the earlier of equals; none for an item without candidates.

    VwsdError, naming the item, where a score is no number.
    """
    answers: dict[str, tuple[str, ...]] = {}
    for item, own in zip(items, scores):
        answers[item.id] = ()
        if item.candidates:
            place = best(own, "the scores", NO_BEST, item.id, "Score the items again.")
            answers[item.id] = (item.candidates[place],)
    return answers


def _content(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"[^\W_]{2,}", text.lower())) - STOP


def glosses_of(item: WsdItem) -> tuple[str, ...]:
    """A gloss for each of the item's candidates; VwsdError where there are none."""
    if len(item.glosses) != len(item.candidates):
        raise VwsdError(
            "the item's candidates have no glosses",
            where=item.id,
            remedy=(
                "Give the reader a gloss for each sense id, or take the first sense, which needs"
                " none."
            ),
        )
    return item.glosses
