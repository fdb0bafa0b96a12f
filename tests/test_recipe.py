"""Recipes: defaults, overrides, and one clear line for every mistake."""

from pathlib import Path

import pytest
import yaml

from linn.errors import UserError
from linn.recipe import load as recipes
from linn.recipe.explain import every_key
from linn.recipe.stages import DistillConfig, RlConfig, SftConfig
from linn.run.agreement import Effect, differences_of_run

TREE = {
    "name": "x",
    "domains": {"arithmetic": {}, "mcqa": None},
    "stages": [
        {"name": "sft", "kind": "sft", "steps": 4},
        {"name": "rl", "kind": "rl", "domains": {"mcqa": 3, "arithmetic": 1}},
        {"name": "side", "kind": "rl", "from": "sft"},
        {"name": "mopd", "kind": "distill", "from": "rl", "teachers": "best"},
    ],
}


def parsed(**changes):
    return recipes.parse({**TREE, **changes}, "t.yaml")


def test_defaults_are_the_papers():
    recipe = parsed()
    sft, rl, _, mopd = recipe.stages
    assert (
        isinstance(sft, SftConfig)
        and sft.betas == (0.9, 0.98)
        and sft.weight_decay == 0.1
        and sft.lr == 5e-5
    )
    assert isinstance(rl, RlConfig) and (
        rl.prompts,
        rl.rollouts,
        rl.lr,
        rl.betas,
        rl.kl,
        rl.overlong,
    ) == (
        128,
        16,
        3e-6,
        (0.9, 0.95),
        0.0,
        "keep",
    )
    assert isinstance(mopd, DistillConfig) and (
        mopd.rollouts,
        mopd.lr,
        mopd.warmup,
        mopd.warmup_from,
    ) == (4, 2e-6, 30, 2e-7)
    assert mopd.band == (0.5, 2.0) and mopd.normalise == "sequence" and rl.normalise == "token"


def test_parents_and_weights():
    recipe = parsed()
    assert [recipe.parent(s.name) for s in recipe.stages] == ["base", "sft", "sft", "rl"]
    assert recipe.weights_of(recipe.stages[1]) == {"mcqa": 0.75, "arithmetic": 0.25}
    assert recipe.weights_of(recipe.stages[0]) == {"arithmetic": 0.5, "mcqa": 0.5}


def test_a_domain_of_a_file_goes_by_the_files_name():
    stages = [
        {"name": "a", "kind": "sft", "domains": {"./mine.py": 1}, "faulty": {"./mine.py": 0.25}},
        {"name": "b", "kind": "rl"},
    ]
    first, second = (recipe := parsed(domains={"./mine.py": {}}, stages=stages)).stages
    assert recipe.weights_of(first) == recipe.weights_of(second) == {"mine": 1.0}
    assert isinstance(first, SftConfig) and first.faulty_share("mine") == 0.25


def test_a_judge_and_a_domains_own_options():
    recipe = parsed(
        domains={
            "arithmetic": {"judge": "http://h:1/v1#m", "digits": 3},
            "mcqa": {"judge": {"model": "@sft", "retries": 1}},
        }
    )
    assert recipe.domain_options() == {
        "arithmetic": {
            "level": "tiny",
            "rows": None,
            "skip_bad": False,
            "digits": 3,
            "judged": True,
        },
        "mcqa": {"level": "tiny", "rows": None, "skip_bad": False, "judged": True},
    }
    judge = recipe.domains["arithmetic"].judge
    assert judge is not None and judge.endpoint == ("http://h:1/v1", "m") and judge.stage is None
    assert (judge.temperature, judge.top_p, judge.max_tokens, judge.retries) == (
        0.6,
        0.95,
        16_384,
        3,
    )
    assert recipe.measured_at("base") == ["arithmetic"] and recipe.measured_at("sft") == [
        "arithmetic",
        "mcqa",
    ]
    again = recipes.parse(yaml.safe_load(recipes.resolved(recipe)), "t")
    assert again == recipe and again.judged_by("rl")["mcqa"].stage == "sft"
    assert any(key == "domains.NAME.judge.model" for key, *_ in every_key())
    assert any(key == "domains.NAME.OPTION" for key, *_ in every_key())


