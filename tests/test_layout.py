"""The memory of a cluster's processes, by hand; what `--dry-run` says of two layouts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from linn.domains.load import load_all
from linn.errors import UserError
from linn.pricing.amounts import as_dict
from linn.pricing.assumptions import DEVICES, Assumptions
from linn.pricing.layout import ASLEEP, RESERVE, Layout, layout_of, lines
from linn.pricing.memory import PROCESS
from linn.pricing.price import price
from linn.pricing.shape import Shape, read_shape, shape_of
from linn.recipe import load as recipes
from linn.recipe.schema import Recipe, ScaleConfig

ROOT = Path(__file__).parent.parent
SHAPE = Shape(
    total=1_000_000_000,
    active=1_000_000_000,
    embedding=50_000_000,
    vocab=50_000,
    hidden=1_000,
    layers=10,
    attention=10,
    query=1_000,
    key=500,
    scan=0,
    conv=0,
    routed=0,
    experts=0,
    top=0,
    kept=300_000,
    widest=30_000,
    largest=90_000_000,
)


def recipe(stage: dict[str, Any] | None = None, **scale: Any) -> Recipe:
    """One stage on a cluster of 4 ranks and 2 samplers."""
    sft = {"name": "sft", "kind": "sft", "data": "rows.jsonl", "steps": 1, "max_length": 100}
    cluster = {"engine": "cluster", "width": 10_000, "device": "cuda", "trainers": {"ranks": 4}}
    tree = {"name": "t", "stages": [stage or sft], "scale": cluster | scale}
    tree["domains"] = {"arithmetic": {}} if stage else {}
    return recipes.parse(tree, "t")


def layout(memory: float = 80e9, **scale: Any) -> Layout:
    return layout_of(recipe(**scale), SHAPE, 0, 1e9, "h100", memory)


def test_a_rank_in_float32_by_hand() -> None:
    rank = layout().rank
    assert rank.weights == 8e9 / 4 and rank.moments == 8e9 / 4 and rank.other == 0
    # 50 M in the embeddings, as many in the head; three times a layer's 4 bytes, and 4 more.
    assert rank.gathered == 8 * 100e6 + 90e6 * 16
    assert rank.activations == pytest.approx(4 * 10_000 * 300_000 * 1.3)


def test_each_key_that_saves_memory_saves_what_it_says() -> None:
    before = layout().rank
    host = layout(trainers={"ranks": 4, "moments": "host"}).rank
    assert host.moments == 0 and host.weights == before.weights
    assert layout(trainers={"ranks": 4, "sum": "step"}).rank.weights == before.weights + 4e9
    assert layout(recompute=True).rank.activations == 4 * 10_000 * (10 * 1_000 + 2 * 30_000)
    half = layout(recompute=True, precision="bfloat16").rank
    assert half.activations == 2 * 10_000 * 70_000
    assert half.gathered == 8 * 100e6 + 90e6 * 10
    assert layout(trainers={"ranks": 8}).rank.weights == before.weights / 2


def test_a_teacher_or_a_reference_is_counted() -> None:
    rl = {"name": "rl", "kind": "rl", "steps": 1, "prompts": 1, "rollouts": 2, "max_tokens": 9}
    for stage, bytes_ in (({**rl, "kl": 0.1}, 1e9), (rl, 0.0)):
        made = layout_of(recipe(stage), SHAPE, 0, 1e9, "h100", 80e9)
        assert made.rank.other == bytes_


def test_a_longer_conversation_has_a_row_of_its_own() -> None:
    long = layout_of(recipe(), SHAPE, 30_000, 1e9, "h100", 80e9)
    assert long.row == 30_000
    assert long.rank.activations == 3 * layout().rank.activations


def test_samplers() -> None:
    usable = 80e9 * (1 - RESERVE)
    own = layout(capacity=1000, cache=100_000, samplers={"replicas": 2})
    assert own.weights_of_sampler == 4e9 and own.conversations == int((usable - 4e9) // 1e9)
    tree = {"engine": "vllm", "replicas": 2, "tensor": 2, "memory": 0.5}
    pair = layout(capacity=1000, samplers=tree, precision="bfloat16")
    assert pair.weights_of_sampler == 1e9
    assert pair.conversations == int(2 * (0.5 * usable - 1e9) // 1e9)
    assert layout(capacity=3, cache=100_000).conversations == 3
    assert layout(cache=5_000).conversations == 5 and layout(cache=1).conversations == 1
    with pytest.raises(UserError, match="arguments: they are vLLM's"):
        layout(samplers={"arguments": {"enforce_eager": True}})
    with pytest.raises(UserError, match="linn sets dtype, seed itself"):
        layout(samplers={"engine": "vllm", "arguments": {"seed": 1, "dtype": "auto"}})
    with pytest.raises(UserError, match="tensor: 2 needs engine: vllm"):
        layout(samplers={"tensor": 2})


def test_samplers_on_the_trainers_gpus() -> None:
    tree = {"engine": "vllm", "replicas": 4, "colocated": True}
    made = layout(capacity=1000, samplers=tree)
    # A gigabyte of weights and two of moments; half of the card is vLLM's.
    assert made.at_rest == 3e9 and made.taken_by_sampler == pytest.approx(40e9)
    assert made.room == 80e9 * (1 - RESERVE) - ASLEEP and made.fits
    assert made.conversations == int(0.5 * 80e9 * (1 - RESERVE) - 4e9) // 10**9
    assert "4 vllm samplers, in turn on 4 x h100" in said(made)
    assert "their weights, 16 GB in all, wait in the memory of the hosts" in said(made)
    assert "a rank at rest keeps 3 GB, vLLM takes 0.5 of the GPU, 40 GB: fits" in said(made)

    greedy = layout(samplers=tree | {"memory": 0.95})
    assert not greedy.turn_fits and not greedy.fits
    assert "samplers: fits with samplers.memory: 0.9\n" in said(greedy) + "\n"
    small = "fits with trainers.moments: host, samplers.memory: 0.81"
    assert small in said(layout(8e9, samplers=tree))
    # Four gigabytes in bfloat16 beside one of weights: no share of one card, one of two.
    wider = "samplers.tensor: 2, samplers.replicas: 2, samplers.memory: 0.74"
    assert f"samplers: fits with trainers.moments: host, {wider}" in said(
        layout(5e9, samplers=tree)
    )
    assert "take more ranks" in said(layout(2e9, samplers=tree))
    large = said(replace(made, shape=replace(SHAPE, total=10**12)))
    assert "their weights, 16,000 GB in all" in large
    own = {"replicas": 4, "colocated": True}
    assert "samplers: fits with trainers.moments: host\n" in said(layout(8e9, samplers=own)) + "\n"
    # Whoever computes on CPUs keeps what it has.
    cpu = layout(device="cpu", samplers=tree)
    assert cpu.at_rest == 0 and cpu.room == cpu.memory and "in turn:" not in said(cpu)


def said(made: Layout) -> str:
    return "\n".join(lines(made))


def test_what_fits_is_said_and_the_nearest_layout_that_does() -> None:
    assert "OVER" not in said(layout())
    assert "6 x h100, 1 machine of 8" in said(layout(samplers={"replicas": 2}))
    # 22.8 GB: recompute saves 12.8 of them.
    assert "fits with recompute: true\n" in said(layout(20e9)) + "\n"
    # Then the moments, then more ranks or shorter rows.
    assert "fits with recompute: true, trainers.moments: host" in said(layout(8.4e9))
    small = said(layout(7e9))
    assert "trainers.moments: host, trainers.ranks: 6\n" in small
    assert "trainers.moments: host and rows of " in small
    tiny = said(layout(5e9))
    assert "no number of ranks up to 1024 holds a row of 10,000 tokens" in tiny
    whole = layout(80e9, trainers={"ranks": 4, "sum": "step"})
    assert "fits with trainers.sum: micro_batch" in said(replace(whole, memory=24e9))


def test_processes_on_cpus_share_one_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("linn.pricing.layout.machine_bytes", lambda: 66e9)
    made = layout(device="cpu")
    assert made.memory == 66e9 / 5 - PROCESS
    # The host's memory is what moments lie in anyway.
    host = layout(device="cpu", trainers={"ranks": 4, "moments": "host"})
    assert host.rank.moments == made.rank.moments > 0 and "wait in" not in said(host)
    assert said(made).endswith("GB too many for each rank\n  fits with recompute: true")
    # Each further rank takes less, and leaves less to the others.
    monkeypatch.setattr("linn.pricing.layout.machine_bytes", lambda: 30e9)
    assert "no number of ranks up to 1024 holds a row" in said(layout(device="cpu"))
    many = layout(device="cpu", recompute=True, trainers={"ranks": 1}, samplers={"replicas": 9})
    assert "samplers: fit with 5 processes in all" in said(many)
    monkeypatch.setattr("linn.pricing.layout.machine_bytes", lambda: 7e9)
    assert "samplers: this machine does not hold the model" in said(layout(device="cpu"))


def test_gpus_of_several_machines_need_ray() -> None:
    trainers = {"ranks": 8}
    assert "set places: ray" in said(layout(trainers=trainers))
    assert "set places: ray" not in said(layout(trainers=trainers, places="ray"))
    assert "set places: ray" not in said(layout(trainers={"ranks": 7}))


@pytest.mark.parametrize(
    ("heads", "fitting"),
    [
        ({"heads": 14, "key_heads": 2}, [1, 2, 14]),
        ({"heads": 16, "key_heads": 8}, [1, 2, 4, 8, 16]),
        ({"heads": 12, "key_heads": 4}, [1, 2, 4, 12]),
        ({"heads": 32, "key_heads": 2, "scan_heads": 64, "groups": 8}, [1, 2, 4, 8]),
        ({"heads": 32, "key_heads": 2, "scan_heads": 64, "groups": 1}, [1, 2, 4, 8, 16, 32]),
        ({"heads": 32, "key_heads": 2, "scan_heads": 6, "groups": 2}, [1, 2]),
    ],
)
def test_a_replicas_gpus_have_the_same_number_of_heads(
    heads: dict[str, int], fitting: list[int]
) -> None:
    shape = replace(SHAPE, **heads)
    assert [n for n in range(1, 40) if shape.splits(n)] == fitting
    tree = {"engine": "vllm", "tensor": 3}
    known = ", ".join(map(str, fitting))
    with pytest.raises(UserError, match=f"samplers.tensor: 3: .* take one of {known}$"):
        layout_of(recipe(samplers=tree), shape, 0, 1e9, "h100", 80e9)


def beyond_one(layers: int = 32, **scale: Any) -> str:
    """What is said of the local engine on one GPU of 80 GB; 32 layers: 8.03e9 parameters."""
    llama = {
        "model_type": "llama",
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": layers,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 128256,
    }
    made = recipe(engine="local", **{"trainers": {}, "device": "auto"} | scale)
    return price(made, shape_of(llama, "t"), {}, Assumptions(device="h100")).beyond_one


def test_what_one_gpu_does_not_hold_has_a_way_out() -> None:
    # 8e9 parameters: 128 GB with moments, 64 GB and activations without.
    assert beyond_one() == "fits one h100 with scale.recompute: true, scale.trainers.moments: host"
    assert beyond_one(recompute=True) == "fits one h100 with scale.trainers.moments: host"
    assert beyond_one(trainers={"moments": "host"}) == "fits one h100 with scale.recompute: true"
    assert beyond_one(recompute=True, trainers={"moments": "host"}) == ""
    assert beyond_one(device="cpu") == ""
    # 15.0e9: 60 GB of weights in a sampler. 29.0e9: 58 in bfloat16, and 5 for a conversation.
    larger = beyond_one(layers=64)
    assert "engine: cluster, recompute: true, trainers: {ranks: 3, moments: host}" in larger
    assert larger.endswith("its samplers with engine: linn")
    assert beyond_one(layers=128).endswith("engine: vllm, tensor: 2, precision: bfloat16")


EXPERTS = replace(
    SHAPE, routed=800_000_000, experts=8, moe=10, moe_kept=25_000, sent=20_000, own=True, heads=4
)
"""The same with eight experts in each layer, which are most of it."""
THEIRS = replace(EXPERTS, own=False)
"""Such a model of another family than linn's own."""


