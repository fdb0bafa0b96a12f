"""mini-swe-agent: an agent that asks, reads a call of its tool, and goes on."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def talk(url: str, model: str) -> None:
    """An errand of three steps at most; the conversation as it went."""
    with tempfile.TemporaryDirectory() as folder:
        # Read when it is imported: where it keeps its own, and that it asks nobody for prices.
        os.environ |= {"MSWEA_SILENT_STARTUP": "1", "MSWEA_GLOBAL_CONFIG_DIR": folder}
        os.environ |= {"LITELLM_LOCAL_MODEL_COST_MAP": "True"}
        import minisweagent
        import minisweagent.config
        import yaml
        from minisweagent.agents.default import DefaultAgent
        from minisweagent.environments.local import LocalEnvironment
        from minisweagent.models.litellm_model import LitellmModel

        path = Path(minisweagent.config.__file__).parent / "default.yaml"
        config = yaml.safe_load(path.read_text())
        config["agent"] |= {"step_limit": 3, "cost_limit": 0}
        own = {
            key: value for key, value in config.get("model", {}).items() if key != "model_kwargs"
        }
        # `/` in a name would be a provider's.
        agent = DefaultAgent(
            LitellmModel(
                model_name=f"openai/{model}",
                cost_tracking="ignore_errors",
                model_kwargs={"api_base": url, "api_key": "none", "max_tokens": 64},
                **own,
            ),
            LocalEnvironment(cwd=folder, timeout=5),
            **config["agent"],
        )
        print("mini-swe-agent", minisweagent.__version__, agent.run("Say hello."))
        for message in agent.messages:
            calls = [one["function"]["name"] for one in message.get("tool_calls") or []]
            print(f"  {message.get('role')}: {str(message.get('content'))[:70]!r} {calls}")
