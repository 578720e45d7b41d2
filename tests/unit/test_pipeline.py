"""The runner on toy notebooks: one finished project copied for each test, and one in which
everything goes wrong at once.
"""

import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nbformat
import pytest
import yaml
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from vwsd_companion import forecast, notebook, pipeline, runner
from vwsdlib.errors import VwsdError

PARAMETERS = 'profile = "demo"\nseed = 0\nscale = 1.0\nlimit = 0'
START = (
    'from vwsd_companion.notebook import start\nrun = start("{name}", profile=profile, seed=seed)'
)
WRITE = 'run.path("rows/{name}.txt").write_text(f"{{seed}} {{scale}}\\n")'
FINISH = "run.finish(fine=True)"


class Project:
    """Toy notebooks with their pipeline.yml in `home`; results and cache below it."""

    def __init__(self, home: Path):
        self.home, self.book = (
            home,
            {
                "profiles": {"demo": {"scale": 2.0}, "other": {}},
                "notebooks": {},
            },
        )
        (home / "notebooks").mkdir(parents=True, exist_ok=True)
        if self.pipeline.exists():
            self.book = yaml.safe_load(self.pipeline.read_text())

    pipeline = property(lambda self: self.home / "notebooks" / "pipeline.yml")
    results = property(lambda self: self.home / "runs" / "demo")

    def add(self, name, *code, parameters=PARAMETERS, needs=(), produces=None, **entry):
        """A notebook of the given code cells (default: writes one file and finishes), listed in
        pipeline.yml.
        """
        cells = [new_markdown_cell(f"# {name}")]
        cells += [
            new_code_cell(text, metadata={"tags": ["parameters"]})
            for text in ([parameters] if isinstance(parameters, str) else parameters)
        ]
        cells += [new_code_cell(text.format(name=name)) for text in code or (START, WRITE, FINISH)]
        nb = new_notebook(
            cells=cells,
            metadata={
                "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}
            },
        )
        nbformat.write(nb, self.home / "notebooks" / f"{name}.ipynb")
        self.book["notebooks"][name] = {
            "needs": list(needs),
            "produces": [f"rows/{name}.txt"] if produces is None else produces,
            **entry,
        }
        self.pipeline.write_text(yaml.safe_dump(self.book, sort_keys=False))
        return self

    def edit(self, name, old, new):
        path = self.home / "notebooks" / f"{name}.ipynb"
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))

    def enter(self, patch):
        """Point the library at this project, in `patch`'s lifetime."""
        patch.setenv("VWSD_HOME", str(self.home))
        for variable in (
            "VWSD_RESULTS",
            "VWSD_CACHE",
            "VWSD_NOTEBOOKS",
            "VWSD_DATA",
            "VWSD_TIME_FACTOR",
        ):
            patch.delenv(variable, raising=False)
        patch.setattr(
            pipeline, "code_sha256", lambda roots: "library"
        )  # the real one changes while others edit the library
        return self

    def tree(self):
        """Every visible result file and its bytes."""
        return {
            p.relative_to(self.results).as_posix(): p.read_bytes()
            for p in sorted(self.results.rglob("*"))
            if p.is_file() and not p.relative_to(self.results).parts[0].startswith(".")
        }


def states(rows):
    return {name: (state, detail) for name, state, detail in rows}


def outcomes(report):
    return {o.notebook: o.state for o in report.outcomes}


@pytest.fixture
def project(tmp_path, monkeypatch):
    return Project(tmp_path / "home").enter(monkeypatch)


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """A project with 01_data -> 02_base, run once from a clean start."""
    built = Project(tmp_path_factory.mktemp("template") / "home")
    built.add(
        "01_data", START, WRITE, 'print(run.folder, __import__("os").getcwd(), object())', FINISH
    )
    built.add(
        "02_base",
        START,
        "from vwsdlib.paths import"
        ' results_dir\nrun.path("rows/02_base.txt").write_text((results_dir(profile) /'
        ' "rows/01_data.txt").read_text())',
        FINISH,
        needs=["01_data"],
    )
    spec = (
        built.home / "jupyter" / "kernels" / "python3" / "kernel.json"
    )  # another python3, which the runner must pass by
    spec.parent.mkdir(parents=True)
    spec.write_text(json.dumps({"argv": ["false"], "display_name": "x", "language": "python"}))
    with pytest.MonkeyPatch.context() as patch:
        built.enter(patch)
        patch.setenv("JUPYTER_PATH", str(built.home / "jupyter"))
        built.before = runner.status("demo")
        built.report = runner.run("demo")
    return built


@pytest.fixture
def finished(template, tmp_path, monkeypatch):
    """A private copy of the finished project."""
    shutil.copytree(template.home, tmp_path / "home")
    return Project(tmp_path / "home").enter(monkeypatch)


# ---------------------------------------------------------------- when it goes well


