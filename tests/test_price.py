"""Prices against numbers computed by hand, real models' parameters, and the paper's own run."""

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from linn.chat.codec import Codec
from linn.cli.main import app
from linn.domains.load import load, load_all
from linn.engine.models.nemotron_h.model import NemotronH
from linn.engine.models.transformers_lm import TransformersLM
from linn.errors import UserError
from linn.pricing.amounts import Amount, as_dict
from linn.pricing.assumptions import DEVICES, DOMAINS, Assumptions
from linn.pricing.memory import memory_of
from linn.pricing.price import price
from linn.pricing.prompt_lengths import prompt_lengths
from linn.pricing.shape import Shape, read_shape, shape_of
from linn.pricing.table import _si, table
from linn.recipe import load as recipes

ROOT = Path(__file__).parent.parent
BASES = ROOT / "linn" / "bases"
TOY = Shape(
    total=1000,
    active=300,
    embedding=100,
    vocab=10,
    hidden=10,
    layers=4,
    attention=2,
    query=8,
    key=4,
    scan=6,
    conv=3,
    routed=800,
    experts=8,
    top=2,
)


TOY_LARGE = replace(
    TOY, total=10**8, vocab=1000, hidden=1000, layers=40, kept=40 * 20_000, widest=20_000
)


@pytest.fixture(scope="module")
def cascade():
    recipe = recipes.load(ROOT / "recipes" / "cascade2.yaml")
    shape = read_shape(BASES / "nemotron-3-nano-30b-a3b")
    return price(recipe, shape, load_all(recipe.domain_options()))


def stage(priced, name):
    return next(part for part in priced.stages if part.name == name)


def parameters_of(model: torch.nn.Module) -> int:
    """Numbers in the weights, tied ones once."""
    return sum(weight.numel() for weight in set(model.parameters()))


@pytest.mark.parametrize("name", ["tiny-0", "nemotron-3-nano-30b-a3b"])
def test_parameters_are_those_of_the_real_class(name):
    path = BASES / name / "config.json"
    with torch.device("meta"):
        model = NemotronH(json.loads(path.read_text()), path)
    assert read_shape(path.parent).total == parameters_of(model)


VARIANTS = [
    {
        "hybrid_override_pattern": "M-*E",
        "use_bias": True,
        "mlp_bias": True,
        "use_conv_bias": False,
        "intermediate_size": 48,
    },
    {
        "hybrid_override_pattern": "EE*M",
        "moe_latent_size": 16,
        "mlp_bias": True,
        "tie_word_embeddings": True,
    },
    {
        "hybrid_override_pattern": None,
        "layers_block_type": ["mamba", "attention", "moe"],
        "n_groups": 2,
        "num_attention_heads": 8,
    },
]


@pytest.mark.parametrize("changes", VARIANTS)
def test_parameters_of_variants(changes):
    raw = json.loads((BASES / "tiny-0" / "config.json").read_text()) | changes
    with torch.device("meta"):
        model = NemotronH(raw, Path("c"))
    assert shape_of(raw, "c").total == parameters_of(model)


EXPERTS = {"num_experts": 8, "num_experts_per_tok": 3, "moe_intermediate_size": 40}
SHARED = EXPERTS | {"shared_expert_intermediate_size": 72}
GATED = [
    ("LlamaConfig", {"attention_bias": True, "mlp_bias": True}),
    ("LlamaConfig", {"tie_word_embeddings": True, "head_dim": 24}),
    ("MistralConfig", {}),
    ("Olmo2Config", {"attention_bias": True}),
    ("Phi3Config", {"pad_token_id": 0}),
    ("Qwen2Config", {}),
    ("Qwen3Config", {"head_dim": 24, "attention_bias": True}),
    ("SmolLM3Config", {"pad_token_id": 0, "attention_bias": True, "mlp_bias": True}),
    ("MixtralConfig", {"num_local_experts": 8}),
    ("Qwen2MoeConfig", SHARED),
    ("Qwen2MoeConfig", SHARED | {"qkv_bias": False, "decoder_sparse_step": 2}),
    ("Qwen3MoeConfig", EXPERTS),
    ("Qwen3MoeConfig", EXPERTS | {"attention_bias": True, "mlp_only_layers": [0, 2]}),
    ("Qwen3MoeConfig", EXPERTS | {"decoder_sparse_step": 2, "mlp_only_layers": [1]}),
    ("Qwen3MoeConfig", EXPERTS | {"mlp_only_layers": list(range(8))}),
]


