"""A first config for a file: what its records look like becomes TOML text to edit."""

from __future__ import annotations

from pipeline.scaffold.proposal import Proposal, propose
from pipeline.scaffold.survey import Survey
from pipeline.scaffold.text import to_toml

__all__ = ["Proposal", "Survey", "propose", "to_toml"]