def test_a_clean_run_produces_the_declared_files(template):
    assert {state for _, state, _ in template.before} == {"never run"}
    assert (
        outcomes(template.report) == {"01_data": "done", "02_base": "done"}
        and template.report.exit_code == 0
    )
    assert template.tree().keys() == {
        "rows/01_data.txt",
        "rows/02_base.txt",
        "notebooks/01_data.ipynb",
        "notebooks/02_base.ipynb",
    }
    assert (
        template.tree()["rows/02_base.txt"] == b"0 2.0\n"
    )  # the profile's scale, not the default; read from 01_data's result
    assert not list((template.results / ".staging").iterdir())


def test_the_executed_copy_carries_no_machine_and_no_clock(template):
    text = (template.results / "notebooks" / "01_data.ipynb").read_text()
    assert "results/demo results/demo <object object at 0x...>" in text
    for trace in (
        str(template.home),
        str(template.home.parent),
        sys.prefix,
        "papermill",
        "iopub",
        "T00:",
        ".staging",
        "duration",
    ):
        assert trace not in text, trace


def test_the_slowest_cells_of_all_notebooks_are_named(finished, capsys):
    finished.edit("01_data", "print(run.folder", "import time; time.sleep(0.7); print(run.folder")
    finished.edit(
        "02_base", "from vwsdlib.paths", "import time; time.sleep(0.4)\\nfrom vwsdlib.paths"
    )
    runner.run("demo")
    said = [
        line.split("  ")
        for line in capsys.readouterr().out.partition("slowest cells:\n")[2].splitlines()
    ]
    assert len(said) == 3 and [
        line[1] for line in said if "cell 4" in line[1] or "cell 3" in line[1]
    ][:2] == ["01_data, cell 4", "02_base, cell 3"]
    seconds = [float(line[2].removesuffix(" s")) for line in said]
    assert (
        seconds == sorted(seconds, reverse=True)
        and seconds[0] >= 0.4
        and said[0][3].startswith(("import time; time.sleep", "from vwsdlib"))
    )
    stamp = json.loads((finished.results / ".stamps" / "01_data.json").read_text())
    assert [cell["cell"] for cell in stamp["cells"]] == [1, 2, 3, 4, 5] and stamp["cells"][3][
        "seconds"
    ] >= 0.7
    assert len(runner.slowest("demo", 1)) == 2 and not runner.slowest("other")


def test_pictures_in_an_executed_copy_are_left_alone(project):
    project.add("01_data")
    [step] = pipeline.plan("demo")
    home, picture = (
        str(Path.home()),
        "iVBOR+/" + str(Path.home())[1:] + "/ABC" * 500_000,
    )  # base64 may spell a path; it is long
    text = (
        f"{tempfile.gettempdir()}/ipykernel_12/345.py:1: Warning\n{home}/x file://{home}/y {home}x"
    )
    step.source.cells[2].outputs = [
        new_output("display_data", {"image/png": picture, "text/plain": text})
    ]
    began = time.monotonic()
    data = (
        nbformat.reads(runner._portable(step.source, step, project.home / "out"), as_version=4)
        .cells[2]
        .outputs[0]
        .data
    )
    assert time.monotonic() - began < 5
    assert (
        data["image/png"] == picture
        and data["text/plain"] == f"<cell>:1: Warning\n~/x file://~/y {home}x"
    )


def test_a_second_run_is_up_to_date(finished, capsys):
    assert outcomes(runner.run("demo")) == {"01_data": "up to date", "02_base": "up to date"}
    assert "01_data  up to date" in capsys.readouterr().out
    assert [state for _, state, _ in runner.status("demo")] == ["done", "done"]


def test_markdown_does_not_count(finished):
    finished.edit("01_data", "# 01_data", "# A better title")
    assert [state for _, state, _ in runner.status("demo")] == ["done", "done"]


def test_a_code_edit_makes_it_and_its_descendants_stale(finished):
    finished.edit("01_data", "fine=True", "fine=1")
    assert states(runner.status("demo")) == {
        "01_data": ("stale", "code"),
        "02_base": ("stale", "upstream 01_data"),
    }


@pytest.mark.parametrize(
    "component, change",
    [
        (
            "library",
            lambda p, patch: patch.setattr(pipeline, "code_sha256", lambda roots: "another"),
        ),
        ("lock", lambda p, patch: (p.home / "requirements.lock").write_text("numpy==2")),
        (
            "data",
            lambda p, patch: patch.setattr(pipeline, "_data_hash", lambda parameters: "another"),
        ),
        ("outputs", lambda p, patch: (p.results / "rows/01_data.txt").unlink()),
        ("outputs", lambda p, patch: (p.results / "rows/01_data.txt").write_text("tampered")),
        (
            "parameters",
            lambda p, patch: p.pipeline.write_text(
                p.pipeline.read_text().replace("scale: 2.0", "scale: 3")
            ),
        ),
    ],
)
def test_status_says_which_input_changed(finished, monkeypatch, component, change):
    change(finished, monkeypatch)
    assert states(runner.status("demo"))["01_data"] == ("stale", component)


def test_a_lost_output_is_made_again_with_the_same_bytes(finished):
    before = finished.tree()
    (finished.results / "rows/01_data.txt").unlink()
    assert outcomes(runner.run("demo")) == {"01_data": "done", "02_base": "up to date"}
    assert finished.tree() == before


