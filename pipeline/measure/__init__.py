"""How good the labels of a run are: against gold, beside another run, and before all of it is paid for again."""

from pipeline.measure.certifying import certify
from pipeline.measure.compare import CompareOptions, compare
from pipeline.measure.designs import CertifyOptions
from pipeline.measure.evaluate import EvaluateOptions, evaluate
from pipeline.measure.sharing import SharesOptions, shares
from pipeline.measure.trying import TryOptions, try_config