def small_config(name, keys, layers):
    import transformers

    config = getattr(transformers, name)(**keys)
    small = {
        "hidden_size": 96,
        "intermediate_size": 200,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 500,
        "head_dim": 24,
        "layer_types": ["full_attention"] * layers,
    }
    for key, value in small.items():
        setattr(config, key, value)
    return config


def small_model(config):
    """A family's own class, without memory."""
    import transformers  # here: a process that runs other tests alone never loads it

    with torch.device("meta"):
        return transformers.AutoModelForCausalLM.from_config(config)


def assert_counted(shape: Shape, model: torch.nn.Module) -> None:
    """All parameters, those of a token, and those of the largest layer are the class's own."""
    assert shape.total == parameters_of(model)
    routed = sum(p.numel() for name, p in model.named_parameters() if ".experts." in name)
    assert shape.routed == routed
    share = shape.top / shape.experts if routed else 0
    used = shape.total - routed + share * routed - shape.embedding
    assert shape.active == pytest.approx(used, rel=1e-12)
    assert shape.largest == max(map(parameters_of, model.model.layers))


@pytest.mark.parametrize(("name", "keys"), GATED)
def test_parameters_of_families_with_gated_mlps(name, keys):
    config = small_config(name, keys, layers=3)
    assert_counted(shape_of(config.to_dict(), "c"), small_model(config))


@pytest.mark.parametrize("name", sorted({name for name, _ in GATED}))
def test_parameters_of_families_of_any_size(name):
    draw = random.Random(name)
    # Any key of any family: those that a family does not have change nothing.
    for _ in range(12):
        heads = draw.randint(1, 6) * 2
        config = small_config(name, SHARED | {"pad_token_id": 0}, draw.randint(1, 5))
        drawn = {
            "hidden_size": heads * draw.randint(1, 9),
            "intermediate_size": draw.randint(1, 99),
            "num_attention_heads": heads,
            "num_key_value_heads": draw.choice([1, 2, heads]),
            "vocab_size": draw.randint(10, 300),
            "head_dim": draw.randint(1, 9) * 2,
            "num_experts_per_tok": draw.randint(1, 8),
            "num_experts" if name == "Qwen2MoeConfig" else "num_local_experts": draw.randint(8, 20),
            "moe_intermediate_size": draw.randint(1, 50),
            "shared_expert_intermediate_size": draw.randint(1, 50),
            "decoder_sparse_step": draw.randint(1, 3),
            "mlp_only_layers": draw.sample(range(5), draw.randint(0, 2)),
            "tie_word_embeddings": draw.random() < 0.5,
            "attention_bias": draw.random() < 0.5,
            "qkv_bias": draw.random() < 0.5,
            "mlp_bias": draw.random() < 0.5,
            "norm_topk_prob": draw.random() < 0.5,
        }
        for key, value in drawn.items():
            setattr(config, key, value)
        assert_counted(shape_of(config.to_dict(), "c"), small_model(config))


def test_a_config_without_a_word_on_ties_has_its_familys_own():
    for name in sorted({name for name, _ in GATED}):
        config = small_config(name, {"pad_token_id": 0}, layers=1)
        model = small_model(config)
        raw = config.to_dict()
        del raw["tie_word_embeddings"]
        assert shape_of(raw, "c").total == parameters_of(model), name


def test_qwen_3_30b_a3b_has_the_parameters_of_its_card():
    raw = {
        "model_type": "qwen3_moe",
        "hidden_size": 2048,
        "intermediate_size": 6144,
        "num_hidden_layers": 48,
        "num_attention_heads": 32,
        "num_key_value_heads": 4,
        "head_dim": 128,
        "vocab_size": 151_936,
        "num_experts": 128,
        "num_experts_per_tok": 8,
        "moe_intermediate_size": 768,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
        "tie_word_embeddings": False,
    }
    shape = shape_of(raw, "c")
    assert shape.total == 30_532_122_624
    # its card: 3.3B of 30.5B, embeddings among them
    assert (shape.active + shape.embedding) // 10**8 == 33
    # keys and values of 4 heads x 128 in 48 layers, 2 bytes each
    assert shape.cache_bytes(1) == 48 * 2 * (4 * 128) * 2


