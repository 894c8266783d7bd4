"""Suggests a key for an unknown one: first by the names that other tools use, then by spelling."""

from collections.abc import Iterable

from pipeline.settings.texts import closest_match, dotted
from pipeline.settings.tomltext import Keys

#: Parameters that people put into [model], or into a voter, by mistake.
_PARAMETERS = frozenset(
    {"temperature", "top_p", "seed", "max_tokens", "max_completion_tokens", "reasoning_effort", "service_tier"}
    | {"verbosity", "stop", "frequency_penalty", "presence_penalty", "logit_bias", "metadata", "store", "user"}
)
#: Our key -> its names in other tools, in whatever table.
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
#: The same for tables, and for keys whose names mean something else in another table.
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

_REHEARSE = "no longer a key; run `labelpipe rehearse {option}` and set model.base_url to the address that it prints"
#: Keys of earlier versions -> what to use now.
_REMOVED_KEYS = {
    "model.organization": 'no longer a key; write [model.headers] "OpenAI-Organization" = "..."',
    "model.project": 'no longer a key; write [model.headers] "OpenAI-Project" = "..."',
    "limits.concurrency_min": "no longer a key, because `auto` starts low and finds its own minimum; remove it",
    "limits.record_deadline_s": "no longer a key; limits.max_attempts and model.timeout_s decide it; remove it",
    "limits.stall_s": "no longer a key; run.log reports a stall after 120 seconds; remove it",
    "task.media.fetch_timeout_s": "no longer a key; loading an address ends after 60 seconds; remove it",
    **{
        f"rehearsal.{name}": _REHEARSE.format(option=option)
        for name, option in {
            "latency_jitter": "--latency-jitter 0.3",
            "requests_per_day": "--rpd 200",
            "seed": "--seed 1",
            "slow_share": "--slow-share 0.05",
            "slow_factor": "--slow-factor 10",
            "max_in_flight": "--max-in-flight 32",
            "burst_s": "--burst-s 1",
            "limit_headers": "--no-limit-headers",
            "retry_after": "--no-retry-after",
            "poison": "--poison TEXT=KIND",
            "outages": "--outage 10-40",
            "context_tokens": "--context-tokens 8000",
            "quota_after": "--quota-after 1000",
        }.items()
    },
}


def removed_key_advice(path: Keys) -> str | None:
    """Say what to do about a key that an earlier version had; None for any other key."""
    return _REMOVED_KEYS.get(dotted(path))


def suggest_key(path: Keys, known: Iterable[str], everywhere: Iterable[str]) -> str | None:
    """Suggest the key that `path` was meant to be. `known` are the names of its table, `everywhere` all keys."""
    name, table = str(path[-1]), dotted(path[:-1])
    if (table == "model" or table.startswith("quality.voters.")) and name in _PARAMETERS:
        return f"{table}.parameters.{name}"
    plain = name.lower().replace("-", "_")
    for names in (_IN_TABLE.get(table or "tables", {}), _OTHER_NAMES):
        if found := next((ours for ours, others in names.items() if plain in others.split()), None):
            return found
    if near := closest_match(name, known):
        return dotted((*path[:-1], near))
    return next((key for key in everywhere if key.rpartition(".")[2] == name), None)
