"""Builds the parts of a run from the settings. No lower package knows both."""

from pipeline.parts.card import (
    FORM_NOTES,
    FORMS,
    card_of,
    describe_card,
    fingerprint_of,
    form_of,
    has_card,
    takes_single_call,
    with_call_form,
)
from pipeline.parts.gold import GoldRecords, gold_of, gold_source
from pipeline.parts.inputs import (
    can_be_read_again,
    changes_of_input,
    input_identity,
    input_settings,
    is_elsewhere,
    read,
    read_again,
    reading_of,
    sources_of,
)
from pipeline.parts.labels import label_fields
from pipeline.parts.limits import (
    LANE_SHARE,
    admission_of,
    batch_price,
    budget_of,
    fewest_for_batches,
    flex_price,
    has_bound,
    hours_of,
    lane_price,
    price_for,
    rules_of,
    standard_price,
    tariff_of,
    tuner_of,
    votes_usd,
)
from pipeline.parts.media import media_for, media_of
from pipeline.parts.outputs import (
    is_marked_simulated,
    layout_of,
    mark_simulated,
    notify_targets,
    open_sinks,
    outputs_of,
    sql_of,
)
from pipeline.parts.overrides import override_settings
from pipeline.parts.portable_files import PortableFiles, portable_files
from pipeline.parts.provider import gold_fields, open_provider
from pipeline.parts.rename_edits import FileEdit, edit_of, file_edits, renamed_pairs
from pipeline.parts.selection import is_of_shard, read_keys, sample_rank, shard_of, validate_selection
from pipeline.parts.server import (
    BASE_URL,
    REHEARSAL,
    address,
    advice_context,
    api_of,
    flex_patience_s,
    is_azure,
    is_groq,
    is_openai,
    is_simulated,
    missing_key,
    responses_api_reason,
    service_tier_of,
)
from pipeline.parts.task import cache_text, panel_of, task_of, voters_of
from pipeline.parts.validation import SAME_PROMPT, settings_errors, validate_prompt, validate_settings