def test_only_runs_what_it_needs_first(finished):
    (finished.results / "rows/01_data.txt").unlink()
    finished.add("03_more", needs=["01_data"])
    assert [step.name for step in pipeline.plan("demo", only=["02_base"])] == ["01_data", "02_base"]
    assert [(s.name, s.forced) for s in pipeline.plan("demo", start_from="02_base")] == [
        ("01_data", False),
        ("02_base", True),
    ]
    assert [s.forced for s in pipeline.plan("demo", start_from="01_data")] == [True, True, True]
    assert [s.forced for s in pipeline.plan("demo", force=True, only=["02_base"])] == [False, True]


def test_settings_reach_the_notebook_and_mark_it_stale_afterwards(finished):
    report = runner.run("demo", only=["01_data"], limit=5, settings={"scale": 3})
    assert report.exit_code == 0 and finished.tree()["rows/01_data.txt"] == b"0 3.0\n"
    assert states(runner.status("demo"))["01_data"] == ("stale", "parameters")
    assert (
        json.loads((finished.results / ".stamps/01_data.json").read_text())["parameters"]["limit"]
        == 5
    )


# ---------------------------------------------------------------- what is refused before anything
# runs


@pytest.mark.parametrize(
    "call, complaint",
    [
        (dict(profile="dmo"), "Did you mean 'demo'?"),
        (dict(profile="demo", only=["01_dta"]), "Did you mean '01_data'?"),
        (dict(profile="demo", start_from="2_base"), "Did you mean '02_base'?"),
        (dict(profile="demo", settings={"sead": 1}), "Did you mean 'seed'?"),
        (dict(profile="demo", settings={"profile": "other"}), "unknown parameter 'profile'"),
        (dict(profile="demo", settings={"seed": True}), "'seed' takes int, not bool True"),
        (dict(profile="demo", settings={"seed": "1"}), "'seed' takes int, not str '1'"),
        (dict(profile="demo", settings={"scale": True}), "'scale' takes float, not bool True"),
    ],
)
def test_typos_and_types_are_refused(finished, call, complaint):
    with pytest.raises(VwsdError) as refused:
        runner.run(**call)
    assert complaint in str(refused.value)


@pytest.mark.parametrize(
    "parameters, complaint",
    [
        ([], "0 cells are tagged"),
        ([PARAMETERS, PARAMETERS], "2 cells are tagged"),
        ("profile = input()", "line 1"),
        ('profile = "demo"; seed = 1', "line 1"),
        ('profile = "demo"\nseed: int = 1', "line 2"),
        ('profile = "demo"\nprint(1)', "line 2"),
        ('profile = ["a",\n"b"]', "line 1"),
        ("profile = = 1", "not Python"),
        ("seed = 1", "unknown parameter 'profile'"),
    ],
)
def test_the_parameters_cell_must_be_plain(project, parameters, complaint):
    project.add("01_data", parameters=parameters)
    with pytest.raises(VwsdError, match=complaint):
        runner.run("demo")


@pytest.mark.parametrize(
    "entry, complaint",
    [
        (dict(needs=["01_dat"]), "Did you mean '01_data'?"),
        (dict(needs=["01_data"]), "circle"),
        (dict(minuts=3), "Did you mean 'minutes'?"),
        (dict(produces=["rows/x"]), "cannot read the output"),
        (dict(produces=["../x.txt"]), "cannot read the output"),
        (dict(produces=["rows/{sed}.txt"]), "Did you mean 'seed'?"),
        (dict(produces={"demoo": []}), "unknown profile 'demo'"),
        (dict(profiles=["dem"]), "Did you mean 'demo'?"),
    ],
)
def test_pipeline_yml_must_make_sense(project, entry, complaint):
    project.add("01_data", **entry)
    with pytest.raises(VwsdError) as refused:
        runner.run("demo")
    assert complaint in str(refused.value)


def test_pipeline_yml_and_notebooks_must_exist(project):
    with pytest.raises(VwsdError, match="no pipeline.yml"):
        runner.status("demo")
    project.add("01_data")
    project.add("02_base", produces=["rows/01_data.txt"])
    with pytest.raises(VwsdError, match="produced twice: rows/01_data.txt"):
        runner.status("demo")
    project.add("02_base", needs=["01_data"], profiles=["demo"])
    project.add("01_data", profiles=["other"])
    with pytest.raises(VwsdError, match="unknown notebook in profile demo '01_data'"):
        runner.status("demo")
    (project.home / "notebooks" / "02_base.ipynb").unlink()
    project.add("01_data")
    with pytest.raises(VwsdError, match="missing or broken"):
        runner.status("demo")


