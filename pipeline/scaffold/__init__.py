"""Writes the first config for a file, and the demo."""

from pipeline.scaffold.config_writer import command_with_answer, guess_format, write_config
from pipeline.scaffold.demo import first_rows, write_demo
from pipeline.scaffold.proposal import Proposal, propose
from pipeline.scaffold.survey import Survey
from pipeline.scaffold.toml_text import to_toml
