"""WordNet's dict files: sense order, glosses without examples, folders found where people have
them, faults named.
"""

import pytest

from vwsdlib.data import wordnet as module
from vwsdlib.data.wordnet import load_wordnet, wordnet_folder
from vwsdlib.errors import VwsdError


def test_candidates_come_in_sense_order_not_in_the_order_of_keys(toy_wordnet):
    assert [s.key for s in toy_wordnet.candidates("bat", "NOUN")] == [
        "bat%1:05:00::",
        "bat%1:04:00::",
        "bat%1:06:00::",
    ]
    assert [s.number for s in toy_wordnet.candidates("Bat", "n")] == [1, 2, 3]
    assert [s.key for s in toy_wordnet.candidates("remote", "ADJ")] == [
        "remote%5:00:00:inaccessible:00",
        "remote%3:00:00::",
    ]
    assert [
        s.pos
        for pos in ("VERB", "a", "s")
        for s in toy_wordnet.candidates("bat" if pos == "VERB" else "outback", pos)
    ] == ["v", "a", "a"]
    assert (
        toy_wordnet.candidates("bat", "ADV") == ()
        and toy_wordnet.candidates("unheard_of", "NOUN") == ()
    )


def test_gloss_examples_and_lemmas(toy_wordnet):
    animal, turn, club = toy_wordnet.candidates("bat", "NOUN")
    assert (
        animal.gloss == "nocturnal mammal that flies; lives in a cave"
        and animal.examples == ()
        and animal.lemmas == ("bat", "chiropteran")
    )
    assert turn.gloss == '(baseball) a turn, "at bat", trying to get a hit'
    assert turn.examples == ("he got four hits",) and turn.lemmas == ("bat", "at-bat")
    assert (
        club.gloss == "a club for hitting a ball"
        and club.examples == ("he broke his bat", "a bat of ash wood")
        and club.lemmas == ("Bat",)
    )
    assert toy_wordnet.candidates("outback", "ADJ")[0].lemmas == ("outback", "remote")
    assert (
        toy_wordnet.sense("bat%1:06:00::") == club
        and club.synset.endswith("-n")
        and len(club.synset) == 10
    )


def test_nothing_is_read_before_the_first_question(toy_dict, tmp_path):
    folder = toy_dict(tmp_path / "dict")
    net = module.WordNet(folder)
    (folder / "index.sense").unlink()
    with pytest.raises(VwsdError, match="index.sense of WordNet cannot be read"):
        net.candidates("bat", "NOUN")


@pytest.mark.parametrize("inside", ["", "dict", "corpora/wordnet"])
def test_the_folder_is_a_dict_folder_or_nltk_data(inside, toy_dict, tmp_path, monkeypatch):
    toy_dict(tmp_path / inside)
    monkeypatch.setenv("VWSD_WORDNET", str(tmp_path))
    assert (
        wordnet_folder() == tmp_path / inside
        and load_wordnet().candidates("far", "ADV")[0].gloss == "at a distance"
    )
    monkeypatch.delenv("VWSD_WORDNET")
    monkeypatch.setattr(module, "DEBIAN", tmp_path / "nowhere")
    monkeypatch.setenv("NLTK_DATA", str(tmp_path))
    assert wordnet_folder() == tmp_path / inside


def test_where_there_is_none_the_package_is_named(tmp_path, monkeypatch, toy_dict):
    monkeypatch.setattr(module, "DEBIAN", toy_dict(tmp_path / "debian"))
    assert wordnet_folder() == tmp_path / "debian"
    monkeypatch.setenv(
        "VWSD_WORDNET", str(tmp_path / "elsewhere")
    )  # named folders are not passed over in silence
    with pytest.raises(VwsdError, match="elsewhere.*apt install wordnet-base wordnet-sense-index"):
        wordnet_folder()


def test_other_versions_and_files_that_do_not_belong_together(toy_dict, tmp_path):
    with pytest.raises(VwsdError, match="not WordNet 3.0"):
        module.WordNet(toy_dict(tmp_path / "new", version="3.1"))
    folder = toy_dict(tmp_path / "mixed")
    (folder / "data.verb").write_text("  1 another\n" + (folder / "data.verb").read_text())
    net = module.WordNet(folder)
    assert net.candidates("bat", "NOUN")
    with pytest.raises(VwsdError, match="do not belong together"):
        net.candidates("bat", "VERB")


@pytest.mark.parametrize("key", ["bat%1:99:00::", "bat", "bat%9:05:00::", ""])
def test_an_unknown_key_and_an_unknown_part_of_speech(key, toy_wordnet):
    with pytest.raises(VwsdError, match="no sense key"):
        toy_wordnet.sense(key)
    with pytest.raises(VwsdError, match="no part of speech 'X'"):
        toy_wordnet.candidates("bat", "X")


def test_the_real_wordnet(wordnet):
    assert [s.key for s in wordnet.candidates("bat", "NOUN")] == [
        "bat%1:05:00::",
        "bat%1:04:00::",
        "bat%1:06:03::",
        "bat%1:06:02::",
        "bat%1:06:00::",
    ]
    turn = wordnet.sense("bat%1:04:00::")
    assert (turn.synset, turn.gloss) == ("00458456-n", "(baseball) a turn trying to get a hit")
    assert turn.examples == ("he was at bat when it happened", "he got four hits in four at-bats")
    assert (
        len(wordnet.candidates("break", "VERB")) == 59
        and len(wordnet.candidates("head", "NOUN")) == 33
    )


def test_every_sense_of_the_real_wordnet_can_be_read(wordnet):
    """206,941 senses in all (WordNet's own statistics, wnstats(7)); a step of 41 reads 5,048 of
    them.
    """
    keys = [key for entries in wordnet._index.values() for _, key, _ in entries]
    assert len(keys) == 206_941
    for key in keys[::41]:
        sense = wordnet.sense(key)
        assert sense.gloss and sense.lemma in [lemma.lower() for lemma in sense.lemmas]
    assert all(
        [n for n, _, _ in entries] == list(range(1, len(entries) + 1))
        for entries in wordnet._index.values()
    )


@pytest.mark.parametrize(
    "damage",
    [b"noise\n", b"bat%9:05:00:: 00000001 1 0\n", b"bat%1:05:00:: x one 0\n", b"\xff\xfe\n"],
)
def test_a_damaged_index_is_named_with_its_line(tmp_path, toy_dict, damage):
    folder = toy_dict(tmp_path / "dict")
    with open(folder / "index.sense", "ab") as f:
        f.write(damage)
    with pytest.raises(VwsdError, match="of WordNet's index.sense is not as it was published"):
        load_wordnet(folder).candidates("bat", "n")
