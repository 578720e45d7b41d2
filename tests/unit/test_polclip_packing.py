"""Packing: properties on random records, a naive twin, and the released code's ways behind their
flags.
"""

import subprocess
import sys
from collections import Counter
from dataclasses import replace
from itertools import chain, pairwise
from pathlib import Path
from random import Random

import pytest

from polclip.packing import pack
from polclip.records import Candidate, Record
from vwsdlib.errors import VwsdError


def make(name: str, counts, golds=(0,)) -> Record:
    """A record with a candidate for each number of pictures in `counts`."""
    candidates = tuple(
        Candidate(f"{name}.{i}", "g", tuple(f"{name}.{i}.{j}.jpg" for j in range(n)))
        for i, n in enumerate(counts)
    )
    return Record(name, "en", ("a", "bat"), (1, 1), candidates, tuple(f"{name}.{g}" for g in golds))


def some(seed: int, n: int = 120, most: int = 14) -> list[Record]:
    random = Random(seed)
    counts = [
        [random.choice((0, 1, 3, 5, 8)) for _ in range(random.randint(1, most))] for _ in range(n)
    ]
    return [
        make(f"r{i}", c, sorted(random.sample(range(len(c)), random.randint(1, min(2, len(c))))))
        for i, c in enumerate(counts)
    ]


def ids(batches) -> list[list[str]]:
    return [[r.id for r in batch] for batch in batches]


def senses(batch) -> int:
    return sum(len(r.candidates) for r in batch)


def pictures(batch) -> int:
    return sum(len(c.pictures) for r in batch for c in r.candidates)


@pytest.mark.parametrize(
    "budget", [(50, 250, 5), (10, 50, 5), (20, 20, 2), (6, 7, 3), (1, 1, 1), (50, 0, 5)]
)
def test_every_record_once_and_no_budget_exceeded(budget):
    records = some(1)
    batches = list(pack(records, *budget))
    assert Counter(chain(*ids(batches))) == Counter(r.id for r in records)
    assert all(
        batch and senses(batch) <= budget[0] and pictures(batch) <= budget[1] for batch in batches
    )
    assert max(len(c.pictures) for b in batches for r in b for c in r.candidates) <= budget[2]
    whole = {r.id: r for r in records}
    for record in chain(*batches):
        before = whole[record.id]
        own = {c.id: c for c in before.candidates}
        assert [c.id for c in record.candidates] == [
            i for i in own if i in {c.id for c in record.candidates}
        ]  # order as it was
        assert all(
            list(c.pictures) == [p for p in own[c.id].pictures if p in c.pictures]
            for c in record.candidates
        )
        assert (
            record.golds == before.golds[: budget[0]]
            if len(before.candidates) > budget[0]
            else record.golds == before.golds
        )
        assert replace(record, candidates=before.candidates, golds=before.golds) == before


def naive(records, budget_senses, budget_pictures):
    """Greedy packing of records that need no trimming, said another way."""
    batches = [[]]
    for record in records:
        if (
            senses([*batches[-1], record]) > budget_senses
            or pictures([*batches[-1], record]) > budget_pictures
        ):
            batches.append([])
        batches[-1].append(record)
    return batches


@pytest.mark.parametrize("seed", range(5))
def test_a_naive_twin_packs_the_same(seed):
    records = [r for r in some(seed, 600, most=5) if pictures([r]) <= 40]
    twin = ids(naive(records, 20, 50))
    assert ids(pack(records, 20, 50, per_sense=8, shuffle=False)) == twin
    assert twin != ids(naive(records, 20, 49)) and twin != ids(
        naive(records, 19, 50)
    )  # the twin sees one more or less


def test_no_batch_could_take_the_next_record():
    batches = list(pack(some(2), 20, 60))
    for batch, after in pairwise(batches):
        assert (
            senses(batch) + len(after[0].candidates) > 20
            or pictures(batch) + pictures(after[:1]) > 60
        )


