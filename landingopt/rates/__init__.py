"""Convergence rates: what theory promises, what a run shows, and whether they agree.

``lo.rates.check(problem, method)`` runs a method and holds it against its law;
``lo.rates.check_trace(trace, law)`` does so with the trace of any solver.
"""

from landingopt.rates import exact, laws
from landingopt.rates.certificates import CertificateReport, certify
from landingopt.rates.comparison import SameRate, same_rate
from landingopt.rates.constants import Constants
from landingopt.rates.evidence import Evidence, evidence_table
from landingopt.rates.experiment import check, check_trace
from landingopt.rates.factors import LocalFactors, local_factors
from landingopt.rates.judge import SeriesReport, Verdict
from landingopt.rates.report import RateReport
from landingopt.rates.series import Slope
from landingopt.rates.theorems import Theorem, theorem_of
from landingopt.rates.unbiased import Unbiasedness, check_unbiased

__all__ = [
    "CertificateReport",
    "Constants",
    "Evidence",
    "LocalFactors",
    "RateReport",
    "SameRate",
    "SeriesReport",
    "Slope",
    "Theorem",
    "Unbiasedness",
    "Verdict",
    "certify",
    "check",
    "check_trace",
    "check_unbiased",
    "evidence_table",
    "exact",
    "laws",
    "local_factors",
    "same_rate",
    "theorem_of",
]
