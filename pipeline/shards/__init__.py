"""A run in shards: processes here or elsewhere, under one limit and one budget, with one result."""

from __future__ import annotations

from pipeline.shards.dealing import BASE, FOLDER, shard_folder, shard_words
from pipeline.shards.local import run_in_shards, serve_leases
from pipeline.shards.merging import merge
from pipeline.shards.one import label_shard
