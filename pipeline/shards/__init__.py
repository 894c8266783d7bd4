"""Runs several processes, here or on other machines, under one rate limit and one budget, with one result."""

from __future__ import annotations

from pipeline.shards.driver import run_in_shards, serve_leases
from pipeline.shards.merging import merge
from pipeline.shards.singleshard import label_shard
