"""Does linn compute every family as the family's own code does? On tiny random models.

    python -m bench.agreement.families [FAMILY …]

A line per family: what agrees with the stock forward of transformers, what does not and is refused.
Weights are drawn large, so that a wrong cache, mask or position shows.
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

VOCAB = 64
SIZES: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "intermediate_size": 48,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.2,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
"""What most families call their sizes."""

_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
_LOCAL_EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
_MAMBA2_OF_HYBRIDS = {
    "mamba_n_heads": 4,
    "mamba_d_head": 16,
    "mamba_d_state": 8,
    "mamba_n_groups": 1,
    "mamba_chunk_size": 8,
}
_LONG_ROPE = {
    "rope_type": "longrope",
    "short_factor": [1.0] * 4,
    "long_factor": [4.0, 5.0, 6.0, 7.0],
    "original_max_position_embeddings": 32,
    "rope_theta": 10000.0,
}
_DYNAMIC_ROPE = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10000.0}
_GPT2 = {
    "vocab_size": VOCAB,
    "n_embd": 32,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": 256,
    "initializer_range": 0.2,
}

FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "llama tied": ("llama", {"tie_word_embeddings": True}),
    "llama dynamic rope": (
        "llama",
        {"rope_parameters": _DYNAMIC_ROPE, "max_position_embeddings": 32},
    ),
    "mistral": ("mistral", {"sliding_window": 6}),
    "mixtral": ("mixtral", {"sliding_window": 6, **_LOCAL_EXPERTS}),
    "qwen2": ("qwen2", {}),
    "qwen2 window": (
        "qwen2",
        {"use_sliding_window": True, "sliding_window": 6, "max_window_layers": 1},
    ),
    "qwen2_moe": ("qwen2_moe", {**_EXPERTS, "shared_expert_intermediate_size": 24}),
    "qwen3": ("qwen3", {"head_dim": 8}),
    "qwen3_moe": ("qwen3_moe", {"head_dim": 8, **_EXPERTS}),
    "qwen3_next": (
        "qwen3_next",
        {
            "head_dim": 8,
            **_EXPERTS,
            "shared_expert_intermediate_size": 16,
            "layer_types": ["linear_attention", "full_attention"],
            "linear_num_key_heads": 2,
            "linear_num_value_heads": 4,
            "linear_key_head_dim": 8,
            "linear_value_head_dim": 8,
        },
    ),
    "gemma": ("gemma", {"head_dim": 8}),
    "gemma2": ("gemma2", {"head_dim": 8, "sliding_window": 6, "final_logit_softcapping": 5.0}),
    "gemma3": (
        "gemma3_text",
        {
            "head_dim": 8,
            "sliding_window": 6,
            "layer_types": ["sliding_attention", "full_attention"],
        },
    ),
    "gemma3n": (
        "gemma3n_text",
        {
            "head_dim": 8,
            "sliding_window": 6,
            "num_hidden_layers": 4,
            "num_kv_shared_layers": 2,
            "intermediate_size": [48] * 4,
            "activation_sparsity_pattern": [0.0] * 4,
            "hidden_size_per_layer_input": 8,
            "vocab_size_per_layer_input": VOCAB,
            "laurel_rank": 4,
            "layer_types": ["sliding_attention", "full_attention"] * 2,
        },
    ),
    "phi": ("phi", {}),
    "phi3": ("phi3", {"sliding_window": 6, "original_max_position_embeddings": 256}),
    "phi3 longrope": (
        "phi3",
        {"rope_parameters": _LONG_ROPE, "original_max_position_embeddings": 32},
    ),
    "phimoe": ("phimoe", _LOCAL_EXPERTS),
    "gpt2": ("gpt2", _GPT2),
    "gptj": ("gptj", {**_GPT2, "rotary_dim": 4}),
    "gpt_bigcode": ("gpt_bigcode", _GPT2),
    "gpt_neo": (
        "gpt_neo",
        {
            "vocab_size": VOCAB,
            "hidden_size": 32,
            "num_layers": 2,
            "num_heads": 4,
            "attention_types": [[["global", "local"], 1]],
            "window_size": 6,
            "max_position_embeddings": 256,
            "initializer_range": 0.2,
        },
    ),
    "gpt_neox": ("gpt_neox", {}),
    "gpt_oss": (
        "gpt_oss",
        {
            "head_dim": 8,
            "sliding_window": 6,
            "layer_types": ["sliding_attention", "full_attention"],
            **_LOCAL_EXPERTS,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
        },
    ),
    "opt": ("opt", {"ffn_dim": 48, "word_embed_proj_dim": 32, "init_std": 0.2}),
    "bloom": ("bloom", {"n_layer": 2, "n_head": 4}),
    "mpt": ("mpt", {"d_model": 32, "n_heads": 4, "n_layers": 2, "max_seq_len": 256}),
    "falcon": ("falcon", {}),
    "falcon alibi": ("falcon", {"alibi": True}),
    "stablelm": ("stablelm", {}),
    "starcoder2": ("starcoder2", {"sliding_window": 6}),
    "cohere": ("cohere", {"logit_scale": 0.25}),
    "cohere2": ("cohere2", {"sliding_window": 6, "head_dim": 8}),
    "olmo2": ("olmo2", {}),
    "olmo3": ("olmo3", {"sliding_window": 6}),
    "glm": ("glm", {"head_dim": 8}),
    "glm4": ("glm4", {"head_dim": 8}),
    "exaone4": ("exaone4", {"sliding_window": 6}),
    "smollm3": ("smollm3", {}),
    "nemotron": ("nemotron", {}),
    "nemotron_h": (
        "nemotron_h",
        {
            "head_dim": 8,
            "ssm_state_size": 8,
            "mamba_num_heads": 4,
            "mamba_head_dim": 16,
            "n_groups": 2,
            "hybrid_override_pattern": "MEM*-",
            "num_hidden_layers": 5,
            "n_routed_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 16,
            "moe_shared_expert_intermediate_size": 24,
        },
    ),
    "granite": ("granite", {"logits_scaling": 2.0}),
    "granitemoe": ("granitemoe", {"logits_scaling": 2.0, **_LOCAL_EXPERTS}),
    "granitemoehybrid": (
        "granitemoehybrid",
        {
            "shared_intermediate_size": 48,
            "layer_types": ["mamba", "attention"],
            "num_local_experts": 0,
            **_MAMBA2_OF_HYBRIDS,
        },
    ),
    "bamba": ("bamba", {**_MAMBA2_OF_HYBRIDS, "attn_layer_indices": [1]}),
    "falcon_h1": (
        "falcon_h1",
        {**_MAMBA2_OF_HYBRIDS, "mamba_d_ssm": 64, "head_dim": 8, "lm_head_multiplier": 0.5},
    ),
    "jamba": (
        "jamba",
        {
            "num_experts": 2,
            "attn_layer_period": 2,
            "attn_layer_offset": 1,
            "expert_layer_period": 2,
            "expert_layer_offset": 1,
            "mamba_d_state": 8,
            "mamba_dt_rank": 4,
            "use_mamba_kernels": False,
        },
    ),
    "zamba2": (
        "zamba2",
        {
            "num_hidden_layers": 3,
            "layers_block_type": ["mamba", "hybrid", "mamba"],
            "num_mem_blocks": 1,
            "mamba_d_state": 8,
            "n_mamba_heads": 4,
            "mamba_headdim": 16,
            "mamba_ngroups": 1,
            "adapter_rank": 4,
            "attention_head_dim": 16,
            "use_mem_rope": False,
            "chunk_size": 8,
        },
    ),
    "mamba": ("mamba", {"state_size": 8, "time_step_rank": 4, "num_hidden_layers": 2}),
    "falcon_mamba": ("falcon_mamba", {"state_size": 8, "time_step_rank": 4}),
    "mamba2": (
        "mamba2",
        {"num_heads": 4, "head_dim": 16, "state_size": 8, "n_groups": 1, "chunk_size": 8},
    ),
    "rwkv": ("rwkv", {"attention_hidden_size": 32, "context_length": 256}),
    "recurrent_gemma": (
        "recurrent_gemma",
        {
            "lru_width": 32,
            "attention_window_size": 6,
            "block_types": ["recurrent", "attention"],
            "head_dim": 8,
        },
    ),
    "lfm2": ("lfm2", {"layer_types": ["conv", "full_attention"], "block_multiple_of": 8}),
    "llama4": (
        "llama4_text",
        {
            "head_dim": 8,
            "intermediate_size_mlp": 48,
            **_LOCAL_EXPERTS,
            "num_experts_per_tok": 1,
            "attention_chunk_size": 8,
            "layer_types": ["chunked_attention", "full_attention"],
        },
    ),
    "minimax": (
        "minimax",
        {
            "head_dim": 8,
            **_LOCAL_EXPERTS,
            "layer_types": ["linear_attention", "full_attention"],
            "block_size": 8,
        },
    ),
    "deepseek_v2": (
        "deepseek_v2",
        {
            "kv_lora_rank": 8,
            "q_lora_rank": 8,
            "num_key_value_heads": 4,
            "qk_rope_head_dim": 8,
            "qk_nope_head_dim": 8,
            "v_head_dim": 8,
            "n_routed_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 16,
            "n_group": 1,
            "topk_group": 1,
            "first_k_dense_replace": 1,
        },
    ),
    "deepseek_v3": (
        "deepseek_v3",
        {
            "kv_lora_rank": 8,
            "q_lora_rank": 8,
            "num_key_value_heads": 4,
            "qk_rope_head_dim": 8,
            "qk_nope_head_dim": 8,
            "v_head_dim": 8,
            "n_routed_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 16,
            "n_group": 1,
            "topk_group": 1,
            "first_k_dense_replace": 1,
        },
    ),
    "ernie4_5": ("ernie4_5", {"head_dim": 8}),
    "seed_oss": ("seed_oss", {"head_dim": 8}),
    "hunyuan": ("hunyuan_v1_dense", {"head_dim": 8}),
    "xlstm": ("xlstm", {"num_heads": 4}),
}
"""By the name that is printed: the model type, and what its config has besides `SIZES`."""


def make(name: str, folder: Path) -> None:
    """Write the tiny random model of a family into a folder.

    Every vector is moved off its neutral start, so that norms, biases and gates count.
    """
    import torch
    import transformers

    family, special = FAMILIES[name]
    sizes = {} if family in ("gpt2", "gptj", "gpt_bigcode", "gpt_neo", "mpt") else SIZES
    config = transformers.AutoConfig.for_model(family, **{**sizes, **special})
    torch.manual_seed(0)
    auto: Any = transformers.AutoModelForCausalLM
    model = auto.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() < 2:
                parameter.add_(0.2 * torch.rand_like(parameter))
            elif float(parameter.std()) < 0.1:
                parameter.normal_(0, 0.2)
    model.save_pretrained(folder)


def main(names: list[str]) -> None:
    from linn.engine.models.check import check_model

    warnings.filterwarnings("ignore")
    width = max(len(name) for name in FAMILIES)
    for name in names or FAMILIES:
        with tempfile.TemporaryDirectory() as text:
            folder = Path(text)
            try:
                make(name, folder)
            except Exception as error:
                lines = str(error).strip().splitlines() or [""]
                print(f"{name:<{width}}  not made: {type(error).__name__}: {lines[0][:150]}")
                continue
            checked = check_model(folder)
        bad = [one for one in checked.findings if not one.ok]
        verdict = "works"
        if checked.positions:
            verdict += f", up to {checked.positions} tokens"
        if bad:
            verdict = "; ".join(f"{one.what}: {one.detail}" for one in bad)
            verdict = verdict.replace(f"{folder}: ", "")
        print(f"{name:<{width}}  {verdict}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
