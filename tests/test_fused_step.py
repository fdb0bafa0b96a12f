"""The Triton kernels of a Mamba step give what torch's operators give.

Without a GPU they run in Triton's interpreter, where Triton is installed (`pip install triton`).
"""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch
from support.slot_toy import small_hybrid

from linn.engine.models.nemotron_h.caches import MambaCache

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
if DEVICE == "cpu":
    os.environ["TRITON_INTERPRET"] = "1"
pytest.importorskip("triton", reason="triton is not installed")

ODD: dict[str, Any] = {
    "use_conv_bias": False,
    "time_step_limit": (1e-3, 0.2),
    "mamba_num_heads": 6,
    "mamba_head_dim": 12,
    "n_groups": 3,
    "ssm_state_size": 10,
}


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("changes", [{}, ODD], ids=["even", "odd"])
def test_a_fused_step_is_a_plain_one(
    changes: dict[str, Any], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LINN_KERNELS", "plain")  # for `step`, which is the reference
    torch.manual_seed(0)
    mixer = small_hybrid(**changes).backbone.layers[0].mixer
    config = mixer.config
    with torch.no_grad():
        for weight in mixer.parameters():
            weight.normal_(std=0.3)
        mixer.dt_bias.mul_(20)  # softplus near 0, and where it is the identity
    mixer.to(DEVICE, dtype)

    rows, heads = 5, config.mamba_num_heads
    is_open = torch.tensor([True, False, True, True, False], device=DEVICE)
    conv = torch.randn(rows, config.conv_kernel - 1, config.channels).to(DEVICE, dtype)
    of_groups = (config.n_groups, config.ssm_state_size, heads // config.n_groups)
    ssm = torch.randn(rows, *of_groups, config.mamba_head_dim).to(DEVICE)
    plain, fused = MambaCache(conv.clone(), ssm.clone()), MambaCache(conv.clone(), ssm.clone())
    gap = 1e-5 if dtype == torch.float32 else 2e-2
    with torch.no_grad():
        for _ in range(3):
            hidden = torch.randn(rows, config.hidden_size).to(DEVICE, dtype)
            right = mixer.step(hidden, plain, is_open)
            got = mixer._fused_step(hidden, fused, is_open)
            assert got.isfinite().all(), "a closed row's output means nothing, but is a number"
            torch.testing.assert_close(got[is_open], right[is_open], atol=gap, rtol=gap)
            torch.testing.assert_close(fused.conv, plain.conv)
            torch.testing.assert_close(fused.ssm, plain.ssm, atol=1e-4, rtol=1e-4)
    assert torch.equal(fused.ssm[~is_open], ssm[~is_open])
    assert torch.equal(fused.conv[~is_open], conv[~is_open])


def test_weights_that_are_no_numbers_stay_visible() -> None:
    """The clamp of dt keeps a NaN, which the sampler then refuses."""
    mixer = small_hybrid(time_step_limit=(1e-3, 0.2)).backbone.layers[0].mixer.to(DEVICE)
    with torch.no_grad():
        mixer.dt_bias[1] = torch.nan
        config = mixer.config
        conv = torch.zeros(1, config.conv_kernel - 1, config.channels, device=DEVICE)
        of_groups = (config.n_groups, config.ssm_state_size, 2, config.mamba_head_dim)
        ssm = torch.ones(1, *of_groups, device=DEVICE)
        hidden = torch.ones(1, config.hidden_size, device=DEVICE)
        is_open = torch.ones(1, dtype=torch.bool, device=DEVICE)
        assert mixer._fused_step(hidden, MambaCache(conv, ssm), is_open).isnan().any()