def test_learning_rate_warms_up_and_falls():
    keys = recipes.parse(
        {
            **TREE,
            "stages": [
                {
                    "name": "s",
                    "kind": "sft",
                    "steps": 11,
                    "lr": 1.0,
                    "min_lr": 0.1,
                    "schedule": "cosine",
                    "warmup": 2,
                }
            ],
        },
        "t",
    ).stages[0]
    rates = [keys.lr_at(step) for step in range(11)]
    assert (
        rates[:3] == [0.5, 1.0, 1.0]
        and rates[-1] == pytest.approx(0.1)
        and rates == sorted(rates[:2]) + sorted(rates[2:], reverse=True)
    )
    mopd = parsed().stages[3]
    # Paper §4.4: the first step is taken at 2e-7 itself, the thirtieth at the peak.
    assert mopd.lr_at(0) == 2e-7 and mopd.lr_at(29) == pytest.approx(2e-6) == mopd.lr_at(50)


def test_a_stage_may_stop_before_its_schedule_does():
    keys = {
        "name": "s",
        "kind": "sft",
        "steps": 33,
        "lr": 1.0,
        "min_lr": 0.1,
        "schedule": "cosine",
        "warmup": 2,
        "horizon": 40,
    }
    whole = {**keys, "steps": 40, "horizon": None}
    short, full = (recipes.parse({**TREE, "stages": [k]}, "t").stages[0] for k in (keys, whole))
    assert [short.lr_at(step) for step in range(33)] == [full.lr_at(step) for step in range(33)]


def test_a_teacher_may_be_the_best_of_the_ledger():
    stages = [
        *TREE["stages"][:3],
        {**TREE["stages"][3], "teachers": {"arithmetic": "sft", "mcqa": "best"}},
    ]
    assert parsed(stages=stages).stages[3].teachers == {"arithmetic": "sft", "mcqa": "best"}


@pytest.mark.parametrize(
    ("tree", "said"),
    [
        ({"stages": [{"name": "a", "kind": "rl", "stepz": 3}]}, "did you mean 'steps'"),
        ({"stages": [{"name": "a", "kind": "ppo"}]}, "kind must be one of sft, rl, distill"),
        ({"stages": [{"name": "a", "kind": "rl", "steps": "many"}]}, "stage 'a'.steps"),
        ({"stages": [{"name": "a", "kind": "rl", "domains": {"mcq": 1}}]}, "did you mean 'mcqa'"),
        ({"stages": [{"name": "a", "kind": "rl", "from": "b"}]}, "no earlier stage; allowed: base"),
        ({"stages": [{"name": "a", "kind": "rl"}, {"name": "a", "kind": "rl"}]}, "there twice"),
        ({"stages": [{"name": "a", "kind": "distill"}]}, "no checkpoint comes before it"),
        (
            {
                "stages": [
                    {"name": "a", "kind": "sft"},
                    {"name": "b", "kind": "distill", "teachers": {"mcqa": "c"}},
                ]
            },
            "teacher 'c' of mcqa is no earlier stage",
        ),
        (
            {
                "stages": [
                    {"name": "a", "kind": "sft"},
                    {"name": "b", "kind": "distill", "domains": {"mcqa": 1}, "teachers": {}},
                ]
            },
            "no teacher for mcqa",
        ),
        ({"scale": {"proceses": 2}}, "did you mean 'processes'"),
        ({"sede": 1}, "did you mean 'seed'"),
        ({"name": None}, "name"),
        ({"stages": "sft"}, "stages"),
        ({"stages": [{"name": "a", "kind": "rl", "lr": -1}]}, "lr"),
        (
            {"domains": {"mcqa": {}, "arithmetic": {"judge": "http://h/v1"}}},
            "http://HOST:PORT/v1#MODEL",
        ),
        (
            {"domains": {"mcqa": {}, "arithmetic": {"judge": {"modle": "x"}}}},
            "did you mean 'model'",
        ),
        (
            {"domains": {"mcqa": {}, "arithmetic": {"judge": {"model": "x", "top_p": 2}}}},
            "domains.arithmetic.judge.top_p",
        ),
        ({"domains": {"mcqa": {}, "arithmetic": {"judge": 3}}}, "domains.arithmetic.judge"),
        ({"domains": {"mcqa": {}, "arithmetic": {"judged": True}}}, "is set by judge: MODEL"),
        ({"domains": {"mcqa": {}, "arithmetic": {"judge": "@sfd"}}}, "did you mean 'sft'"),
        ({"domains": {"mcqa": {}, "arithmetic": {"judge": "@rl"}}}, "stage 'rl' needs the judge"),
        (
            {"domains": {}, "stages": [{"name": "a", "kind": "rl"}]},
            "no domains to take prompts from",
        ),
        ({"domains": {"mcqa": {}, "./mcqa.py": {}}}, "two have the same name"),
        ({"stages": []}, "stages"),
        ({"stages": [{"name": "a", "kind": "rl", "domains": {"mcqa": 0}}]}, "not all 0"),
        ({"stages": [{"name": "a", "kind": "rl", "domains": {"mcqa": float("nan")}}]}, "mcqa"),
        ({"stages": [{"name": "a/b", "kind": "rl"}]}, "name"),
        ({"stages": [{"name": "a", "kind": "rl", "rollouts": 1}]}, "rollouts"),
        ({"stages": [{"name": "a", "kind": "sft", "schedule": "cosine"}]}, "cosine needs min_lr"),
        (
            {"stages": [{"name": "a", "kind": "sft", "min_lr": 1e-6}]},
            "no meaning under schedule: constant",
        ),
        ({"stages": [{"name": "a", "kind": "sft", "faulty": {"mcq": 0.5}}]}, "did you mean 'mcqa'"),
        ({"scale": {"precision": "fp8"}}, "float32"),
        ({"stages": [{"name": "a", "kind": "sft", "horizon": 200}]}, "horizon 200: needs schedule"),
        ({"stages": [{"name": "best", "kind": "sft"}]}, "take another"),
        (
            {
                "stages": [
                    {"name": "a", "kind": "sft"},
                    {"name": "b", "kind": "distill", "teachers": {"mcqa": "a"}},
                ]
            },
            "no teacher for arithmetic",
        ),
        (
            {
                "stages": [
                    {"name": "a", "kind": "sft"},
                    {
                        "name": "b",
                        "kind": "distill",
                        "domains": {"mcqa": 1},
                        "teachers": {"mcqa": "a", "arithmetic": "a"},
                    },
                ]
            },
            "not among its domains",
        ),
    ],
)
def test_a_mistake_is_one_line(tree, said):
    with pytest.raises(UserError) as caught:
        parsed(**tree)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_set_changes_one_value(tmp_path: Path):
    path = tmp_path / "r.yaml"
    path.write_text(yaml.safe_dump(TREE))
    recipe = recipes.load(
        path, ["rl.lr=1e-3", "seed=7", "evaluate.test=40", "model=tiny-2", "rl.domains={mcqa: 1}"]
    )
    assert (
        recipe.stages[1].lr == 1e-3
        and recipe.seed == 7
        and recipe.evaluate.test == 40
        and recipe.model == "tiny-2"
    )
    assert recipe.weights_of(recipe.stages[1]) == {"mcqa": 1.0}
    for bad, said in [
        ("rl.lr", "expected"),
        ("rll.lr=1", "did you mean 'rl'"),
        ("rl.lrr=1", "did you mean 'lr'"),
        ("seed=[", "not YAML"),
    ]:
        with pytest.raises(UserError, match=said):
            recipes.load(path, [bad])


