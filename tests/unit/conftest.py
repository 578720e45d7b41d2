"""WordNet for tests: a toy in the real format, and the real one where it is installed."""

import pytest
from toy_wordnet import write_dict

from vwsdlib.data.wordnet import load_wordnet, wordnet_folder
from vwsdlib.errors import VwsdError


@pytest.fixture
def toy_dict():
    return write_dict


@pytest.fixture
def toy_wordnet(tmp_path):
    return load_wordnet(write_dict(tmp_path / "dict"))


@pytest.fixture(scope="session")
def wordnet():
    """The real WordNet 3.0; skips with the reason where it is not installed."""
    try:
        return load_wordnet(wordnet_folder())
    except VwsdError as e:
        pytest.skip(str(e))


@pytest.fixture(scope="session")
def tiny_clip(tmp_path_factory):
    """Folder of checkpoints, as in VWSD_MODELS, with the rehearsal's tiny ViT-L/14 alone."""
    import torch

    from vwsd_standins.rehearsal.models import CHECKPOINTS, MAKERS

    folder = tmp_path_factory.mktemp("models")
    target = folder / CHECKPOINTS["clip-vit-l14"].repo
    target.mkdir(parents=True)
    torch.manual_seed(0)
    MAKERS["clip-vit-l14"](target)
    return folder
