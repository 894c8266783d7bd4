"""How good the labels of a run are: against gold, beside another run, and before all of it is paid for again."""

from pipeline.measure.certificate_design import CertifyOptions
from pipeline.measure.certification import certify
from pipeline.measure.class_shares import SharesOptions, shares
from pipeline.measure.compare import CompareOptions, compare
from pipeline.measure.evaluate import EvaluateOptions, evaluate
from pipeline.measure.trial import TryOptions, try_config