def test_set_follows_the_schema(tmp_path: Path):
    path = tmp_path / "r.yaml"
    judged = {"arithmetic": {"judge": "tiny"}, "mcqa": None}
    path.write_text(yaml.safe_dump({**TREE, "domains": judged}))
    recipe = recipes.load(path, ["domains.arithmetic.judge.retries=1", "domains.mcqa.rows=x"])
    assert recipe.domains["mcqa"].rows == "x"
    judge = recipe.domains["arithmetic"].judge
    assert judge is not None and (judge.model, judge.retries) == ("tiny", 1)
    for change, message in [
        ("rl.lr.x=1", "'lr' holds no keys"),
        ("rl.curiculum.start=1", "did you mean 'curriculum'"),
        ("mopd.teachers.mcqa=sft", "'teachers' is 'best'"),
    ]:
        with pytest.raises(UserError, match=f"--set '{change}'.*{message}"):
            recipes.load(path, [change])


@pytest.mark.parametrize("text", ["{", "- 1", "", "name: [", "\t"])
def test_not_a_recipe(tmp_path: Path, text: str):
    path = tmp_path / "r.yaml"
    path.write_text(text)
    with pytest.raises(UserError):
        recipes.load(path)
    with pytest.raises(UserError, match="cannot be read"):
        recipes.load(tmp_path / "absent.yaml")
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError):
        recipes.load(path)


def test_resolved_is_read_back_equal():
    recipe = parsed()
    assert recipes.parse(yaml.safe_load(recipes.resolved(recipe)), "again") == recipe


def test_every_key_has_a_meaning():
    keys = list(every_key())
    assert len(keys) > 60 and all(key.meaning for key in keys)


