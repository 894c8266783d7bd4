"""A first config for a file, and the demo: what is written before there is a run."""

from pipeline.scaffold.demo import first_rows, lay_demo
from pipeline.scaffold.first import answered, format_for, write_config
from pipeline.scaffold.proposal import Proposal, propose
from pipeline.scaffold.survey import Survey
from pipeline.scaffold.text import to_toml