def test_shorthands_profiles_and_settings_are_read(project):
    project.add(
        "01_data",
        produces={
            "demo": [
                "tables/x",
                "figures/y.v1.png",
                "predictions/z.en.jsonl",
                "predictions/{seed}.en.test",
                "audit/{seed}.json",
            ],
            "other": [],
        },
    )
    [demo], [other] = pipeline.plan("demo", settings={"seed": 7}), pipeline.plan("other")
    assert demo.outputs == (
        "tables/x.csv",
        "tables/x.md",
        "tables/x.tex",
        "figures/y.v1.png",
        "predictions/z.en.jsonl",
        "predictions/7.en.test.jsonl",
        "predictions/7.en.test.meta.json",
        "audit/7.json",
    )
    assert (
        other.outputs == () and demo.parameters["scale"] == 2.0 and other.parameters["scale"] == 1.0
    )
    assert pipeline.parse_settings(["a=1", "b=x=y", "c=[1, 2]", "d=true"]) == {
        "a": 1,
        "b": "x=y",
        "c": [1, 2],
        "d": True,
    }
    for bad in ("a", "=1", "a b=1", "a=["):
        with pytest.raises(VwsdError):
            pipeline.parse_settings([bad])


def named(text, **parameters):
    return pipeline.outputs({"produces": [text]}, "demo", parameters)


def test_a_list_stands_for_a_path_a_value():
    assert named("audit/{names}.json", names=["a", "b"]) == ("audit/a.json", "audit/b.json")
    assert (
        named("predictions/{x}.phrase", x=["lite"])
        == named("predictions/{x}.phrase", x="lite")
        == ("predictions/lite.phrase.jsonl", "predictions/lite.phrase.meta.json")
    )
    assert (
        named("audit/{names}.json", names=[])
        == named("audit/{x}.{names}.json", x=["a"], names=[])
        == ()
    )


def test_two_lists_give_their_product_and_one_named_twice_does_not():
    assert named("audit/{x}@{y}.json", x=["a", "b"], y=["1", "2"]) == (
        "audit/a@1.json",
        "audit/a@2.json",
        "audit/b@1.json",
        "audit/b@2.json",
    )
    assert named("audit/{x}.{x}.json", x=["a", "b"]) == ("audit/a.a.json", "audit/b.b.json")
    assert named("audit/{x}.{seed}.json", x=["a", "b"], seed=3) == (
        "audit/a.3.json",
        "audit/b.3.json",
    )


def test_names_with_dots_keep_their_suffixes():
    assert named("translations/{x}.it.test", x=["nllb-1.3b"]) == (
        "translations/nllb-1.3b.it.test.jsonl",
        "translations/nllb-1.3b.it.test.meta.json",
    )
    assert named("measured/x") == ("measured/x.jsonl", "measured/x.meta.json") and named(
        "measured/x.safetensors"
    ) == ("measured/x.safetensors",)


def test_a_list_that_names_one_thing_twice_is_refused(project):
    project.add("01_data", parameters=PARAMETERS + '\nnames = ["a"]', produces=["rows/{names}.txt"])
    assert pipeline.plan("demo", settings={"names": ["a", "b"]})[0].outputs == (
        "rows/a.txt",
        "rows/b.txt",
    )
    with pytest.raises(VwsdError, match="produced twice: rows/a.txt"):
        pipeline.plan("demo", settings={"names": ["a", "a"]})
    with pytest.raises(VwsdError, match="'names' takes list, not str 'a'"):
        pipeline.plan("demo", settings={"names": "a"})


@pytest.mark.parametrize(
    "parameters, expected",
    [
        ({"encoder": "lite", "dataset": "vwsd", "seed": 3, "alpha": 0.5, "nothing": None}, []),
        ({"encoder": "clip-vit-b32"}, ["clip-vit-b32"]),
        (
            {"encoder": "clip-vit-b32@bf16", "ladder": ["clip-vit-b16-352-squash", "lite"]},
            ["clip-vit-b32", "clip-vit-b16"],
        ),
        ({"segmenter": "clipseg-rd64", "dual": "clipseg-rd64"}, ["clipseg-rd64"]),
        ({"encoders": ["mclip", "siglip2-base"]}, ["clip-vit-b32", "siglip2-base", "mclip"]),
        (
            {"translator_it": "opus-mt", "more_it": ["nllb-1.3b"], "translator_fa": "reference"},
            ["opus-mt-it-en", "nllb-200-1.3b"],
        ),
        ({"examples": [81, 434], "pairs": [[85, 90]], "changes": ["patch 32 → 16"]}, []),
    ],
)
def test_checkpoints_are_found_through_the_registries(parameters, expected):
    assert pipeline.checkpoints_of(parameters) == expected  # in the table's order, each once


@pytest.fixture
def with_model(project, monkeypatch, tmp_path):
    """A finished notebook that reads clip-vit-b32, and one that reads no checkpoint; the
    checkpoint's file.
    """
    from vwsdlib.encoders.checkpoints import CHECKPOINTS

    folder = tmp_path / "models" / CHECKPOINTS["clip-vit-b32"].repo
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"weights")
    monkeypatch.setenv("VWSD_MODELS", str(tmp_path / "models"))
    project.add("01_data").add(
        "02_base", parameters=PARAMETERS + '\nencoders = ["clip-vit-b32@bf16"]', needs=["01_data"]
    )
    assert runner.run("demo").exit_code == 0
    return folder / "model.safetensors"