def test_types_are_explained_in_words_that_a_user_knows():
    pythons_words = ("[", "]", "|", "Annotated", "Config", "Optional", "None", "Literal", "<", "'")
    for key in every_key():
        assert key.type and not [word for word in pythons_words if word in key.type], key
    types = {key.name: key.type for key in every_key()}
    assert types["stages"] == "list of stages"
    assert types["rl.normalise"] == "one of token, sequence, prompt"
    assert types["sft.data"] == "text or NAME: NUMBER pairs"
    assert types["distill.teachers"] == "best or NAME: TEXT pairs"
    assert types["model"] == "text or keys" and types["domains"] == "NAME: KEYS pairs"
    assert types["sft.betas"] == "two numbers" and types["rl.group_mask"] == "number"


@pytest.mark.parametrize("path", sorted(Path("recipes").glob("*.yaml")), ids=lambda p: p.name)
def test_kept_recipes_hold(path: Path):
    assert recipes.load(path).stages


def test_aliases_of_aliases_are_refused_before_they_are_expanded(tmp_path):
    """A bomb of nine levels stands for 10**9 values, and for 20 lines of text."""
    import tracemalloc

    levels = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    levels += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]
    merges = ["m0: &m0 {k0: 1, j0: 1}"]
    for i in range(1, 22):
        merges.append(f"m{i}: &m{i} {{k{i}: *m{i - 1}, <<: *m{i - 1}}}")
    for lines in (levels, merges):
        path = tmp_path / "bomb.yaml"
        path.write_text("name: b\n" + "\n".join(lines) + "\n")
        tracemalloc.start()
        with pytest.raises(UserError, match=r"line \d+: .*aliases stand for more than 100,000"):
            recipes.load(path)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 4_000_000, peak
    path.write_text("name: b\nstages: &s [*s]\n")
    with pytest.raises(UserError, match="stands within itself"):
        recipes.load(path)
    with pytest.raises(UserError, match="not YAML"):
        recipes.load(Path("recipes/tiny.yaml"), ["name=[*x]"])

    # What people write stays: an anchor, and a mapping merged into others.
    path.write_text(
        "name: ok\ndomains: {mcqa: {}}\nstages:\n"
        "  - &one {name: a, kind: sft, steps: 3}\n  - {<<: *one, name: b}\n"
    )
    assert [stage.steps for stage in recipes.load(path).stages] == [3, 3]