def test_the_papers_base_has_the_papers_parameters():
    shape = read_shape(BASES / "nemotron-3-nano-30b-a3b")
    assert shape.total == 31_577_937_344
    assert f"{shape.active / 1e9:.1f}" == "3.2"
    assert f"{(shape.active + shape.embedding) / 1e9:.1f}" == "3.6"
    assert (shape.layers, shape.attention, shape.experts, shape.top) == (52, 6, 128, 6)

    # keys and values of 2 heads x 128 in six layers, 2 bytes each
    assert shape.cache_bytes(1) - shape.cache_bytes(0) == 6 * 2 * (2 * 128) * 2
    # in 23 Mamba layers: the state of 64 heads x 64 x 128 in 4 bytes; a convolution of 3 steps
    scan_state = 64 * 64 * 128 * 4
    conv_state = 3 * (4096 + 2 * 8 * 128) * 2
    assert shape.cache_bytes(0) == 23 * (scan_state + conv_state)


def test_formulas_of_a_toy():
    assert TOY.forward_flops(5, 0) == 5 * (2 * 300 + 6 * 6)
    assert TOY.forward_flops(5, 7) - TOY.forward_flops(5, 0) == 4 * 8 * 2 * 7
    assert TOY.cache_bytes(9) == 4 * 4 * 2 * 9 + 4 * 6 + 2 * 3
    assert TOY.weights_read(1) == pytest.approx(100 + 800 * 2 / 8)
    assert TOY.weights_read(1e6) == pytest.approx(900)


def toy_recipe(**settings):
    stage = {
        "name": "s",
        "kind": "rl",
        "steps": 3,
        "prompts": 4,
        "rollouts": 5,
        "max_tokens": 1000,
        "evaluate": False,
        **settings,
    }
    tree = {
        "name": "t",
        "model": "tiny-0",
        "domains": {"mcqa": {"rows": "x"}},
        "scale": {"capacity": 2},
        "stages": [stage],
    }
    return recipes.parse(tree, "t")


def toy_price(turns: int = 1, **settings):
    mcqa = load("mcqa")
    mcqa.max_turns = turns
    (part,) = price(toy_recipe(**settings), TOY, {"mcqa": mcqa}).stages
    return part


def test_a_stage_by_hand():
    part = toy_price()
    low, high = part.expected, part.most
    groups, rollouts = 3 * 4, 3 * 4 * 5
    # tokens: of a prompt, of a reply at most, of a reply as expected
    prompt, longest, usual = 1000, 1000, 400
    assert (high.groups, high.rollouts) == (groups, rollouts)
    assert high.sampled == rollouts * longest
    assert high.trained == rollouts * (prompt + longest)
    assert (low.rollouts, low.sampled) == (rollouts, rollouts * usual)
    assert low.trained == rollouts * (prompt + usual)

    # a token: 600 FLOPs of weights, 36 of the scan; 64 per earlier token that attention reads
    token, pair = 600 + 36, 64
    whole = prompt + usual
    forward = rollouts * whole * token + pair * rollouts * whole**2 / 2
    assert low.training_flops == pytest.approx(3 * forward) and low.scored == 0

    # a prompt is read once per group, replies are decoded each
    read = groups * prompt * token + pair * groups * prompt**2 / 2
    decoded = rollouts * usual * token + pair * rollouts * (usual * prompt + usual**2 / 2)
    assert low.sampling_flops == pytest.approx(read + decoded)

    # decoding is bound by memory: weights (shared by the 2 of a batch), caches, the scan's state
    moved = 2 * TOY.weights_read(2) / 2 + TOY.cache_bytes(prompt + usual / 2) + 4 * TOY.scan
    chip = DEVICES["h100"]
    train_s = 3 * forward / (chip.flops * 0.3)
    decode_s = rollouts * usual * moved / (chip.bandwidth * 0.5)
    read_s = read / (chip.flops * 0.4)
    assert low.device_s == pytest.approx(train_s + decode_s + read_s)