def test_a_changed_checkpoint_makes_a_notebook_stale(with_model):
    assert [state for _, state, _ in runner.status("demo")] == ["done", "done"]
    with_model.write_bytes(b"others!")
    assert states(runner.status("demo")) == {
        "01_data": ("done", states(runner.status("demo"))["01_data"][1]),
        "02_base": ("stale", "models"),
    }
    with_model.unlink()
    assert states(runner.status("demo"))["02_base"] == ("stale", "models")
    with_model.write_bytes(b"weights")
    assert [state for _, state, _ in runner.status("demo")] == ["done", "done"]


FETCH = """from pathlib import Path
file = Path({file!r})
file.parent.mkdir(parents=True, exist_ok=True)
file.write_bytes(b"{content}")"""


@pytest.mark.parametrize("before, state", [(None, "done"), (b"others!", "stale")])
def test_a_notebook_that_fetched_its_checkpoint_holds(
    before, state, project, monkeypatch, tmp_path
):
    """One whose checkpoint was there, and became another meanwhile, does not."""
    from vwsdlib.encoders.checkpoints import CHECKPOINTS

    models = tmp_path / "models"
    file = models / CHECKPOINTS["clip-vit-b32"].repo / "model.safetensors"
    monkeypatch.setenv("VWSD_MODELS", str(models))
    if before:
        file.parent.mkdir(parents=True)
        file.write_bytes(before)
    # the notebook fetches, by writing the file: no plan need find a hub for it
    monkeypatch.setattr(forecast, "_unfetchable", lambda absent: [])
    fetch = FETCH.format(file=str(file), content="weights")
    parameters = PARAMETERS + '\nencoder = "clip-vit-b32"\ndual = "clip-vit-b16"'
    project.add("01_data", START, fetch, WRITE, FINISH, parameters=parameters)
    assert runner.run("demo").exit_code == 0
    assert states(runner.status("demo"))["01_data"][0] == state
    assert outcomes(runner.run("demo")) == {"01_data": "up to date" if before is None else "done"}
    file.write_bytes(b"changed")  # afterwards
    assert states(runner.status("demo"))["01_data"] == ("stale", "models")


# ---------------------------------------------------------------- when it goes wrong

WRECKS = {  # cells, then where the failure must be seen and what it must be called
    "sys_exit": ([START, "import sys\nsys.exit(0)", WRITE, FINISH], "cell 3: SystemExit: 0"),
    "os_exit": (
        [START, WRITE, "import os\nos._exit(0)", FINISH],
        "cell 4: DeadKernelError: Kernel died",
    ),
    "os_exit_last": (
        [START, WRITE, FINISH + "\nimport os\nos._exit(0)"],
        "cell 4: DeadKernelError: Kernel died",
    ),
    "killed": (
        [START, WRITE, "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", FINISH],
        "cell 4: DeadKernelError: Kernel died",
    ),
    "undeclared": (
        [START, WRITE, 'open("stray.txt", "w").close()', FINISH],
        "OutputUndeclared: written but not declared in pipeline.yml: stray.txt",
    ),
    "missing": (
        [START, FINISH],
        "OutputMissing: declared in pipeline.yml but not written: rows/missing.txt",
    ),
    "unfinished": ([START, WRITE], "NotFinished: run.finish() was not called"),
    "misnamed": (
        [
            'from vwsd_companion.notebook import start\nrun = start("01_data", profile=profile)',
            WRITE,
            FINISH,
        ],
        (
            "cell 2: VwsdError: the notebook calls itself '01_data' [misnamed]. Write"
            " start('misnamed', ...) in it."
        ),
    ),
    "unchecked": (
        [START, WRITE, "run.finish(chance_row=False)"],
        (
            "cell 4: VwsdError: sanity check failed: chance_row [unchecked]. Look at the cells"
            " above: the numbers are not what they should be."
        ),
    ),
    "slow": (
        [START, WRITE, "import time\ntime.sleep(60)", FINISH],
        "cell 4: TimeBudgetExceeded: ran longer than its 0.15 minutes",
    ),
}


@pytest.fixture(scope="module")
def wrecked(tmp_path_factory):
    """Every failure as an independent branch of one run, with a child of one of them and a sound
    notebook at the end.
    """
    built = Project(tmp_path_factory.mktemp("wrecked") / "home")
    for name, (cells, _) in WRECKS.items():
        built.add(name, *cells, minutes=0.15 if name == "slow" else 1)
    built.add("child", needs=["missing"]).add("grandchild", needs=["child"]).add("sound")
    with pytest.MonkeyPatch.context() as patch:
        built.enter(patch)
        began = time.monotonic()
        built.report = runner.run("demo")
        built.seconds = time.monotonic() - began
        built.status = states(runner.status("demo"))
    return built


@pytest.mark.parametrize("name", WRECKS)
def test_each_failure_has_a_name(wrecked, name):
    [outcome] = [o for o in wrecked.report.outcomes if o.notebook == name]
    assert (outcome.state, outcome.detail) == ("failed", WRECKS[name][1])
    assert wrecked.status[name] == ("failed", WRECKS[name][1])
    record = json.loads((wrecked.results / ".stamps" / f"{name}.failed.json").read_text())
    assert (
        nbformat.read(record["log"], as_version=4).cells
        and not (wrecked.results / "rows" / f"{name}.txt").exists()
    )


