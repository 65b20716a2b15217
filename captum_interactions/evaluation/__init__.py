"""Experiments as studies that can be resumed and distributed over processes."""

from captum_interactions.evaluation.configuration import ConfigurationError
from captum_interactions.evaluation.processes import Processes, processes
from captum_interactions.evaluation.rows import Row
from captum_interactions.evaluation.runner import run_study, summarise
from captum_interactions.evaluation.studies.catalogue import STUDIES
from captum_interactions.evaluation.study import MethodStudy, Study, view
from captum_interactions.evaluation.summary import Summary, Table

__all__ = [
    "STUDIES",
    "ConfigurationError",
    "MethodStudy",
    "Processes",
    "Row",
    "Study",
    "Summary",
    "Table",
    "processes",
    "run_study",
    "summarise",
    "view",
]
