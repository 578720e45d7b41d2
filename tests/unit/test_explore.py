"""The explorer without a browser: its work, and its controls driven as a person would."""

import io
import json
import os
import subprocess
import sys
from dataclasses import replace
from datetime import datetime

import numpy as np
import pytest
from PIL import Image

from vwsd_companion.explore import Explorer, widget, work
from vwsd_companion.facts.predictions import Predictions, write_predictions
from vwsd_companion.views.tables.saliency import METHOD_NAMES
from vwsdlib.analysis.metrics import gold_ranks
from vwsdlib.analysis.saliency import METHODS
from vwsdlib.data.items import Item, write_items
from vwsdlib.data.sets import OFFICIAL_FILES, load_set
from vwsdlib.errors import VwsdError
from vwsdlib.paths import PACKAGE


@pytest.fixture(scope="module")
def explorer(tmp_path_factory):
    """One explorer of the built-in set for all tests here: each leaves it as it pleases and `fresh`
    puts it back.
    """
    return Explorer("emojiwsd", "en", exports=tmp_path_factory.mktemp("exports"))


@pytest.fixture
def fresh(explorer):
    explorer.part.value = ("it", "test")
    explorer.part.value = ("en", "test")
    explorer.encoder_b.value = widget.NONE
    explorer.items.value = 0
    explorer.template.value = "as it is"
    explorer.segmenter.value = "lite-dense"
    assert explorer.status.value == ""
    return explorer


def run(scores, gold=0):
    scores = np.array(scores, np.float32)
    items = tuple(
        Item(
            f"en.test.{i}",
            "en",
            word,
            f"{word} thing",
            tuple(f"image.{j}.png" for j in range(10)),
            f"image.{gold}.png",
        )
        for i, word in enumerate(("bat", "Crane", "nut"))
    )
    return Predictions(
        "x.phrase.en.test", {}, items, ("",) * 3, scores, gold_ranks(scores, [gold] * 3)
    )


def row(first, second=0.5):
    """Ten scores whose best is at `first`, by a margin of 1 - second over the next."""
    scores = [0.0] * 10
    scores[(first + 1) % 10], scores[first] = second, 1.0
    return scores


# ---------------------------------------------------------------- work


def test_an_answer_ranks_pictures_and_ties_keep_their_order():
    its = work.Answer("toy", "bat", np.array([0.1, 0.3, 0.3, 0.2]))
    assert its.order == [1, 2, 3, 0] and its.ranks == [4, 1, 2, 3] and its.margin == 0
    assert work.Answer("toy", "bat", np.array([0.1])).margin == 0


def test_text_is_put_together():
    assert (
        work.full_text(" fruit bat ") == "fruit bat"
        and work.full_text("{bat}", "This is ….") == "This is {bat}."
    )
    assert (
        work.full_text("fruit bat", "A photo of “…”", "A flying Mammal")
        == 'A photo of "fruit bat", a flying mammal'
    )


def test_items_are_searched_filtered_and_sorted():
    a, b = run([row(0, 0.9), row(1, 0.1), row(0, 0.2)]), run([row(0), row(0), row(2)])
    items = a.items
    assert (
        work.chosen(items, "CRANE") == [1]
        and work.chosen(items, "en.test.2") == [2]
        and work.chosen(items, "thing") == [0, 1, 2]
    )
    assert work.chosen(items, keep="A right", a=a) == [0, 2] and work.chosen(
        items, keep="A wrong", a=a
    ) == [1]
    assert work.chosen(items, keep="only A right", a=a, b=b) == [2] and work.chosen(
        items, keep="only B right", a=a, b=b
    ) == [1]
    assert work.chosen(items, keep="A and B choose differently", a=a, b=b) == [1, 2]
    assert work.chosen(items, order="A least certain first", a=a) == [0, 2, 1] and work.chosen(
        items, order="A most certain first", a=a
    ) == [1, 2, 0]
    for options, lacking in (
        ({"keep": "A right"}, "A"),
        ({"keep": "A wrong", "b": b}, "A"),
        ({"keep": "only A right", "a": a}, "B"),
        ({"keep": "only A right"}, "A and B"),
        ({"order": "A least certain first", "b": b}, "A"),
    ):
        with pytest.raises(
            VwsdError, match=f"needs stored results of system {lacking} on this part"
        ) as e:
            work.chosen(items, **options, profile="paper")
        assert "--profile paper" in e.value.remedy