def spread(memory: float = 80e9, shape: Shape = EXPERTS, **scale: Any) -> Layout:
    return layout_of(recipe(**scale), shape, 0, 1e9, "h100", memory)


def test_rows_and_experts_over_ranks_by_hand() -> None:
    alone = spread(recompute=True).rank
    cut = spread(recompute=True, trainers={"ranks": 4, "context": 2}).rank
    assert cut.activations == alone.activations / 2 == 2 * 10_000 * (10 * 1_000 + 2 * 30_000)
    assert replace(cut, activations=alone.activations) == alone
    # 10 M of a layer are no experts; of 80 M in experts a rank gathers a quarter. The rows on
    # their way to them and back are more than what the widest layer keeps.
    held = spread(recompute=True, trainers={"ranks": 4, "experts": 4}).rank
    assert held.gathered == 8 * 100e6 + (10e6 + 20e6) * 16
    assert held.activations == 4 * 10_000 * (10 * 1_000 + 2 * 25_000 + 20_000)
    assert held.weights == alone.weights


def test_the_nearest_layout_shares_out_rows_and_experts() -> None:
    best = "fits with recompute: true, trainers.moments: host, "
    # 7.04 GB at the best of the other keys: 1.44 of it layers, 2.8 activations.
    assert best + "trainers.experts: 4" in said(spread(7e9))
    assert best + "trainers.context: 2, trainers.experts: 2" in said(spread(5.8e9))
    assert best + "trainers.context: 4, trainers.experts: 4" in said(spread(4.4e9))
    assert "GB too many for each rank" in said(spread(4.4e9))
    asked = {"ranks": 4, "context": 2, "experts": 4}
    assert "trainers.context" not in said(spread(4.4e9, THEIRS))
    assert "trainers.experts" not in said(spread(4.4e9, THEIRS))
    words = "each row over 2 ranks; a layer's experts over 4 ranks"
    assert words in said(spread(trainers=asked))
    assert "activations of 1/2 of 10,000 tokens" in said(spread(trainers=asked))


