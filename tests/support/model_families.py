"""Tiny random models of thirteen families, each with its family's tokenizer layout and template.

A folder is what somebody brings: bfloat16 weights and configs as transformers writes them.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from support import families

SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
    "initializer_range": 0.1,
    "head_dim": 8,
}


def _gpt2() -> Any:
    import transformers as t

    return t.GPT2LMHeadModel, t.GPT2Config, {"n_embd": 32, "n_layer": 2, "n_head": 4}


def _gpt_oss() -> Any:
    """Experts, attention sinks, sliding windows."""
    import transformers as t

    special = {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 16}
    rope = {"rope_type": "default", "rope_theta": 150000.0}
    return t.GptOssForCausalLM, t.GptOssConfig, SIZES | special | {"rope_parameters": rope}


def _granite_hybrid() -> Any:
    """Mamba-2 and attention layers, scaled logits."""
    import transformers as t

    special = {
        "shared_intermediate_size": 48,
        "layer_types": ["mamba", "attention"],
        "num_local_experts": 0,
        "mamba_n_heads": 4,
        "mamba_d_head": 16,
        "mamba_d_state": 8,
        "mamba_n_groups": 1,
        "mamba_chunk_size": 8,
        "logits_scaling": 2.0,
    }
    sizes = {key: value for key, value in SIZES.items() if key != "head_dim"}
    return t.GraniteMoeHybridForCausalLM, t.GraniteMoeHybridConfig, sizes | special


def _nemotron_h() -> Any:
    """Mamba-2, attention and experts."""
    import transformers as t

    special = {
        "hybrid_override_pattern": "ME*E",
        "num_hidden_layers": 4,
        "mamba_num_heads": 4,
        "mamba_head_dim": 16,
        "ssm_state_size": 8,
        "n_groups": 2,
        "conv_kernel": 4,
        "chunk_size": 8,
        "n_routed_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 16,
        "moe_shared_expert_intermediate_size": 16,
        "n_shared_experts": 1,
    }
    return t.NemotronHForCausalLM, t.NemotronHConfig, SIZES | special


def _plain(name: str, **special: Any) -> Callable[[], Any]:
    def make() -> Any:
        import transformers

        model = getattr(transformers, f"{name}ForCausalLM")
        config_name = f"{name.removesuffix('_')}Config"
        if name == "Gemma3":
            config_name = "Gemma3TextConfig"
        return model, getattr(transformers, config_name), SIZES | special

    return make


_CAPS = {"sliding_window": 16, "final_logit_softcapping": 5.0, "query_pre_attn_scalar": 8}

MODELS: dict[str, Callable[[], Any]] = {
    "llama2": _plain("Llama"),
    "llama3": _plain("Llama", rope_theta=500000.0),
    "mistral": _plain("Mistral", sliding_window=16),
    "qwen2": _plain("Qwen2", tie_word_embeddings=True),
    "qwen3": _plain("Qwen3", tie_word_embeddings=True),
    "gemma2": _plain("Gemma2", **_CAPS),
    "gemma3": _plain("Gemma3", sliding_window=16, query_pre_attn_scalar=8),
    "phi3": _plain("Phi3", pad_token_id=0),
    "gpt2": _gpt2,
    "smollm2": _plain("Llama", tie_word_embeddings=True),
    "gpt-oss": _gpt_oss,
    "granite-hybrid": _granite_hybrid,
    "nemotron_h": _nemotron_h,
}
"""Family -> (class, class of its config, its sizes)."""


def write(name: str, folder: Path, dtype: torch.dtype = torch.bfloat16) -> Path:
    """A model folder of the family; returns it."""
    tokenizer = families.write(name, folder)
    generation = json.loads((folder / "generation_config.json").read_text())
    model_class, config_class, sizes = MODELS[name]()

    # Padded, as real vocabularies are.
    vocab = -(-tokenizer.get_vocab_size() // 16) * 16
    tokens = {"eos_token_id": generation["eos_token_id"], "bos_token_id": None}
    tokens["pad_token_id"] = sizes.get("pad_token_id")
    torch.manual_seed(0)
    model = model_class(config_class(**{"vocab_size": vocab} | sizes | tokens)).to(dtype)
    model.save_pretrained(folder)
    # save_pretrained has written its own: the family's says how it samples, too.
    settings = {"do_sample": True, "temperature": 0.6, "top_p": 0.9}
    (folder / "generation_config.json").write_text(json.dumps(generation | settings))
    return folder