def test_a_registry_at_hand_is_what_has_its_checkpoints(monkeypatch):
    assert {"lite", "random"} <= set(work.at_hand()) and "lite-dense" in work.segmenters_at_hand()
    monkeypatch.setattr(work, "present", lambda key: (key == "clip-vit-b32", 0))
    assert (
        "clip-vit-b32" in work.at_hand()
        and "clip-vit-b16" not in work.at_hand()
        and "mclip" not in work.at_hand()
    )


# ---------------------------------------------------------------- the widget


def test_scores_are_those_that_the_notebooks_stored(fresh):
    stored = fresh.runs["lite.phrase.en.test"]
    for i in (0, 144, 206):
        fresh.items.value = i
        assert (
            np.allclose(fresh.answers[0].scores, stored.scores[i], atol=2e-5)
            and fresh.gold == stored.items[i].gold_index
        )
        assert fresh.answers[0].ranks[fresh.gold] == stored.ranks[i]


def test_the_ranking_follows_the_phrase(fresh):
    before, shown = fresh.answers[0].scores, fresh.shown.value
    fresh.phrase.value = "fizzy drink in a glass"
    assert (
        not np.allclose(before, fresh.answers[0].scores)
        and fresh.shown.value != shown
        and "fizzy drink" in fresh.note.value
    )
    fresh.template.value = "This is …."
    assert fresh.text == "This is fizzy drink in a glass."
    fresh.reset.click()
    assert np.array_equal(before, fresh.answers[0].scores) and fresh.text == fresh.item.phrase
    fresh.phrase.value = "  "
    assert "the text is empty" in fresh.status.value
    fresh.phrase.value = "<b>bat</b>"
    assert "<b>bat</b>" not in fresh.note.value and "&lt;b&gt;bat" in fresh.note.value


def test_templates_definitions_and_translations_change_the_text(fresh):
    fresh.template.value = "A photo of “…”"
    fresh.definition.value = "first-sense"
    assert fresh.text.startswith(f'A photo of "{fresh.item.phrase}", ') and len(fresh.text) > 40
    fresh.template.value = "as it is"
    fresh.part.value = ("fa", "test")
    assert "vwsd-rtl" in fresh.phrase._dom_classes and fresh.definition.options == (widget.NONE,)
    fresh.reading.value = "reference"
    assert (
        fresh.text.isascii()
        and fresh.text != fresh.item.phrase
        and "vwsd-rtl" not in fresh.phrase._dom_classes
    )  # English, whatever the part
    fresh.reading.value = widget.NONE
    assert fresh.text == fresh.item.phrase
    fresh.part.value = ("en", "test")
    assert "vwsd-rtl" not in fresh.phrase._dom_classes


def test_the_list_shows_what_a_system_got_wrong_and_where_two_part(fresh):
    fresh.word.value = "bat"
    assert [label[:1] for label, _ in fresh.items.options].count("✓") and all(
        "bat" in label for label, _ in fresh.items.options
    )
    fresh.keep.value = "A wrong"
    assert all(label.startswith("✗") for label, _ in fresh.items.options)
    fresh.word.value = ""
    assert len(fresh.items.options) == int((fresh.runs["lite.phrase.en.test"].ranks > 1).sum())
    fresh.keep.value = "A and B choose differently"
    assert (
        "needs stored results of system B on" in fresh.status.value
        and fresh.keep.value == "all items"
        and len(fresh.items.options) == 502
    )
    fresh.encoder_b.value = "lite-352"
    fresh.keep.value = "A and B choose differently"
    assert (
        fresh.status.value == ""
        and 0 < len(fresh.items.options) < 502
        and len(fresh.answers) == 2
        and "B " in fresh.shown.value
    )
    assert fresh.answers[0].order[0] != fresh.answers[1].order[0]
    fresh.word.value = "no such word"
    assert "no item is like this" in fresh.status.value
    fresh.word.value = ""
    assert fresh.status.value == ""


