"""A notebook by hand: top to bottom in a plain kernel, without papermill and runner."""

import nbformat
from nbclient import NotebookClient

from vwsd_companion import cli, pipeline
from vwsd_companion.facts.predictions import read_predictions


def printed_parameters(profile, name, settings, capsys) -> str:
    """The parameters cell that `vwsd run --parameters` prints."""
    words = [word for setting in settings for word in ("--set", setting)]
    assert cli.main(["run", "--profile", profile, "--only", name, *words, "--parameters"]) == 0
    return capsys.readouterr().out


def source_of(name):
    """The notebook as it stands, and its parameters cell."""
    notebook = nbformat.read(pipeline.notebooks_dir() / f"{name}.ipynb", 4)
    tagged = (c for c in notebook.cells if "parameters" in c.metadata.get("tags", []))
    return notebook, next(tagged)


def values(cell: str) -> dict:
    """What a parameters cell sets."""
    values = {}
    exec(cell, {}, values)
    return values


def run_to_its_end(notebook, name, folder):
    """Execute all cells in `folder`; the last one says that the notebook is complete."""
    resources = {"metadata": {"path": str(folder)}}
    NotebookClient(notebook, timeout=600, kernel_name="python3", resources=resources).execute()
    last = [c for c in notebook.cells if c.cell_type == "code"][-1]
    assert f"{name}: complete, checks held: " in "".join(o.get("text", "") for o in last.outputs)


def check_outputs(profile, name, settings, folder, items, without=()):
    """All outputs that pipeline.yml declares are there, but for those that what is missing excuses,
    and predictions have `items` lines.
    """
    steps = pipeline.plan(profile, only=[name], settings=pipeline.parse_settings(settings))
    step = next(step for step in steps if step.name == name)
    for path in set(step.outputs) - step.excused(without):
        assert (folder / profile / path).exists(), path
    for path in (folder / profile / "predictions").glob("*.jsonl"):
        assert len(read_predictions(path).items) == items