def test_descendants_are_blocked_and_independent_branches_run(wrecked):
    found = outcomes(wrecked.report)
    assert (found["child"], found["grandchild"], found["sound"]) == ("blocked", "blocked", "done")
    assert wrecked.report.exit_code == 1 and wrecked.status["grandchild"] == ("blocked", "by child")
    assert wrecked.status["sound"][0] == "done" and wrecked.tree().keys() == {
        "rows/sound.txt",
        "notebooks/sound.ipynb",
    }
    assert not list((wrecked.results / ".staging").iterdir())


def test_good_results_survive_a_failing_rerun(finished):
    before = finished.tree()
    finished.edit("01_data", "fine=True", "fine=1/0")
    report = runner.run("demo", keep_going=False)
    assert outcomes(report) == {"01_data": "failed"} and report.exit_code == 1
    assert report.outcomes[0].detail == "cell 5: ZeroDivisionError: division by zero"
    assert finished.tree() == before
    assert states(runner.status("demo")) == {
        "01_data": ("failed", report.outcomes[0].detail),
        "02_base": ("blocked", "by 01_data"),
    }


def test_a_kill_between_moves_and_stamp_is_noticed(finished, monkeypatch):
    finished.edit("01_data", "{scale}", "{scale} new")

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        write = runner._write

        def killed(path, record):
            if path.name == "01_data.json":
                raise KeyboardInterrupt
            write(path, record)

        patch.setattr(runner, "_write", killed)
        runner.run("demo")
    assert finished.tree()["rows/01_data.txt"] == b"0 2.0 new\n"
    assert states(runner.status("demo"))["01_data"] == ("stale", "code, outputs")
    finished.edit(
        "01_data", "{scale} new", "{scale}"
    )  # back to what the old stamp says: the bytes still give it away
    assert states(runner.status("demo"))["01_data"] == ("stale", "outputs")


def test_a_second_runner_is_told_who_holds_the_lock(finished, monkeypatch):
    hold = (
        "import sys, time; from vwsd_companion import runner\n"
        "with runner._exclusive('demo'): print('held', flush=True); time.sleep(60)"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", hold], stdout=subprocess.PIPE, text=True, cwd=runner.PACKAGE.parent
    )
    try:
        assert other.stdout.readline() == "held\n"
        monkeypatch.setattr(runner, "LOCK_SECONDS", 0.3)
        with pytest.raises(VwsdError, match=f"process {other.pid}"):
            runner.run("demo")
    finally:
        other.kill()
        other.wait()
    assert runner.run("demo").exit_code == 0  # a dead holder holds nothing


def test_what_a_dead_run_left_is_swept(finished):
    left = finished.results / ".staging" / "01_data-999999-abc" / "out"
    left.mkdir(parents=True)
    (left / "half.txt").write_text("half")
    runner.run("demo")
    assert not left.parent.exists()


# ---------------------------------------------------------------- notebook.py by hand


def test_by_hand_files_go_straight_to_the_results(project, monkeypatch, capsys):
    monkeypatch.delenv("VWSD_STAGING", raising=False)
    run = notebook.start("01_data", profile="demo", seed=3)
    path = run.path("tables/x.csv")
    assert path == project.results / "tables" / "x.csv"
    with pytest.raises(VwsdError, match="never written: tables/x.csv"):
        run.finish()
    path.write_text("1")
    run.finish(chance_row=True)
    assert (
        capsys.readouterr().out == "01_data: complete, checks held: chance_row\n"
        and not (project.results / notebook.FINISH).exists()
    )
    for wrong in ("../x.csv", "/x.csv"):
        with pytest.raises(VwsdError, match="outside"):
            run.path(wrong)
    with pytest.raises(VwsdError, match="profile"):
        notebook.start("01_data")


def test_start_seeds_the_generators():
    import random

    import numpy

    draws = []
    for seed in (1, 1, 2):
        notebook.start("x", profile="demo", seed=seed)
        draws.append((random.random(), numpy.random.random()))
    assert draws[0] == draws[1] != draws[2]


# ---------------------------------------------------------------- damaged files of the runner's
# own, odd machines

STAMP_SHAPES = (
    "",
    "{",
    "[]",
    "null",
    "3",
    '"x"',
    "[[[[",
    '{"seconds": 1}',
    '{"fingerprint": 1}',
    "\x00",
    "[" * 100_000,
)


@pytest.mark.parametrize("text", STAMP_SHAPES, ids=lambda text: repr(text[:12]))
def test_a_damaged_stamp_means_stale(text, finished):
    pipeline.stamp_path("demo", "01_data").write_text(text)
    assert states(runner.status("demo"))["01_data"] == ("stale", "damaged stamp")
    assert runner.slowest("demo")