def test_refills_limits_and_references():
    filtered = toy_price(dynamic_filter=True, refill=4)
    assert filtered.expected.rollouts == 120 and filtered.most.rollouts == 240
    assert filtered.most.trained == 60 * 2000

    kl = toy_price(kl=0.03).expected
    assert kl.scored == kl.trained and kl.scoring_flops * 3 == kl.training_flops

    short = toy_price(9, max_sequence=600)
    assert short.most.trained == 60 * 600 and short.most.sampled == 60 * 300

    turns = toy_price(9, max_turns=2)
    assert turns.most.sampled == 60 * 2000 and turns.expected.sampled == 60 * 2000 * 0.4 * 0.5

    alone = toy_price(max_turns=2)
    assert alone.most.sampled == 60_000, "a single-turn domain has one turn whatever the stage says"


def test_the_papers_own_numbers_of_tokens_and_rollouts(cascade):
    sft = stage(cascade, "sft")
    assert sft.expected.trained == sft.most.trained == 553_648_128_000, "at most 553.6B tokens"

    if_rl = stage(cascade, "if-rl").most
    assert if_rl.rollouts == 180 * 2048 * 10 and if_rl.groups == 180 * 1280

    mopd = stage(cascade, "mopd").most
    assert mopd.rollouts == pytest.approx(52 * 512)
    assert mopd.scored == pytest.approx(mopd.trained)
    assert mopd.trained <= 52 * 512 * 98_304 * 1.05

    agentic = stage(cascade, "swe-agentic")
    assert agentic.expected.rollouts == 226 * 1024
    assert agentic.most.trained == 226 * 1024 * 262_144


def test_the_papers_own_numbers_of_a_code_step(cascade):
    code = stage(cascade, "code")
    assert code.expected.rollouts == 2048 * 22
    assert code.most.sampled == 2048 * 22 * 120_832
    core_s = code.expected.core_s / 22
    assert core_s == 2048 * DOMAINS["code"].core_s
    assert core_s == pytest.approx(427.2 * 384, rel=0.01), "paper: 384 cores, 427.2 s per step"


def test_the_papers_own_numbers_of_judge_calls(cascade):
    pairs = 16 * 15 // 2
    assert stage(cascade, "rlhf").expected.judge_calls == 25 * 128 * pairs
    assert stage(cascade, "long-context").expected.judge_calls == 30 * 2048
    assert stage(cascade, "mopd").expected.judge_calls == 0, "distillation asks no judge"
    # A lone reply is one question, and two where it is compared with its row's reference in both
    # orders: four of the three judged domains. Ten checkpoints, 200 replies of validation, 300 of
    # test in both metrics.
    assert cascade.evaluation.expected.judge_calls == 4 * 10 * (200 + 2 * 300)


@pytest.mark.parametrize(
    ("name", "options", "group", "alone"),
    [
        ("preference", {}, 120, 1),
        ("preference", {"order": "both"}, 240, 1),
        ("preference", {"pairs": "circular"}, 16, 1),
        ("preference", {"layout": "genrm"}, 120, 0),
        ("longctx", {}, 16, 1),
        ("longctx", {"swap": True, "partial": 0.5}, 64, 4),
        ("proof", {"verifications": 5}, 80, 5),
        ("swe_agentless", {}, 16, 1),
        ("mcqa", None, 0, 0),
    ],
)
def test_questions_to_a_judge_follow_the_domains_options(name, options, group, alone):
    domain = load(name) if options is None else load(name, {"judged": True, **options})
    assert (domain.question_count(16), domain.question_count(1)) == (group, alone)
    if options is not None:
        assert load(name, options).question_count(16) == 0, "an unjudged domain asks nothing"
    if name in ("preference", "proof"):  # what is asked of their generators' prompts
        prompt = next(domain.prompts("train"))
        for count in (16, 1):
            questions = domain.questions(prompt, [domain.gold(prompt)] * count)
            assert len(questions) == domain.question_count(count)