@pytest.mark.parametrize("method", METHODS)
def test_maps_are_drawn_over_the_chosen_picture(fresh, method):
    fresh.picture.value, fresh.method.value = 3, method
    assert fresh.map.value == ""
    fresh.draw.click()
    assert (
        fresh.status.value == ""
        and f"{METHOD_NAMES[method]} of {fresh.names[3]}" in fresh.map.value
        and "data:image/png;base64," in fresh.map.value
    )
    fresh.phrase.value = fresh.phrase.value + " x"
    fresh.picture.value = 4
    assert fresh.map.value == ""  # a map of another picture is never left standing


def methods(explorer):
    """What the menu of maps offers, by the library's names."""
    return [name for _, name in explorer.method.options]


def test_methods_are_those_at_hand(fresh):
    assert "mask" in methods(fresh)
    fresh.segmenter.value = widget.NONE
    assert "mask" not in methods(fresh) and "crops_sum" in methods(fresh)
    fresh.encoder_a.value = "random"
    assert "relevance" not in methods(fresh)
    fresh.encoder_a.value = "lite"


def uploaded(*colours):
    files = []
    for colour in colours:
        out = io.BytesIO()
        Image.new("RGB", (40, 30), colour).save(out, "PNG")
        files.append(
            {
                "name": f"{colour}.png",
                "type": "image/png",
                "size": out.tell(),
                "content": memoryview(out.getvalue()),
                "last_modified": datetime(2026, 1, 1),
            }
        )
    return tuple(files)


def test_own_pictures_are_ranked_under_an_own_phrase(fresh):
    fresh.use_own.value = True
    assert "no pictures of yours yet" in fresh.status.value and not fresh.use_own.value
    fresh.own.clear()
    fresh.upload.value = uploaded("red", "blue", "green")
    assert (
        fresh.status.value == ""
        and fresh.use_own.value
        and fresh.names == ["red.png", "blue.png", "green.png"]
        and fresh.gold is None
    )
    fresh.phrase.value = "a red thing"
    assert (
        len(fresh.answers[0].scores) == 3
        and "chooses" in fresh.shown.value
        and "your own pictures" in fresh.note.value
    )
    fresh.export.click()
    facts = json.loads(fresh.exported[1].read_text())
    assert (
        facts["item"] is None
        and facts["pictures"] == fresh.names
        and facts["text"] == "a red thing"
    )
    fresh.upload.value = (
        {
            "name": "x.png",
            "type": "image/png",
            "size": 3,
            "content": memoryview(b"abc"),
            "last_modified": datetime(2026, 1, 1),
        },
    )
    assert "not a picture" in fresh.status.value and "x.png" in fresh.status.value
    fresh.use_own.value = False
    assert len(fresh.answers[0].scores) == 10
    fresh.own.clear()


def test_export_writes_what_is_shown(fresh):
    fresh.encoder_b.value = "lite-352"
    fresh.items.value = 206
    fresh.export.click()
    png, facts = fresh.exported[0], json.loads(fresh.exported[1].read_text())
    assert (
        png.parent == fresh.exports and str(png) in fresh.note.value and Image.open(png).width > 800
    )
    assert (
        facts == json.loads(json.dumps(fresh.facts()))
        and facts["item"]["id"] == "en.test.206"
        and [s["encoder"] for s in facts["systems"]] == ["lite", "lite-352"]
    )
    assert (
        facts["systems"][0]["ranks"] == fresh.answers[0].ranks
        and facts["systems"][0]["weights_sha256"]
    )
    fresh.export.click()
    assert fresh.exported[0] == png  # the same view, the same name