@pytest.mark.parametrize(
    ("trainers", "shape", "error"),
    [
        ({"ranks": 3, "experts": 3}, EXPERTS, "does not divide the 8 .*; take one of 1, 2, 4, 8"),
        ({"ranks": 2, "experts": 2}, SHAPE, "this model has no routed ones; take 1$"),
        ({"ranks": 2, "experts": 2}, THEIRS, "only Nemotron-H's can be spread; take 1$"),
        ({"ranks": 8, "context": 8}, EXPERTS, "take at most 4, its attention heads"),
        ({"ranks": 2, "context": 2}, SHAPE, "take 1: only Nemotron-H's rows are cut"),
    ],
)
def test_what_a_model_cannot_share_out_is_said(
    trainers: dict[str, int], shape: Shape, error: str
) -> None:
    with pytest.raises(UserError, match=error):
        spread(shape=shape, trainers=trainers)


@pytest.mark.parametrize(
    ("file", "device", "row"), [("8xh200", "h200", 262_144), ("2x8xh100", "h100", 262_144)]
)
def test_the_scale_files_fit_and_rows_three_times_as_long_do_not(
    file: str, device: str, row: int
) -> None:
    path = ROOT / "recipes" / "scale" / f"{file}.yaml"
    cut = recipes.load(ROOT / "recipes" / "cascade2.yaml", [], path)
    shape = read_shape(ROOT / "linn" / "bases" / "nemotron-3-nano-30b-a3b")
    priced = price(cut, shape, load_all(cut.domain_options()), Assumptions(device))
    assert priced.layout is not None and priced.layout.row == row and priced.layout.fits
    assert as_dict(priced)["layout"]["rank"]["total"] == priced.layout.rank.total
    longer = layout_of(cut, shape, 3 * row, 1e9, device, DEVICES[device].memory)
    assert not longer.fits