def test_the_whole_is_the_sum_of_its_parts(cascade):
    total = sum((part.expected for part in (*cascade.stages, cascade.evaluation)), Amount())
    assert cascade.total.expected == total
    assert cascade.total.updates == 33_000 + 180 + 70 + 25 + 52 + 25 + 30 + 22 + 45 + 226
    for part in (*cascade.stages, cascade.evaluation, cascade.total):
        for name, value in vars(part.expected).items():
            assert 0 <= value <= getattr(part.most, name) * (1 + 1e-9), (part.name, name)


def test_memory_of_the_papers_base(cascade):
    memory, n = cascade.memory, 31_577_937_344
    assert (memory.weights, memory.gradients, memory.optimiser) == (4 * n, 4 * n, 8 * n)
    inputs = 262_144 * 2688 * 52 * 4  # of every layer, in float32
    assert memory.activations == memory.recomputed
    assert inputs < memory.activations < 2.5 * inputs, "one layer more, and the head"
    sharded = 16 * n / 256 + memory.activations
    assert memory.sharded(256) == pytest.approx(sharded) and memory.whole > 500e9
    assert memory.caches == 8 * cascade.shape.state_bytes(262_144)


def numbers_kept(model, tokens: int = 256) -> float:
    """Numbers per token that the layers keep for the backward pass, weights left out."""
    kept = {}
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    ids = torch.arange(tokens)[None] % 60 + 1
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        hidden = model.hidden(ids, torch.zeros_like(ids))
    own = [tensor for place, tensor in kept.items() if place not in weights]
    size = sum(tensor.untyped_storage().nbytes() for tensor in own)
    del hidden
    return size / 4 / tokens


@pytest.mark.parametrize("pattern", ["MMMM", "****", "EEEE", "----", "MEM*EM*E"])
def test_what_a_hybrids_layers_keep_is_what_the_plan_counts(pattern):
    raw = json.loads((BASES / "tiny-0" / "config.json").read_text())
    raw |= {"hybrid_override_pattern": pattern, "num_hidden_layers": len(pattern)}
    raw |= {"layers_block_type": None, "layer_types": None}
    model = NemotronH(raw, Path("c"))
    model.initialise(0)
    assert shape_of(raw, "c").kept == pytest.approx(numbers_kept(model), rel=0.15)


@pytest.mark.parametrize(("name", "keys"), GATED)
def test_what_a_gated_familys_layers_keep_is_what_the_plan_counts(name, keys):
    import transformers

    config = small_config(name, keys, layers=8)
    model = TransformersLM(transformers.AutoModelForCausalLM.from_config(config))
    shape = shape_of(config.to_dict(), "c")
    assert shape.kept == pytest.approx(numbers_kept(model), rel=0.15)
    assert shape.state_bytes(40) == model.row_bytes(40)


def test_the_plan_says_which_key_makes_a_run_fit():
    memory = memory_of(TOY_LARGE, 2048, tokens=4096, cached=1e9)
    needed, with_recompute = memory.whole, memory.smallest
    assert with_recompute < needed
    assert memory.remedy(2, 2 * needed) == ""
    assert memory.remedy(2, 2 * needed - 1) == "set scale.recompute: true"
    assert "scale.processes: 1" in memory.remedy(2, with_recompute)
    assert "no key" in memory.remedy(2, with_recompute - 1)
    crowded = memory_of(TOY_LARGE, 2048, tokens=4096, cached=50e9)
    assert "scale.cache" in crowded.remedy(1, 40e9)