def test_what_goes_wrong_is_said_in_the_widget(fresh, monkeypatch, capsys):
    fresh.dataset.value = "vwsd"
    assert "vwsd fetch vwsd" in fresh.status.value and 'role="alert"' in fresh.status.value
    fresh.dataset.value = "emojiwsd"
    assert fresh.status.value == ""
    monkeypatch.setattr(work, "open_picture", lambda place: (None, "it is damaged"))
    before = fresh.item
    fresh.items.value = 5
    assert (
        "10 of the ten pictures cannot be shown" in fresh.status.value
        and "it is damaged" in fresh.status.value
    )
    assert (
        fresh.item is not before
        and fresh.shown.value == fresh.note.value == ""
        and fresh.picture.options == ()
    )  # nothing of the item before
    for act in (
        lambda: setattr(fresh.phrase, "value", "more"),
        fresh.export.click,
        fresh.draw.click,
    ):
        act()
        assert (
            "no pictures are shown" in fresh.status.value
            or "nothing is ranked yet" in fresh.status.value
        )
    with pytest.raises(VwsdError, match="nothing is ranked"):
        fresh.facts()
    monkeypatch.undo()
    fresh.items.value = 7
    assert fresh.status.value == ""
    monkeypatch.setattr(work, "answer", lambda *_: 1 / 0)
    fresh.phrase.value = "another"
    assert "ZeroDivisionError" in fresh.status.value and "Traceback" not in fresh.status.value
    monkeypatch.undo()
    fresh.items.value = 6
    assert fresh.status.value == "" and capsys.readouterr() == ("", "")


def test_a_set_that_does_not_open_leaves_nothing_of_another(fresh):
    fresh.dataset.value = "vwsd"
    assert fresh.data is None and fresh.items.options == () and fresh.shown.value == ""
    for act in (
        lambda: setattr(fresh.word, "value", "bat"),
        lambda: setattr(fresh.phrase, "value", "bat"),
        fresh.export.click,
        fresh.reset.click,
        fresh.draw.click,
        lambda: setattr(fresh.encoder_b, "value", "lite-352"),
        lambda: setattr(fresh.keep, "value", "A wrong"),
    ):
        act()
        assert "AttributeError" not in fresh.status.value and (
            "no set is open" in fresh.status.value
            or "no pictures are shown" in fresh.status.value
            or "nothing is ranked" in fresh.status.value
            or "vwsd fetch" in fresh.status.value
        ), fresh.status.value
    fresh.dataset.value = "emojiwsd"
    assert (
        fresh.status.value == ""
        and len(fresh.items.options) == 502
        and fresh.shown.value.count("<img") == 10
    )


def test_an_explorer_that_opens_nothing_says_so(own_folders, monkeypatch):
    monkeypatch.setenv("VWSD_DATA", str(own_folders))
    its = Explorer("vwsd", encoder="random")
    assert "vwsd fetch vwsd" in its.status.value
    its.word.value = "bat"
    assert "no set is open" in its.status.value


def test_a_system_that_cannot_be_loaded_leaves_the_one_that_was_there(fresh, monkeypatch):
    shown = fresh.shown.value

    def broken(name):
        raise VwsdError("the package is not here")

    with monkeypatch.context() as patch:
        patch.setattr(widget, "load_encoder", broken)
        fresh.encoder_a.value = "random"
        assert (
            "the package is not here" in fresh.status.value
            and fresh.encoder_a.value == "lite"
            and fresh.shown.value == shown
        )
    fresh.phrase.value = "something else"
    assert fresh.status.value == "" and list(fresh.stores) == ["lite"]


def test_what_is_typed_stays_while_systems_and_filters_change(fresh):
    fresh.phrase.value = "a text of mine"
    fresh.encoder_b.value = "lite-352"
    assert (
        fresh.text == "a text of mine"
        and [its.encoder for its in fresh.answers] == ["lite", "lite-352"]
        and {its.text for its in fresh.answers} == {fresh.text}
    )
    fresh.order.value = "A least certain first"
    assert fresh.text == "a text of mine"
    fresh.word.value = "no such word"
    fresh.encoder_a.value = "random"  # a system is changed while nothing is listed
    fresh.phrase.value = "still mine"
    assert fresh.answers[0].encoder == "random" and fresh.answers[0].text == "still mine"
    fresh.encoder_a.value = "lite"


def test_export_and_map_are_of_the_text_that_was_scored(fresh):
    fresh.phrase.value = "fruit bat"
    fresh.draw.click()
    assert fresh.map.value
    fresh.phrase.value = " "
    assert "the text is empty" in fresh.status.value and "fruit bat" in fresh.note.value
    fresh.export.click()
    assert json.loads(fresh.exported[1].read_text())["text"] == "fruit bat"
    fresh.phrase.value = "wooden bat"
    assert fresh.map.value == ""  # a map of another text is never left standing


