"""Studies by name, as the command line speaks of them."""

from __future__ import annotations

from collections.abc import Mapping

from captum_interactions.evaluation.studies.ablations import Ablations
from captum_interactions.evaluation.studies.agreement import Agreement
from captum_interactions.evaluation.studies.classwise import Classwise
from captum_interactions.evaluation.studies.failures import FailureCases
from captum_interactions.evaluation.studies.faithfulness import Faithfulness
from captum_interactions.evaluation.studies.fine_tuning import FineTuningStudy
from captum_interactions.evaluation.studies.localization import Localization
from captum_interactions.evaluation.studies.mismatches import Mismatches
from captum_interactions.evaluation.studies.perturbation import Perturbation
from captum_interactions.evaluation.studies.recognition import Recognition
from captum_interactions.evaluation.study import Study

STUDIES: Mapping[str, type[Study]] = {
    study.name: study
    for study in (
        Localization,
        Classwise,
        Perturbation,
        Mismatches,
        FineTuningStudy,
        Ablations,
        Agreement,
        Faithfulness,
        Recognition,
        FailureCases,
    )
}
"""Every study by name."""