def test_the_same_again_and_anew_each_epoch_and_seed():
    records = some(3)
    first = list(pack(records))
    assert (
        first == list(pack(records))
        and first != list(pack(records, epoch=1))
        and first != list(pack(records, seed=1))
    )
    assert ids(pack(records, epoch=1)) != ids(first) and ids(pack(records, shuffle=False))[0][
        :3
    ] == ["r0", "r1", "r2"]

    def one(epoch):
        return next(pack([make("x", [40])], epoch=epoch))[0].candidates[0].pictures

    assert one(0) == one(0) != one(1)


def test_another_process_packs_the_same():
    """No hash of text, which changes from process to process, may decide."""
    program = (
        "import sys; sys.path.insert(0, 'tests/unit'); from test_polclip_packing import *; import"
        " hashlib;print(hashlib.sha256(repr(list(pack(some(4), 20, 60))).encode()).hexdigest())"
    )
    root = Path(__file__).resolve().parents[2]
    runs = {
        subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            text=True,
            check=True,
            cwd=root,
            env={"PYTHONHASHSEED": s},
        ).stdout
        for s in "12"
    }
    assert len(runs) == 1


def test_what_is_drawn_does_not_depend_on_the_neighbours():
    records = some(5)
    cut = {r.id: r for r in chain(*pack(records, 8, 30, 2))}
    alone = {r.id: r for record in records for r in chain(*pack([record], 8, 30, 2))}
    turned = {r.id: r for r in chain(*pack(records[::-1], 8, 30, 2, shuffle=False))}
    assert cut == alone == turned


def test_too_many_senses_make_a_batch_of_their_own_with_the_golds_in_it():
    big = make("big", [1] * 30, golds=(7, 29))
    batches = list(pack([make("a", [1]), big, make("b", [1])], 10, 50, shuffle=False))
    assert (
        [len(b) for b in batches] == [1, 1, 1]
        and senses(batches[1]) == 10
        and set(big.golds) <= {c.id for c in batches[1][0].candidates}
    )
    drawn = {
        c.id
        for epoch in range(20)
        for r in next(pack([big], 10, epoch=epoch))
        for c in r.candidates
    }
    assert len(drawn) > 25  # other senses in other epochs
    assert len(next(pack([make("free", [1] * 30, golds=())], 10))[0].candidates) == 10
    crowd = next(pack([make("crowd", [0] * 30, golds=range(30))], 10))[0]
    assert len(crowd.candidates) == len(crowd.golds) == 10


def test_pictures_beyond_the_budget_are_cut_alike():
    [record] = next(pack([make("x", [9, 5, 1, 0])], 50, pictures=8))
    assert [len(c.pictures) for c in record.candidates] == [3, 3, 1, 0]
    assert [
        len(c.pictures) for c in next(pack([make("x", [9, 5])], 50, pictures=1))[0].candidates
    ] == [0, 0]


def test_the_released_codes_ways():
    records = [make(f"r{i}", [5, 5]) for i in range(7)]
    assert [len(b) for b in pack(records, 10, 25)] == [2, 2, 2, 1]
    assert [len(b) for b in pack(records, 10, 25, drop_last=True)] == [2, 2, 2]
    assert [len(b) for b in pack(records, 10, 25, count_pictures=False)] == [
        5,
        2,
    ]  # 50 pictures for a budget of 25: it does not bind
    assert pictures(next(pack([make("x", [9, 9, 9])], 10, 7, count_pictures=False))) == 15
    assert list(pack([])) == list(pack([], drop_last=True)) == []


def test_an_iterator_is_shuffled_in_a_window():
    records = some(6, 300)
    streamed = list(pack(iter(records), buffer=50))
    order = list(chain(*ids(streamed)))
    assert (
        Counter(order) == Counter(r.id for r in records)
        and order != [r.id for r in records]
        and streamed == list(pack(iter(records), buffer=50))
    )
    assert all(
        int(name[1:]) < at + 50 for at, name in enumerate(order)
    )  # nothing from beyond the window
    seen = []
    next(pack((seen.append(r) or r for r in records), 10, buffer=50))
    assert 50 <= len(seen) < 70
    assert list(chain(*ids(pack(iter(records), shuffle=False)))) == [r.id for r in records]


def test_a_record_without_candidates_is_named():
    with pytest.raises(VwsdError, match="without candidates") as e:
        list(pack([make("empty", [], golds=())]))
    assert e.value.where == "empty"
