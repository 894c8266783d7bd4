"""Shares one rate limit and one budget among processes: a server that grants leases, and a client in each shard."""

from __future__ import annotations

from pipeline.leases.budgets import ShardBudgets
from pipeline.leases.client import PARENT_ENV, TOKEN_ENV, LeaseClient, stopped_error
from pipeline.leases.goldcounts import SharedGoldCounts
from pipeline.leases.messages import Job
from pipeline.leases.owners import ShardOwners
from pipeline.leases.server import lease_server
from pipeline.leases.service import LeaseService
from pipeline.leases.sharedqueue import SharedQueue
