"""One limit and one budget for runs in several processes: a server that grants, and shards that ask."""

from __future__ import annotations

from pipeline.leases.claims import Claims
from pipeline.leases.client import PARENT_ENV, TOKEN_ENV, Lease, stopped_error
from pipeline.leases.desk import Desk
from pipeline.leases.purses import Purses
from pipeline.leases.queue import LeasedQueue
from pipeline.leases.rooms import Rooms
from pipeline.leases.server import lease_server
from pipeline.leases.tally import Tally
from pipeline.leases.words import Job