def test_uploads_are_kept_once_and_forgotten(fresh):
    fresh.own.clear()
    bad = {
        "name": "bad.png",
        "type": "image/png",
        "size": 3,
        "content": memoryview(b"abc"),
        "last_modified": datetime(2026, 1, 1),
    }
    first, second = uploaded("red", "blue")
    fresh.upload.value = (first, bad, second)
    assert (
        "bad.png" in fresh.status.value
        and fresh.names == ["red.png", "blue.png"]
        and fresh.upload.value == ()
    )
    fresh.upload.value = (first,)
    assert (
        fresh.names == ["red.png", "blue.png"]
        and fresh.status.value == ""
        and fresh.facts()["pictures_sha256"] == list(fresh.own)
    )
    fresh.encoder_b.value = "lite-352"
    assert (
        fresh.use_own.value and len(fresh.answers) == 2 and fresh.names == ["red.png", "blue.png"]
    )
    fresh.forget.click()
    assert fresh.own == {} and not fresh.use_own.value and len(fresh.names) == 10


def test_signs_of_mathematics_and_markup_are_letters(fresh):
    fresh.phrase.value = "between $5 and $^$ <img src=x onerror=y>"
    fresh.draw.click()
    fresh.export.click()
    assert (
        fresh.status.value == ""
        and "<img src=x" not in fresh.note.value + fresh.map.value
        and Image.open(fresh.exported[0]).width > 800
    )


def test_values_that_are_no_numbers_are_refused(fresh, monkeypatch):
    encoder = fresh.stores["lite"].encoder
    monkeypatch.setattr(
        encoder, "encode_texts", lambda texts: np.full((1, 384), np.nan, np.float32)
    )
    fresh.phrase.value = "anything"
    assert "no numbers" in fresh.status.value


def test_arguments_that_do_not_fit_are_named():
    for arguments, words in (
        ({"language": "de"}, "unknown part 'de test'"),
        ({"split": "trial"}, "unknown part 'en trial'"),
        ({"encoder": "lit"}, "unknown encoder"),
    ):
        with pytest.raises(VwsdError, match=words):
            Explorer(**arguments)


def test_the_rehearsals_models_and_another_set_do_not_meet(monkeypatch):
    monkeypatch.setenv("VWSD_MODELS", str(work.models_folder()))
    with pytest.raises(VwsdError, match="rehearsal's models.*random"):
        Explorer("emojiwsd")


def test_direction_is_the_texts_own():
    assert (
        work.right_to_left("کرم برگ‌خوار")
        and work.right_to_left("123 قفل")
        and not work.right_to_left("bat قفل")
        and not work.right_to_left("12 !")
    )


def test_an_item_without_gold_is_shown_without_verdict(fresh, monkeypatch):
    fresh.item = replace(fresh.item, gold=None)
    fresh._look()
    assert fresh.gold is None and "chooses" in fresh.shown.value and "★" not in fresh.shown.value


def test_every_control_explains_itself_and_pictures_have_words(fresh):
    controls = [
        its
        for its in vars(fresh).values()
        if isinstance(its, widget.w.DOMWidget)
        and hasattr(its, "value" if not hasattr(its, "on_click") else "on_click")
    ]
    silent = {id(its) for its in (fresh.status, fresh.shown, fresh.map, fresh.note, fresh.box)}
    assert len(controls) > 15 and all(its.tooltip for its in controls if id(its) not in silent)
    assert (
        fresh.shown.value.count("<img") == fresh.shown.value.count('alt="image.') == 10
        and fresh.shown.value.count('.png, the gold"') == 1
    )


# ---------------------------------------------------------------- the other stores


