"""Is a map right? Pure functions on tensors, which know no model."""

from captum_interactions.metrics.correlation import average_ranks, pearson, spearman
from captum_interactions.metrics.curves import Curve, Mode, Score
from captum_interactions.metrics.faithfulness import (
    Faithfulness,
    draw_present,
    faithfulness,
    predicted_scores,
)
from captum_interactions.metrics.infidelity import interaction_infidelity
from captum_interactions.metrics.joint_perturbation import insertion_deletion_area, joint_curves
from captum_interactions.metrics.localization import (
    Sign,
    best_level,
    chance_level,
    point_game_accuracy,
    point_game_energy,
    shuffled_level,
)
from captum_interactions.metrics.mixed_difference import mixed_difference, pair_differences
from captum_interactions.metrics.pair_perturbation import (
    first_order_pairs,
    pair_deletion_curve,
    pair_insertion_curve,
)
from captum_interactions.metrics.perturbation import conditional_curve, simultaneous_curve
from captum_interactions.metrics.randomization import (
    Cascade,
    Stage,
    cascading_randomization,
    label_randomization,
)
from captum_interactions.metrics.recognition import (
    quadrants,
    recognition_chance,
    recognition_score,
)
from captum_interactions.metrics.segmentation import average_precision, mean_iou
from captum_interactions.metrics.sensitivity import interaction_sensitivity

__all__ = [
    "Cascade",
    "Curve",
    "Faithfulness",
    "Mode",
    "Score",
    "Sign",
    "Stage",
    "average_precision",
    "average_ranks",
    "best_level",
    "cascading_randomization",
    "chance_level",
    "conditional_curve",
    "draw_present",
    "faithfulness",
    "first_order_pairs",
    "insertion_deletion_area",
    "interaction_infidelity",
    "interaction_sensitivity",
    "joint_curves",
    "label_randomization",
    "mean_iou",
    "mixed_difference",
    "pair_deletion_curve",
    "pair_differences",
    "pair_insertion_curve",
    "pearson",
    "point_game_accuracy",
    "point_game_energy",
    "predicted_scores",
    "quadrants",
    "recognition_chance",
    "recognition_score",
    "shuffled_level",
    "simultaneous_curve",
    "spearman",
]
