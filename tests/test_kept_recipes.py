"""The recipes kept with linn agree with each other."""

from pathlib import Path

from linn.pricing.plan import check_inputs
from linn.recipe import load as recipes

KEPT = Path(__file__).parent.parent / "recipes"


def test_the_closing_mopd_continues_the_tiny_run():
    tiny, final = recipes.load(KEPT / "tiny.yaml"), recipes.load(KEPT / "tiny-final-mopd.yaml")
    assert final.stages[:-1] == tiny.stages and final.stages[-1].kind == "distill"
    for block in ("model", "seed", "domains", "evaluate", "scale"):
        assert getattr(final, block) == getattr(tiny, block), block


def test_tiny_follows_the_papers_order():
    tiny = recipes.load(KEPT / "tiny.yaml")
    assert [stage.name for stage in tiny.stages] == [
        "sft",
        "if-rl",
        "multi-domain",
        "rlhf-teacher",
        "mopd",
        "rlhf",
        "long-context",
        "code",
        "swe-agentless",
        "swe-agentic",
    ]
    assert tiny.parent("rlhf-teacher") == "sft"
    assert tiny.parent("mopd") == "multi-domain"
    assert tiny.parent("rlhf") == "mopd"


def test_the_compared_arms_differ_in_method_alone():
    compare = recipes.load(KEPT / "compare.yaml")
    mopd, mixed = compare.stages[-2:]
    assert compare.parent("mopd") == compare.parent("mixed-rl") == "multi-domain"
    assert mopd.domains == mixed.domains
    assert mopd.steps == mixed.steps and mopd.prompts == mixed.prompts
    assert mixed.rollouts >= mopd.rollouts


def test_the_comparison_is_tuned_on_what_it_compares():
    compare, tune = recipes.load(KEPT / "compare.yaml"), recipes.load(KEPT / "compare-tune.yaml")
    assert tune.stages[:4] == compare.stages[:4] and tune.evaluate == compare.evaluate


def test_the_reward_model_is_trained_by_the_papers_reward_and_judges_afterwards():
    genrm = recipes.load(KEPT / "genrm.yaml")
    check_inputs(genrm, Path("nowhere"))
    options = genrm.domain_options()
    assert (options["genrm"]["c1"], options["genrm"]["c2"]) == (10, 1)
    assert genrm.stages[1].rollouts == 8
    assert genrm.judged_by("genrm")["preference"].stage == "genrm"
    assert options["preference"]["layout"] == "genrm"