@pytest.mark.parametrize(
    "key, value",
    [
        ("outputs", []),
        ("outputs", {"a": 1}),
        ("components", {}),
        ("components", {"upstream": []}),
        ("seconds", "long"),
        ("seconds", None),
        ("cells", 3),
        ("cells", [{}]),
        ("fingerprint", None),
        ("cells", [{"notebook": "x", "cell": 1, "line": "y", "seconds": "z"}]),
    ],
)
def test_a_stamp_of_another_shape_means_stale_and_is_made_again(key, value, finished):
    path = pipeline.stamp_path("demo", "01_data")
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    assert states(runner.status("demo"))["01_data"] == ("stale", "damaged stamp")
    assert all(line.startswith(("slowest", "  ")) for line in runner.slowest("demo"))


@pytest.mark.parametrize(
    "text",
    [*STAMP_SHAPES, '{"cell": 1, "error": "E", "message": "m", "log": "l", "more": 2}'],
    ids=lambda text: repr(text[:12]),
)
def test_a_damaged_reason_of_a_failure_is_no_crash(text, finished):
    pipeline.stamp_path("demo", "01_data").unlink()
    pipeline.stamp_path("demo", "01_data", ".failed.json").write_text(text)
    assert states(runner.status("demo"))["01_data"] == (
        ("failed", "cell 1: E: m") if "more" in text else ("never run", "")
    )


@pytest.mark.parametrize(
    "text, complaint",
    [
        ("", "not a mapping"),
        ("- a\n", "not a mapping"),
        ("profiles: 3\nnotebooks: {}\n", "not a mapping"),
        ("profiles: {demo: [1]}\nnotebooks: {}\n", "demo: input should be"),
        ("profiles: {2024-01-01: {}}\nnotebooks: {}\n", "a date"),
        ("profiles: {demo: {seed: 2024-01-01}}\nnotebooks: {}\n", "a date"),
        ("profiles: {demo: {seed: .nan}}\nnotebooks: {}\n", "the number nan"),
        ("profiles: {1: {}}\nnotebooks: {}\n", "no name"),
        ("profiles: {demo: {}}\nnotebooks: {../n: {}}\n", "no name"),
        ("profiles: {demo: {}}\nnotebooks: {n: 1}\n", "n: input should be"),
        ("profiles: {demo: {}}\nnotebooks: {n: {minutes: often}}\n", "minutes"),
        ("profiles: {demo: {}}\nnotebooks: {n: {minutes: 0}}\n", "greater than 0"),
        ("profiles: {demo: {}}\nnotebooks: {n: {produces: 5}}\n", "produces"),
        ("profiles: {demo: {}}\nnotebooks: {n: {needs: n}}\n", "needs"),
        ("&a [*a]\n", "more than"),
        ("[" * 100_000, "no YAML"),
        ("!!python/object/apply:os.getcwd []\n", "no YAML"),
        ("\x00", "no YAML"),
        ("a: b: c", "no YAML"),
    ],
)
def test_pipeline_yml_of_another_shape_is_named(text, complaint, project):
    project.pipeline.write_text(text)
    with pytest.raises(VwsdError) as refused:
        runner.status("demo")
    assert complaint in str(refused.value).replace("Input", "input") and "pipeline.yml" in str(
        refused.value
    )


def test_pipeline_yml_that_is_no_text_or_no_file(project):
    project.pipeline.write_bytes(b"profiles: \xff\n")
    with pytest.raises(VwsdError, match="no YAML"):
        runner.status("demo")
    project.pipeline.unlink()
    project.pipeline.mkdir()
    with pytest.raises(VwsdError, match="is no file but a folder"):
        runner.status("demo")


@pytest.mark.parametrize(
    "pair, complaint",
    [
        ("seed=2024-01-01", "a date"),
        ("seed=2024-13-45", "no YAML literal"),
        ("seed=.inf", "the number inf"),
        ("seed={a: !!set {b}}", "a set"),
        ("seed=!!binary aGk=", "a bytes"),
        ("seed=" + "[" * 5000, "no YAML literal"),
        ("seed=!!python/name:os.getcwd", "no YAML literal"),
    ],
)
def test_settings_of_odd_types_are_named(pair, complaint):
    with pytest.raises(VwsdError, match=complaint):
        pipeline.parse_settings([pair])
    assert pipeline.parse_settings(["seed='2024-01-01'", "x=[1, 2.5, a, true, null]"]) == {
        "seed": "2024-01-01",
        "x": [1, 2.5, "a", True, None],
    }


@pytest.mark.parametrize("call", [dict(limit=-5), dict(settings={"limit": -1})])
def test_a_limit_below_0_is_refused(call, finished):
    with pytest.raises(VwsdError, match="below 0"):
        runner.run("demo", **call)


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "[]",
        "nothing",
        '{"cells": 1}',
        '{"cells": [{}], "nbformat": 4, "nbformat_minor": 5, "metadata": {}}',
        "[" * 100_000,
        "\x00",
    ],
    ids=lambda text: repr(text[:12]),
)
def test_a_notebook_of_another_shape_is_named(text, finished):
    (finished.home / "notebooks" / "01_data.ipynb").write_text(text)
    with pytest.raises(VwsdError, match="the notebook is missing or broken"):
        runner.status("demo")


