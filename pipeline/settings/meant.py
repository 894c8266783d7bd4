"""What an unknown key was probably meant to be: the names that other tools have for ours, then the nearest one."""

from __future__ import annotations

from collections.abc import Iterable

from pipeline.settings.places import Keys
from pipeline.settings.texts import dotted, nearest

#: what people put into [model] that is sent along
_PARAMETERS = frozenset(
    {"temperature", "top_p", "seed", "max_tokens", "max_completion_tokens", "reasoning_effort", "service_tier"}
    | {"verbosity", "stop", "frequency_penalty", "presence_penalty", "logit_bias", "metadata", "store", "user"}
)
#: Our key, and what else it is called, wherever it was put.
_OTHER_NAMES = {
    "input.path": "file files filename file_path input_file source dataset data",
    "input.key": "id id_column id_field key_column primary_key",
    "input.delimiter": "sep separator",
    "task.system": "instructions instruction system_prompt system_message",
    "task.prompt": "template user_prompt question text_template",
    "task.labels": "classes categories choices label_set",
    "task.examples": "few_shot shots",
    "model.name": "model model_name engine deployment deployment_name",
    "model.base_url": "url uri endpoint host api_base openai_api_base base_uri server",
    "model.parameters": "params options settings extra_body",
    "limits.requests_per_minute": "rpm requests_per_min max_rpm rate_limit rate",
    "limits.tokens_per_minute": "tpm tokens_per_min max_tpm",
    "limits.requests_per_day": "rpd",
    "limits.concurrency": "workers num_workers max_workers threads parallel parallelism jobs in_flight "
    "max_concurrency max_parallel batch_size",
    "limits.max_attempts": "retries max_retries num_retries attempts retry",
    "limits.budget_usd": "budget max_budget max_cost cost_limit max_usd",
    "model.timeout_s": "timeout request_timeout timeout_seconds",
    "output.dir": "folder directory out output_dir output_path",
    "output.columns": "fields keep keep_columns",
}
#: The same for tables, and for keys whose name says another thing in another table.
_IN_TABLE = {
    "tables": {
        "model": "llm openai api provider endpoint",
        "task": "prompts",
        "model.parameters": "parameters",
        "limits": "rate_limits rate_limit",
    },
    "output": {"output.dir": "path file", "output.formats": "format type"},
    "model": {"model.base_url": "provider"},
}


def meant(path: Keys, known: Iterable[str], everywhere: Iterable[str]) -> str | None:
    """The key that `path` was meant to be. `known` are the names of its table, `everywhere` all keys there are."""
    name, table = str(path[-1]), dotted(path[:-1])
    if table == "model" and name in _PARAMETERS:
        return f"model.parameters.{name}"
    plain = name.lower().replace("-", "_")
    for names in (_IN_TABLE.get(table or "tables", {}), _OTHER_NAMES):
        if found := next((ours for ours, others in names.items() if plain in others.split()), None):
            return found
    if near := nearest(name, known):
        return dotted((*path[:-1], near))
    return next((key for key in everywhere if key.rpartition(".")[2] == name), None)
