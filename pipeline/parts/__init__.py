"""Settings to the parts of a run: the only room that knows both."""

from pipeline.parts.canaries import Gold, gold_of
from pipeline.parts.card import (
    FORMS,
    WORKED_AROUND,
    as_sent,
    asks_once,
    card_of,
    fingerprint_of,
    form_of,
    has_card,
    told_of_card,
)
from pipeline.parts.changing import changed
from pipeline.parts.choosing import expect_choice, is_of_shard, keys_in, mark_of, shard_of
from pipeline.parts.gold import gold_source
from pipeline.parts.inputs import (
    can_be_read_again,
    changes_of_input,
    is_elsewhere,
    named_of,
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
    few_of,
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
from pipeline.parts.outputs import is_marked, layout_of, mark_simulated, notified_of, open_sinks, outputs_of, sql_of
from pipeline.parts.provider import gold_fields, open_provider
from pipeline.parts.refusals import ASKS_THE_SAME, refusals, refuse, refuse_sameness
from pipeline.parts.renaming import FileEdit, edit_of, file_edits, renamed_pairs
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
    service_tier_of,
    why_responses,
)
from pipeline.parts.task import cache_text, panel_of, task_of, voters_of
from pipeline.parts.travel import Travel, travel_of
