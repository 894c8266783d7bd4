"""Measures the labels of a run: against gold, against another run, and on a sample before a run is paid for again."""

from pipeline.measure.certificate_design import CertifyOptions
from pipeline.measure.certification import certify
from pipeline.measure.class_shares import SharesOptions, shares
from pipeline.measure.compare import CompareOptions, compare
from pipeline.measure.evaluate import EvaluateOptions, evaluate
from pipeline.measure.trial import TryOptions, try_config