def test_a_scale_file_lays_its_stages_keys_over_the_recipe(tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    base = ROOT / "recipes" / "tiny.yaml"
    name = recipes.load(base).stages[0].name
    file.write_text(f"scale: {{processes: 3}}\nstages: {{{name}: {{lr: 0.5}}}}\n")
    loaded = recipes.load(base, [f"{name}.steps=7"], file)
    assert loaded.scale.processes == 3
    assert (loaded.stages[0].lr, loaded.stages[0].steps) == (0.5, 7)
    for text, error in (
        ("stages: {nobody: {lr: 1}}", "no stage 'nobody' in the recipe"),
        ("seed: 3", "'seed': a scale file holds `scale` and `stages` alone"),
        ("stages: [1]", "stages: must hold NAME: keys"),
        ("", "scale file .*s.yaml: holds nothing, expected scale and stages"),
        ("scale: {", "scale file .*s.yaml line 1: not YAML"),
        ("scale: {gpus: 8}", "tiny.yaml with .*s.yaml: scale: unknown key 'gpus'"),
    ):
        file.write_text(text)
        with pytest.raises(UserError, match=error):
            recipes.load(base, [], file)
    with pytest.raises(UserError, match="scale file .*cannot be read .* recipes/scale/8xh200.yaml"):
        recipes.load(base, [], tmp_path / "none.yaml")


def test_a_clusters_keys_are_refused_without_a_cluster() -> None:
    with pytest.raises(UserError, match="trainers: only a cluster has it; set engine: cluster"):
        recipes.parse(
            {"name": "t", "scale": {"trainers": {"ranks": 2}}, "stages": recipe_stages()}, "t"
        )


def test_a_run_folder_that_has_an_older_default_written_out_is_read() -> None:
    samplers = {"engine": "linn", "replicas": 1, "tensor": 1, "memory": 0.9, "deadline_s": 7200.0}
    assert ScaleConfig.model_validate({"samplers": samplers}) == ScaleConfig()
    for wrong in ({"memory": 0.8}, {"memory": 0.9, "colocated": True}):
        with pytest.raises(ValidationError, match="samplers: only a cluster has it"):
            ScaleConfig.model_validate({"samplers": wrong})


def recipe_stages() -> list[dict[str, Any]]:
    return [{"name": "s", "kind": "sft", "data": "rows.jsonl", "steps": 1}]


def test_processes_of_the_local_engine_are_refused_of_a_cluster(tmp_path: Path) -> None:
    tree = {"name": "t", "scale": {"engine": "cluster", "processes": 8}, "stages": recipe_stages()}
    error = "processes: 8 is for the local engine; .* trainers.ranks and samplers.replicas"
    with pytest.raises(UserError, match=error):
        recipes.parse(tree, "t")
    plain = recipes.parse(tree | {"scale": {"engine": "cluster"}}, "t")
    # A run that began when nobody read the key goes on.
    begun = tmp_path / "recipe.yaml"
    begun.write_text(recipes.resolved(plain).replace("processes: 2", "processes: 8"))
    assert recipes.load_resolved(begun).scale == plain.scale