@pytest.fixture
def paper(official, own_folders, monkeypatch):
    """The official layout at its place with three items, and a stored run on them that is right,
    wrong, wrong.
    """
    monkeypatch.setenv("VWSD_DATA", str(own_folders / "data"))
    data, gold, images = OFFICIAL_FILES["en", "test"]
    folder = own_folders / "data" / "vwsd" / "test"
    folder.mkdir(parents=True)
    official[2].rename(folder / images)
    items = [
        Item(
            "",
            "en",
            word,
            f"{word} thing",
            tuple(f"image.{i}.png" for i in range(10)),
            f"image.{n}.png",
        )
        for n, word in enumerate(("bat", "crane", "nut"))
    ]
    write_items(items, folder / data, folder / gold)
    made = load_set("vwsd", "en", "test")
    write_predictions(
        own_folders / "results" / "paper",
        "random.phrase.en.test",
        made,
        ["x"] * 3,
        np.array([row(0), row(0), row(0)]),
        profile="paper",
        variant="phrase",
        identity={"model": "random"},
    )
    return folder / images


def test_the_official_set_with_its_stored_results(paper):
    its = Explorer("vwsd", encoder="random")
    assert (
        its.status.value == ""
        and its.data.name == "vwsd"
        and [label[0] for label, _ in its.items.options] == ["✓", "✗", "✗"]
    )
    its.keep.value = "A wrong"
    assert (
        [i for _, i in its.items.options] == [1, 2]
        and "CC BY-NC 4.0" in its.note.value
        and its.shown.value.count("<img") == 10
    )
    its.part.value = ("it", "test")
    assert "it.test.data.v1.1.txt" in its.status.value and "vwsd fetch vwsd" in its.status.value


def test_a_picture_that_is_not_at_hand_is_named(paper):
    (paper / "image.4.png").unlink()
    assert (
        "1 of the ten pictures cannot be shown, image.4.png first: no such picture"
        in Explorer("vwsd", encoder="random").status.value
    )


def test_the_rehearsal_in_a_process_of_its_own(tmp_path):
    """It points this process at its tiny checkpoints, so another one drives it: CLIP against
    CLIPSeg, a mask, gradients, Farsi.
    """
    script = tmp_path / "drive.py"
    script.write_text("""
import json
from vwsd_companion.explore import Explorer
its, said = Explorer("rehearsal"), []
def note(what):
    shown = its.shown.value.count("<img")
    said.append([what, its.status.value, len(its.answers), shown, its.map.value[:8]])
note("first")
its.encoder_b.value = "clipseg-rd64"; note("two")
for _, method in its.method.options:
    its.method.value = method; its.draw.click(); note(method)
its.part.value = ("fa", "test"); note("fa")
its.encoder_a.value = "siglip2-base"; its.phrase.value = "another text"; note("siglip")
print(json.dumps({"said": said, "sets": its.dataset.options, "a": its.encoder_a.options}))
""")
    done = subprocess.run(
        [sys.executable, script],
        capture_output=True,
        text=True,
        timeout=600,
        cwd=PACKAGE.parent,
        env={**os.environ, "VWSD_RESULTS": str(tmp_path), "CI": "true"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["sets"] == ["rehearsal"] and {
        "clip-vit-b32",
        "clipseg-rd64",
        "siglip2-base",
        "mclip",
    } <= set(found["a"])
    assert [its for its in found["said"] if its[1]] == [] and {its[3] for its in found["said"]} == {
        10
    }
    assert {name for name, *_, drawn in found["said"] if drawn} == set(METHODS) and [
        its[2] for its in found["said"]
    ] == [1] + [2] * (len(found["said"]) - 1)


def test_an_unknown_set_is_named():
    with pytest.raises(VwsdError, match="unknown set 'emojwsd'.*emojiwsd"):
        Explorer("emojwsd")


def test_the_notebook_shows_it(explorer, monkeypatch):
    """Its cells run, with the explorer of these tests standing in for a second one."""
    import vwsd_companion.explore

    cells = [
        c
        for c in json.loads((PACKAGE.parent / "notebooks" / "explore.ipynb").read_text())["cells"]
        if c["cell_type"] == "code"
    ]
    monkeypatch.setattr(vwsd_companion.explore, "Explorer", lambda *a, **k: explorer)
    names = {}
    for cell in cells:
        exec("".join(cell["source"]), names)
    assert names["explorer"] is explorer and hasattr(Explorer, "_ipython_display_")
