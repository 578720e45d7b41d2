"""What the printed numbers must be, computed a second time by code that shares nothing with the
library and knows only the plain layout.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path


def rows(path: Path) -> list[list[str]]:
    """Tab-separated lines."""
    lines = path.read_text(encoding="utf-8-sig").split("\n")
    while lines and not lines[-1].strip():
        lines.pop()
    return [line.rstrip("\r").split("\t") for line in lines]


def gold_places(folder: Path) -> list[tuple[list[str], int]]:
    """Candidates and the place of the gold among them, an item each."""
    golds = [row[0] for row in rows(folder / "en.toy.gold.txt")]
    items = [row[2:] for row in rows(folder / "en.toy.data.txt")]
    if len(golds) != len(items):
        raise ValueError("golds and items")
    return [(names, names.index(gold)) for names, gold in zip(items, golds)]


def score(folder: Path) -> list[tuple[int, int, float]]:
    """(k, n, MRR in percent to four places) of a.tsv and of b.txt."""
    items = gold_places(folder)
    return [
        _system(_ranks_of_scores(folder / "a.tsv", items)),
        _system(_ranks_of_rankings(folder / "b.txt", items)),
    ]


def _ranks_of_scores(path: Path, items) -> list[int]:
    header, *body = rows(path)
    if len(body) != len(items):
        raise ValueError("lines and items")
    columns = [header.index(f"score_{place}") for place in range(1, 11)]
    if "index" in header:  # the table says itself where its rows belong
        body.sort(key=lambda row: int(row[header.index("index")]))
    ranks = []
    for row, (_, gold) in zip(body, items):
        scores = [float(row[column]) for column in columns]
        better = sum(value > scores[gold] for value in scores)
        equal_before = sum(value == scores[gold] for value in scores[:gold])
        ranks.append(1 + better + equal_before)
    return ranks


def _ranks_of_rankings(path: Path, items) -> list[int]:
    body = rows(path)
    if len(body) != len(items):
        raise ValueError("lines and items")
    return [1 + row.index(names[gold]) for row, (names, gold) in zip(body, items)]


def _system(ranks: list[int]) -> tuple[int, int, float]:
    return ranks.count(1), len(ranks), round(100 * sum(1 / rank for rank in ranks) / len(ranks), 4)


def audit(folder: Path) -> tuple:
    """(items, distinct targets, distinct pictures, golds at each place)."""
    items = gold_places(folder)
    targets = {row[0] for row in rows(folder / "en.toy.data.txt")}
    pictures = {name for names, _ in items for name in names}
    places = Counter(gold for _, gold in items)
    return len(items), len(targets), len(pictures), [places[place] for place in range(10)]


def wsd_score(folder: Path) -> float:
    """F1 in percent of answers.key against x.key."""
    gold = {line[0]: set(line[1:]) for line in _words(folder / "x.key")}
    answers = {line[0]: line[1:] for line in _words(folder / "answers.key")}
    if not answers:
        return 0.0
    right = sum(
        sum(answer in gold[name] for answer in given) / len(given)
        for name, given in answers.items()
        if name in gold
    )
    precision, recall = right / len(answers), right / len(gold)
    return round(100 * 2 * precision * recall / (precision + recall), 4) if right else 0.0


def _words(path: Path) -> list[list[str]]:
    return [
        line.split() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()
    ]
