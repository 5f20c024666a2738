"""What every registered recipe must do. A new one is tested the moment it is named in the registry."""

import json

import pytest

from phosphene import flow, recipes
from phosphene.conformance import NonConforming, TinyStudy, check_recipe
from phosphene.data import open_dataset
from phosphene.lab import zoo
from phosphene.reporting import report

SIZES = {"n_train": 120, "n_test": 24, "n_voxels": 150}

QUICK = {
    "brain_diffuser": {"sampling.steps": 5},
    "posterior": {"choice.n_folds": 2},
    "regressor": {"sampling.steps": 4},
    "mind_vis": {"brain_training.steps": 20, "tuning.steps": 20, "sampling.steps": 5},
    "cad": {"brain_training.steps": 20, "cross_training.steps": 10, "tuning.steps": 20, "sampling.steps": 5},
    "mind_reader": {"training.base.steps": 30, "training.finetune.steps": 20, "encoder_training.train.steps": 30},
    "gru_two_stage": {"training.train.steps": 300},
}
"""What a recipe that trains, samples or chooses for long in the lab is told here."""

WEIGHTS = {"mind_vis": {"ldm", "vq"}, "cad": {"ldm", "vq", "mae"}, "mind_reader": {"stylegan2"}}
"""Networks of the zoo that a recipe cannot do without and that may not be bundled yet."""

UNTAUGHT = {"mind_vis", "cad"}
"""Recipes that have learned nothing yet after so few steps (docs/cad.md says how many they need): no score is asked of them,
only that nothing else gives them one."""

REFITTED = {"linear", "regressor"}
"""Recipes fitted a second time here, to see that the seed decides everything; the others train for too long."""

WAIVED: dict[str, dict[str, str]] = {}
"""What a recipe does not keep yet. A waiver that is no longer needed fails."""


@pytest.fixture(scope="module")
def study():
    return TinyStudy.of(open_dataset("insilico", options=SIZES))


LONG = {"brain_diffuser", "cad", "gru_two_stage", "lea", "mind_vis", "mixed", "posterior"}
"""Recipes that take more than fifteen seconds here; their own tests under tests/recipes are quick."""


@pytest.fixture(
    scope="module",
    params=[pytest.param(n, marks=pytest.mark.slow) if n in LONG else n for n in recipes.recipe_names()],
)
def checked(request, study, tmp_path_factory):
    """The name of a recipe, the folder of its finished stages, and what it does not keep of its promises."""
    name = request.param
    if absent := WEIGHTS.get(name, set()) - set(zoo.names()):
        pytest.skip(f"the zoo's {', '.join(sorted(absent))} is not bundled")
    pool, broken = tmp_path_factory.mktemp(name) / "pool", None
    try:
        check_recipe(
            name, values=QUICK.get(name), study=study, refit=name in REFITTED, pool=pool, waived=WAIVED.get(name)
        )
    except NonConforming as error:
        broken = error
    return name, pool, broken


@pytest.fixture(scope="module")
def run(checked):
    """A run on the same data, which finds the stages that were fitted for the check."""
    name, pool, _ = checked
    values = {f"recipe.{key}": value for key, value in QUICK.get(name, {}).items()}
    data = {"data.name": "insilico", "data.options": SIZES}
    config, _ = flow.configure(name, [("test", {**data, **values})])
    opened = flow.fit(config, pool.parent / "run", pool=pool)
    flow.decode(opened)
    if opened.recipe(0).can_encode():
        flow.encode(opened)
    flow.evaluate(opened)
    return opened


def test_it_keeps_the_promises_of_a_recipe(checked):
    if checked[2] is not None:
        raise checked[2]


def test_a_run_on_the_same_data_computes_no_stage_again(run):
    lines = [json.loads(line) for line in (run.folder.path / "log.jsonl").read_text().splitlines()]
    stages = {line["stage"]: line["how"] for line in lines if "stage" in line}
    assert stages == dict.fromkeys((stage.name for stage in type(run.recipe(0)).stages), "reused")


def test_the_run_saw_training_trials_and_no_other(run):
    train, test = run.sides(0)
    assert run.recipe(0).lineage_ == train.member_keys()
    assert not run.recipe(0).lineage_ & test.member_keys()


def test_the_brain_is_above_chance_and_the_controls_are_not(run):
    scores = run.folder.table("scores.csv")
    # Pictures, and the latents they were made from: a generator may hide at 120 training pictures what latents show.
    two_way = scores[scores["metric"].str.match(r"two_way\.")].set_index(["input", "metric"])
    if run.config.recipe.kind not in UNTAUGHT:
        assert two_way.loc["brain", "p"].min() < 0.01
    for control in ("shuffled", "noise", "mean"):
        for metric, row in two_way.loc[control].iterrows():
            # 24 correlated items: the null has a standard deviation near 0.06.
            assert abs(row["value"] - 0.5) < 0.25, (control, metric)
            assert row["p"] > 0.001, (control, metric)


def test_no_check_fails(run):
    verdicts = run.folder.table("validity.csv")
    if run.config.recipe.kind in UNTAUGHT:  # these find that it is not the brain, as they should
        verdicts = verdicts[~verdicts["id"].isin(["B1", "B3", "B4", "B8", "M6"])]
    assert not (verdicts["verdict"] == "fail").any(), verdicts[verdicts["verdict"] == "fail"].to_string()


def test_the_report_is_written(run):
    assert report(run.folder).stat().st_size > 10_000
