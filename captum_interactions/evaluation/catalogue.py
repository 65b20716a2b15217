"""Studies by name, as the command line speaks of them."""

from __future__ import annotations

from collections.abc import Mapping

from captum_interactions.evaluation.ablations import Ablations
from captum_interactions.evaluation.agreement import Agreement
from captum_interactions.evaluation.classwise import Classwise
from captum_interactions.evaluation.failures import FailureCases
from captum_interactions.evaluation.faithfulness import Faithfulness
from captum_interactions.evaluation.fine_tuning import FineTuningStudy
from captum_interactions.evaluation.localization import Localization
from captum_interactions.evaluation.mismatches import Mismatches
from captum_interactions.evaluation.perturbation import Perturbation
from captum_interactions.evaluation.recognition import Recognition
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
