"""Reads gold, that is, correct labels: gold files, what a label field may contain, and how people write its values."""

from pipeline.gold.gold_file import KEY, GoldFile, open_gold
from pipeline.gold.label_fields import (
    GOLD_NAMES,
    MORE_GOLD_NAMES,
    NONE,
    MeasuredField,
    as_class,
    as_number,
    as_set,
    class_name,
    fields_of_tools,
    find_field,
    has_value,
    infer_kind,
    only_field,
)