def test_files_beside_the_recipe_come_before_those_of_the_working_folder(tmp_path, monkeypatch):
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    for folder in (home, elsewhere):
        folder.mkdir()
    for name in ("rows.jsonl", "data.jsonl", "mine.py", "judge"):
        (home / name).write_text("")
    (elsewhere / "old.jsonl").write_text("")
    tree = {
        "name": "x",
        "domains": {
            "./mine.py": {"rows": "rows.jsonl"},
            "mcqa": {"rows": "old.jsonl", "judge": {"model": "judge"}},
            "math": {"rows": "hf://datasets/a/b/c.jsonl", "judge": "http://h:1/v1#m"},
        },
        "stages": [
            {"name": "a", "kind": "sft", "data": "data.jsonl"},
            {"name": "b", "kind": "sft", "data": {"data.jsonl": 1, "nowhere.jsonl": 2}},
        ],
    }
    (home / "r.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))

    monkeypatch.chdir(elsewhere)
    recipe = recipes.load(home / "r.yaml", ["a.data=old.jsonl"])
    mine, mcqa, math = recipe.domains.values()
    assert next(iter(recipe.domains)) == str(home / "mine.py") and mine.rows == str(
        home / "rows.jsonl"
    )
    assert mcqa.rows == "old.jsonl" and mcqa.judge.model == str(home / "judge")
    assert math.rows.startswith("hf:") and math.judge.model == "http://h:1/v1#m"
    assert recipe.stage("a").data == "old.jsonl", "what is typed means where it is typed"
    assert list(recipe.stage("b").data) == [str(home / "data.jsonl"), "nowhere.jsonl"]

    # From its own folder nothing changes, and so no run that was begun there.
    monkeypatch.chdir(home)
    assert list(recipes.load(Path("r.yaml")).domains) == ["./mine.py", "mcqa", "math"]


def test_the_gate_of_the_mismatch_follows_the_precision():
    def gate(precision, **keys):
        stages = [{"name": "rl", "kind": "rl", **keys}]
        recipe = parsed(stages=stages, scale={"precision": precision})
        return recipe.max_mismatch_of(recipe.stages[0])

    assert gate("float32") == 1e-4 and gate("bfloat16") == 2.0
    assert gate("bfloat16", max_mismatch=0.5) == 0.5


def sampled(evaluate: dict, **stage) -> dict[str, tuple[float, float]]:
    stages = [
        {"name": "one", "kind": "rl", "domains": {"math": 1}, "temperature": 0.7},
        {"name": "two", "kind": "rl", "domains": {"math": 1, "mcqa": 1}, "top_p": 0.9, **stage},
        {"name": "last", "kind": "distill", "temperature": 0.5},
    ]
    tree = {"name": "t", "domains": {"math": {}, "mcqa": {}, "code": {}}, "stages": stages}
    return recipes.parse({**tree, "evaluate": evaluate}, "t").evaluation_sampling()


def test_evaluation_samples_a_domain_as_its_last_rl_stage_does() -> None:
    assert sampled({}) == {"math": (1.0, 0.9), "mcqa": (1.0, 0.9), "code": (1.0, 1.0)}
    assert sampled({"temperature": 0.3}) == dict.fromkeys(("math", "mcqa"), (0.3, 0.9)) | {
        "code": (0.3, 1.0)
    }
    by_domain = sampled({"temperature": {"code": 0.6}, "top_p": {"math": 0.5}}, temperature=2)
    assert by_domain == {"math": (2.0, 0.5), "mcqa": (2.0, 0.9), "code": (0.6, 1.0)}


@pytest.mark.parametrize(
    ("evaluate", "says"),
    [
        ({"temperature": 0}, "temperature.*must be above 0"),
        ({"top_p": {"math": 1.5}}, "top_p.*must be above 0 and at most 1"),
        ({"temperature": {"maths": 1}}, "evaluate.temperature: domain 'maths' is not among"),
    ],
)
def test_sampling_of_evaluation_that_cannot_be(evaluate, says: str) -> None:
    with pytest.raises(UserError, match=says):
        sampled(evaluate)


def test_only_a_change_of_how_a_domain_is_sampled_changes_the_scores() -> None:
    def recipe(evaluate: dict, **stage):
        stages = [{"name": "s", "kind": "rl", "top_p": 0.9, **stage}]
        tree = {"name": "t", "domains": {"math": {}}, "evaluate": evaluate, "stages": stages}
        return recipes.parse(tree, "t")

    said = recipe({"temperature": 1.0, "top_p": 0.9, "max_failed": 0.5})
    (only,) = differences_of_run(recipe({}), said)
    assert only.key == "evaluate.max_failed" and only.effect is Effect.NOTHING
    (other,) = differences_of_run(recipe({}), recipe({}, temperature=0.5))
    assert other.key == "evaluate.temperature" and other.effect is Effect.SCORES


def test_a_run_that_began_without_shared_prompts_goes_on_so(tmp_path: Path) -> None:
    """The default changed; whether an old folder says `false` or is older than the key."""
    kept = Path(__file__).parent.parent / "recipes" / "tiny.yaml"
    plain = recipes.load(kept)
    assert plain.scale.share_prompts and recipes.continued(plain, tmp_path / "new") == plain
    folder = tmp_path / "recipe.yaml"
    off = recipes.resolved(recipes.load(kept, ["scale.share_prompts=false"]))
    for text in (off, off.replace("  share_prompts: false\n", "")):
        folder.write_text(text)
        assert not recipes.load_resolved(folder).scale.share_prompts
        assert recipes.resolved(recipes.continued(plain, tmp_path)) == off
        asked = recipes.load(kept, ["scale.share_prompts=true"])
        assert recipes.continued(asked, tmp_path) == asked
    folder.write_text(recipes.resolved(plain))
    assert recipes.continued(plain, tmp_path).scale.share_prompts


def test_a_run_that_began_with_the_older_cache_goes_on_with_it(tmp_path: Path) -> None:
    """How many conversations are decoded together decides the last bits of what they draw."""
    kept = Path("recipes/tiny.yaml")
    plain, sized = recipes.load(kept), recipes.load(kept, ["scale.cache=64"])
    for cache, goes_on in (("256", 256), ("null", None), ("128", None)):
        begun = recipes.resolved(recipes.load(kept, [f"scale.cache={cache}"]))
        (tmp_path / "recipe.yaml").write_text(begun)
        assert recipes.continued(plain, tmp_path).scale.cache == goes_on
        assert recipes.continued(sized, tmp_path).scale.cache == 64
