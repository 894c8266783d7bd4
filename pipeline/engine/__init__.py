"""The engine: producer -> bounded queue -> workers -> bounded queue -> one writer. It knows no HTTP and no SDK."""

from pipeline.engine.attempt import Asker
from pipeline.engine.beginning import Beginning
from pipeline.engine.health import Prepare
from pipeline.engine.history import Over
from pipeline.engine.interview import Interview, Wants
from pipeline.engine.interview_context import InterviewContext, idempotency_key
from pipeline.engine.journal import Journal
from pipeline.engine.panel import VOTE_COLUMNS, Panel
from pipeline.engine.pool import Ending, Pool, PoolSizes
from pipeline.engine.producer import Job, Lookups, Producer, renamed
from pipeline.engine.refusal_evidence import is_hopeless
from pipeline.engine.retry import Verdict, backoff_s, verdict_of
from pipeline.engine.rules import AskRules, most_of
from pipeline.engine.saved_answers import read_again
from pipeline.engine.stop import StopSwitch, interruption, under
