"""A key by the name that another tool has for it, or nearly right, is answered with the real one."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline import Settings
from pipeline.errors import ConfigError
from pipeline.settings import keys, suggestions

#: What is written, and what is proposed.
WRITTEN = {
    "limits.rpm": "limits.requests_per_minute",
    "limits.TPM": "limits.tokens_per_minute",
    "rpm": "limits.requests_per_minute",
    "limits.workers": "limits.concurrency",
    "limits.max_retries": "limits.max_attempts",
    "model.retries": "limits.max_attempts",
    "limits.budget": "limits.budget_usd",
    "limits.timeout": "model.timeout_s",
    "limits.requests_per_mintue": "limits.requests_per_minute",
    "model.url": "model.base_url",
    "model.model": "model.name",
    "model.max_tokens": "model.parameters.max_tokens",
    "model.provider": "model.base_url",
    "input.file": "input.path",
    "input.id": "input.key",
    "input.sep": "input.delimiter",
    "task.instructions": "task.system",
    "task.template": "task.prompt",
    "task.label": "task.labels",
    "output.folder": "output.dir",
    "output.path": "output.dir",
    "output.format": "output.formats",
    "inputs.path": "input",
    "llm.name": "model",
    "rate_limits.rpm": "limits",
    "labels.label": "task.labels",
    "parameters.seed": "model.parameters",
    "concurrency": "limits.concurrency",
    "prompt": "task.prompt",
}


@pytest.mark.parametrize("written", WRITTEN)
def test_the_real_key_is_named(written: str, tmp_path: Path) -> None:
    config = tmp_path / "a.toml"
    config.write_text(
        '[input]\npath = "r.csv"\n[task]\nprompt = "x"\nlabels = { a = ["b", "c"] }\n[model]\nname = "m"\n'
    )
    with pytest.raises(ConfigError, match="unknown key") as raised:
        Settings.load(config, [f"{written}=3"])
    assert str(raised.value).endswith(f"did you mean {WRITTEN[written]}?")


def test_what_is_proposed_exists() -> None:
    known = {key.name for key in keys(Settings)}
    for proposed in [*suggestions._OTHER_NAMES, *(key for names in suggestions._IN_TABLE.values() for key in names)]:
        assert proposed in known or any(name.startswith(f"{proposed}.") for name in known), proposed