@pytest.mark.parametrize("text", ["often", "0", "-1", "nan", "inf"])
def test_an_odd_time_factor_is_refused_before_anything_runs(text, finished, monkeypatch, capsys):
    monkeypatch.setenv("VWSD_TIME_FACTOR", text)
    with pytest.raises(VwsdError, match="VWSD_TIME_FACTOR"):
        runner.run("demo", force=True)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("variable", ["VWSD_RESULTS", "VWSD_CACHE"])
def test_folders_that_cannot_be_written_are_said_before_a_notebook_runs(
    variable, finished, monkeypatch, tmp_path, capsys
):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(variable, str(tmp_path / "file" / "below"))
    with pytest.raises(VwsdError, match="cannot be written"):
        runner.run("demo", force=True)
    assert capsys.readouterr().out == ""


def test_a_full_disk_is_said_before_a_notebook_runs(finished, monkeypatch, capsys):
    monkeypatch.setattr(runner, "free_gb", lambda folder: 0.001)
    with pytest.raises(VwsdError, match="1 MB are free"):
        runner.run("demo", force=True)
    assert capsys.readouterr().out == ""


def test_a_user_without_a_home_loses_no_notebook(finished, monkeypatch):
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(
        Path, "home", classmethod(lambda cls: (_ for _ in ()).throw(RuntimeError("no home")))
    )
    before = finished.tree()
    assert outcomes(runner.run("demo", force=True)) == {"01_data": "done", "02_base": "done"}
    assert {name: data for name, data in finished.tree().items() if name.startswith("rows")} == {
        name: data for name, data in before.items() if name.startswith("rows")
    }


def test_files_that_cannot_be_put_in_place_are_kept_and_named(finished, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(runner, "_move", full)
    [outcome] = runner.run("demo", only=["01_data"], force=True).outcomes
    kept = finished.home / ".cache" / "logs" / "demo" / "01_data.files"
    assert (
        outcome.state == "failed" and "NotStored" in outcome.detail and str(kept) in outcome.detail
    )
    assert (kept / "rows" / "01_data.txt").read_text() == "0 2.0\n"


def test_no_kernel_outlives_a_killed_runner(project):
    import psutil

    project.add("01_data", START, "import time; time.sleep(120)", FINISH, produces=[])
    process = subprocess.Popen(
        [sys.executable, "-c", "from vwsd_companion import runner; runner.run('demo')"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        began, started = time.monotonic(), []
        while not started and time.monotonic() - began < 60:
            time.sleep(0.2)
            started = [
                child
                for child in psutil.Process(process.pid).children(recursive=True)
                if "ipykernel" in " ".join(child.cmdline())
            ]
        assert started
        time.sleep(1.5)
    finally:
        process.kill()
        process.wait()
    _, alive = psutil.wait_procs(started, timeout=10)
    assert not alive
    project.edit("01_data", "time.sleep(120)", "print(1)")
    assert outcomes(runner.run("demo")) == {"01_data": "done"} and not list(
        (project.results / ".staging").iterdir()
    )


# ---------------------------------------------------------------- what may be missing


WITHOUT = """from vwsdlib.errors import VwsdError
missing = VwsdError("the data are not here", remedy="Get them.") if scale < 1 else None
said = run.without("training", missing)
if not missing:
    run.path("rows/trained.txt").write_text("trained")"""
EXCUSED = {"training": ["rows/trained.txt"]}
BOTH = ["rows/01_part.txt", "rows/trained.txt"]


def test_what_is_missing_excuses_its_outputs_and_no_others(project):
    project.add("01_part", START, WRITE, WITHOUT, FINISH, produces=BOTH, without=EXCUSED)
    assert outcomes(runner.run("demo", settings={"scale": 0.5})) == {"01_part": "done"}
    assert set(project.tree()) >= {"rows/01_part.txt"} and "rows/trained.txt" not in project.tree()
    again = runner.run("demo", settings={"scale": 0.5})
    assert outcomes(again) == {"01_part": "up to date"}
    stamp = json.loads(pipeline.stamp_path("demo", "01_part").read_text())
    assert stamp["without"] == {"training": "the data are not here"}
    assert outcomes(runner.run("demo", settings={"scale": 1.5})) == {"01_part": "done"}
    assert "rows/trained.txt" in project.tree()
    project.add("01_part", START, WITHOUT, FINISH, produces=BOTH, without=EXCUSED)
    (failed,) = runner.run("demo", settings={"scale": 0.5}).outcomes
    assert failed.state == "failed" and "rows/01_part.txt" in failed.detail


def test_without_a_reason_nothing_is_excused(project):
    project.add("01_part", START, WRITE, FINISH, produces=BOTH, without=EXCUSED)
    (failed,) = runner.run("demo").outcomes
    assert failed.state == "failed" and "not written: rows/trained.txt" in failed.detail


def test_training_data_that_come_make_the_notebook_stale(monkeypatch):
    from polclip import paper

    published = {"study": "published", "settings": {"train": "ie_semcor"}}
    assert pipeline.training_data({"study": "emojiwsd", "settings": {}}) == {}
    assert "missing" in pipeline.training_data(published)[pipeline.TRAINING_DATA]
    monkeypatch.setattr(paper, "required", lambda train: None)
    assert pipeline.training_data(published) == {pipeline.TRAINING_DATA: ""}
