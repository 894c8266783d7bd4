"""Exports a run's labels as training data: splits without leaks, in the formats that training requires."""

from pipeline.exports.export import export_data
from pipeline.exports.options import SPLIT, DataOptions, parse_similarity, parse_split
from pipeline.exports.text_baseline import BaselineOptions, baseline