def test_prompts_are_as_long_as_the_rows_at_hand(tmp_path):
    rows = tmp_path / "rows.jsonl"
    lines = [{"problem": "What is 2 + 3? " * n, "answer": "5"} for n in range(1, 200)]
    rows.write_text("".join(json.dumps(line) + "\n" for line in lines))
    tree = {"domains": {"math": {"rows": str(rows)}}, "name": "t", "model": "tiny-0"}
    tree["stages"] = [{"name": "s", "kind": "rl", "steps": 1, "prompts": 4, "rollouts": 5}]
    recipe = recipes.parse(tree, "t")
    domains = load_all(recipe.domain_options())
    counted = prompt_lengths(recipe, domains, Codec.load(BASES / "tiny-0"))["math"]
    assert counted.rows == 64 and 59 < counted.median < counted.long

    known = price(recipe, TOY, domains, None, {"math": counted})
    guessed = price(recipe, TOY, domains)
    replies = known.stages[0].most.sampled
    assert known.stages[0].most.trained == replies + 20 * counted.long
    assert guessed.stages[0].most.trained == replies + 20 * 1000
    assert f"math {counted.median:,}-{counted.long:,}" in table(known).replace("\n", " ")

    in_bytes = prompt_lengths(recipe, domains, None)["math"]
    assert in_bytes.rows == 64 and 0.2 < in_bytes.median / counted.median < 2


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").glob("*.yaml")), ids=lambda p: p.stem)
def test_tables_fit_80_columns_and_json_holds_the_same(path):
    base = "nemotron-3-nano-30b-a3b" if path.stem == "cascade2" else "tiny-0"
    shape = read_shape(BASES / base)
    recipe = recipes.load(path)
    priced = price(recipe, shape, load_all(recipe.domain_options()))
    assert max(map(len, table(priced).splitlines())) <= 80
    tree = json.loads(json.dumps(as_dict(priced)))
    assert tree["total"]["expected"]["flops"] == pytest.approx(priced.total.expected.flops)
    assert tree["assumptions"]["mean_length"] == 0.4


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, ""),
        (0.5, "0.5"),
        (22, "22"),
        (553.648e9, "553.6B"),
        (999.96e3, "1M"),
        (1e6, "1M"),
        (999.4e6, "999.4M"),
    ],
)
def test_figures_are_short(value, text):
    assert _si(value) == text


def test_wrong_words(cascade):
    with pytest.raises(UserError, match="did you mean 'h100'"):
        price(toy_recipe(), TOY, load_all({"mcqa": {}}), Assumptions(device="h10"))
    with pytest.raises(UserError, match="a share of the longest"):
        price(toy_recipe(), TOY, load_all({"mcqa": {}}), Assumptions(mean_length=0))
    with pytest.raises(UserError, match="no price for model_type None"):
        shape_of({}, "c")
    with pytest.raises(UserError, match="hidden_size is missing"):
        shape_of({"model_type": "llama"}, "c")
    llama = {"model_type": "llama", "hidden_size": 64, "intermediate_size": 8, "vocab_size": 9}
    layers = {"num_hidden_layers": 2, "num_attention_heads": 4}
    hybrid = {"model_type": "nemotron_h", "hidden_size": 64, "vocab_size": 9}
    for wrong in (
        llama | layers | {"hidden_size": "64"},
        llama | layers | {"num_attention_heads": 0},
        hybrid | {"hybrid_override_pattern": ""},
        hybrid | {"hybrid_override_pattern": 3},
    ):
        with pytest.raises(UserError, match="^c: a value that the price needs is not one of"):
            shape_of(wrong, "c")
    with pytest.raises(UserError, match="^c: holds no keys"):
        shape_of([1], "c")  # type: ignore[arg-type]


def run_command(*arguments: str):
    """`linn run ARGUMENTS`; an error is in the result."""
    return CliRunner().invoke(app, ["run", *arguments])


def test_cascade2_is_priced_without_weights_data_or_gpu(tmp_path):
    recipe, out = str(ROOT / "recipes/cascade2.yaml"), str(tmp_path / "r")
    text = run_command(recipe, "--out", out, "--dry-run")
    assert text.exit_code == 0, text.exception
    assert "553.6B" in text.output
    assert "31.58B parameters, 3.228B active" in text.output

    tree = json.loads(run_command(recipe, "--dry-run", "--json", "--device", "h200").output)
    assert tree["assumptions"]["device"] == "h200"

    error = run_command(recipe, "--out", out).exception
    assert isinstance(error, UserError)
    assert "hf download nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-Base-BF16" in str(error)
    assert not (tmp_path / "r").exists()


def test_a_family_without_a_formula_is_planned_all_the_same(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where no demo has been run
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    arguments = [str(ROOT / "recipes/tiny.yaml"), "--dry-run", "--set", f"model={tmp_path}"]
    text = run_command(*arguments)
    assert text.exit_code == 0, text.exception
    assert "no price for model_type 'gpt2'" in text.output
    assert "10 swe-agentic" in text.output
    assert isinstance(run_command(*arguments, "--json").exception, UserError)
