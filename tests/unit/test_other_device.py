"""Every way into a network on a device that is not the processor, in a process of its own: the
second device is a backend of torch's, which no other test should meet.
"""

import json
import subprocess
import sys

import pytest
from tree import ROOT

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def outcomes():
    """What `python -m tests.on_other_device` printed, as data."""
    command = [sys.executable, "-m", "tests.on_other_device", "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.stdout, done.stderr
    return json.loads(done.stdout)


def test_numbers_on_a_second_device_are_the_processors(outcomes):
    wrong = {name: said for name, said in outcomes["driven"].items() if said != "ok"}
    assert not wrong and len(outcomes["driven"]) >= 30


def test_faults_that_stopped_a_card_once_would_be_seen(outcomes):
    said = list(outcomes["faults"].values())
    assert "Inference tensors cannot be saved for backward" in said[0]
    assert "Expected all tensors to be on the same device" in said[1]
    assert "weights stay on cpu" in said[2]
