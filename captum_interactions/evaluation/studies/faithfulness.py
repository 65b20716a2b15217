"""What does a map cost, and how faithful and how well localised is it for that?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from captum_interactions.datasets import Record
from captum_interactions.encoders import DualEncoderWrapper
from captum_interactions.evaluation.phrases import counted, paired, pointing, unread_notes
from captum_interactions.evaluation.rows import Row, by_variant
from captum_interactions.evaluation.statistics import (
    bootstrap_interval,
    holm,
    holm_note,
    mean,
    median,
    notes_of_few,
    numbers,
)
from captum_interactions.evaluation.studies.passes import counted_passes
from captum_interactions.evaluation.study import Map, MethodStudy
from captum_interactions.evaluation.summary import Summary, Table
from captum_interactions.evaluation.units import (
    MaskedUnits,
    by_unit,
    masked_units,
    own_seed,
    with_rest,
)
from captum_interactions.metrics import draw_present, faithfulness, predicted_scores
from captum_interactions.visualization.charts import (
    add_legend,
    line_style,
    method_label,
    new_chart,
    set_heading,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

QUALITIES = ("r_squared", "pearson", "spearman")
JOINT = "joint_"
"""Before the name of a quality: of joint coalitions, see :class:`Faithfulness`."""
_COLUMNS = (
    "method", "records", "R²", "95 % from", "to", "Pearson", "Spearman", "joint Pearson",
    "joint Spearman", "PGE median", "PGE from", "PGE to", "PGA", "defined", "image forward",
    "image backward", "text forward", "text backward", "passes",
)  # fmt: skip
_DETAILS = (
    "records", "joint Pearson", "joint Spearman", "defined", "image forward", "image backward",
    "text forward", "text backward",
)  # fmt: skip
_SPEARMAN, _ENERGY = _COLUMNS.index("Spearman"), _COLUMNS.index("PGE median")


@dataclass(frozen=True)
class Faithfulness(MethodStudy):
    """Faithfulness and localisation of each method against the encoder passes that it takes.

    Patches and words are there with probability p, each by itself: the model's scores of such
    inputs are held against those that the map predicts (constant, main effects and interactions of
    what is there). All methods face the same inputs, which are drawn from ``seed`` and the record's
    key. Each of ``n_masks`` images meets each of as many texts; *joint* correlations are over the
    ``n_masks`` pairs alone in which no image and no text comes twice, which is how published tables
    draw coalitions of both inputs. Passes are counted while the method runs, see
    :func:`~captum_interactions.evaluation.studies.passes.counted_passes`; the truth is not counted.

    The 12 default methods have Banzhaf interactions at growing budgets. With 144 patches they need
    584 masked inputs at least, and Shapley interactions (``shapley_interactions:n_samples=4800``)
    4672.

    Source: p-faithfulness of Baniecki et al. (arXiv 2508.05430).

    Raises:
        ValueError: If ``p`` is not between 0 and 1, or ``n_masks`` is less than 2.
    """

    name: ClassVar[str] = "faithfulness"
    title: ClassVar[str] = "Faithfulness against cost: what does a map give for its passes?"
    question: ClassVar[str] = "faithfulness and localisation of methods against encoder passes"
    needs: ClassVar[str] = "nothing; boxes of phrases if PGE is wanted"

    methods: tuple[str, ...] = (
        "second_order_integrated_gradients:n_steps=1",
        "second_order_integrated_gradients:n_steps=4",
        "second_order_integrated_gradients:n_steps=16",
        "second_order_integrated_gradients:layers=[-1,-1],n_steps=16",
        "token_similarity",
        "interaction_cam",
        "integrated_gradients",
        "grad_eclip",
        "occlusion",
        "banzhaf_interactions:n_samples=600",
        "banzhaf_interactions:n_samples=1200",
        "banzhaf_interactions:n_samples=2400",
    )
    p: float = 0.5
    """Probability that a part is there."""
    n_masks: int = 64
    """How many masked images, and masked texts; each of either meets each of the other."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.p < 1 or self.n_masks < 2:
            raise ValueError(
                "p must lie between 0 and 1 and n_masks be at least 2, but got "
                f"{self.p} and {self.n_masks}"
            )

    def measure(
        self, wrapper: DualEncoderWrapper, variant: str, records: Sequence[Record]
    ) -> list[Mapping[str, Any]]:
        return [self._measure(wrapper, variant, record) for record in records]

    def _measure(
        self, wrapper: DualEncoderWrapper, variant: str, record: Record
    ) -> Mapping[str, Any]:
        # One by one: what passes through the encoders then is this record's own.
        with counted_passes(wrapper) as (image, text):
            (imap,) = self.explain(wrapper, variant, [record])
        score = masked_units(wrapper, record)
        score.check(imap)
        seed = own_seed(self.seed, record)
        found = pointing(imap, record) if record.hard_negative is None else []
        return {
            **quality(imap, score, self.n_masks, self.p, seed),
            "phrases": found,
            "unread": len(record.grounded) - len(found) if record.hard_negative is None else 0,
            "image": {"forward": image.forward, "backward": image.backward},
            "text": {"forward": text.forward, "backward": text.backward},
        }

    def summarise(self, rows: Sequence[Row], records: Sequence[Record]) -> Summary:
        by_method = by_variant(rows)
        cells = [_cells(method, own) for method, own in by_method.items()]
        cells.sort(key=lambda row: _or_lowest(row[_SPEARMAN]), reverse=True)
        tables = {
            "by_method": Table(
                _COLUMNS, cells,
                "The best rank correlation first. Medians over records, but means of PGA and of "
                "passes; intervals of R² and PGE with images drawn anew. R² takes a map by its "
                "word: offset and scale count, so maps that promise no parts of the score have "
                "none to speak of. *joint*: over coalitions of both inputs, each drawn anew. "
                "*defined*: share of phrases for which the map has mass; the others "
                "count as chance. A gradient counts one backward pass, and so does a "
                "Jacobian-vector product; *passes* are all four together.",
                details=_DETAILS,
            )
        }  # fmt: skip
        first = next((name for name in self.methods if name in by_method), next(iter(by_method)))
        if len(by_method) > 1:
            tables["differences"] = _differences(first, by_method)
        notes = [f"Parts are there with probability {self.p:g}; chance of correlations is 0."]
        levels = numbers(p["chance"] for own in by_method.values() for p in counted(own))
        if len(levels):
            notes.append(f"Chance of PGE: {float(median(levels) or 0.0):.3f} (median).")
        few = notes_of_few({method: len(own) for method, own in by_method.items()})
        notes += [*few, *unread_notes(rows)]
        return Summary(tables, {"cost": _figure(cells, median(levels))}, notes)


def quality(imap: Map, score: MaskedUnits, n_masks: int, p: float, seed: int) -> dict[str, float]:
    """R², Pearson's and Spearman's correlation of predicted and true scores of masked inputs.

    Each comes twice: over every masked image with every masked text, and, as ``joint_...``, over
    the m-th image with the m-th text alone.
    """
    a, b = (
        draw_present(players, n_masks, p, 2 * seed + side)
        for side, players in enumerate(score.players)
    )
    truth = score.grid(a, b).cpu()
    predicted = predicted_scores(by_unit(imap), with_rest(a).cpu(), with_rest(b).cpu())
    found = faithfulness(predicted, truth)
    joint = faithfulness(*(grid.diagonal(dim1=1, dim2=2) for grid in (predicted, truth)))
    return {
        prefix + name: float(getattr(fit, name))
        for prefix, fit in (("", found), (JOINT, joint))
        for name in QUALITIES
    }


def _or_lowest(value: float | None) -> float:
    return float("-inf") if value is None else value


def _differences(first: str, by_method: Mapping[str, Sequence[Row]]) -> Table:
    """The first method minus each other one, on the records and phrases that both have."""
    ranks = {
        method: [
            {"key": row.record, "cluster": row.cluster, "spearman": row.values["spearman"]}
            for row in rows
        ]
        for method, rows in by_method.items()
    }
    others = [method for method in by_method if method != first]
    found = []
    for method in others:
        rank = paired(ranks[first], ranks[method], "spearman")
        energy = paired(counted(by_method[first]), counted(by_method[method]))
        found.append((method, rank, energy))
    p_values = holm([gap.p for _, *gaps in found for gap in gaps])
    cells = [
        [method, *rank[:4], of_rank, *energy[:4], of_energy]
        for (method, rank, energy), of_rank, of_energy in zip(
            found, p_values[::2], p_values[1::2], strict=True
        )
    ]
    return Table(
        ("method", "common records", "Spearman difference", "95 % from", "to", "p",
         "common phrases", "PGE difference", "PGE from", "PGE to", "p of PGE"), cells,
        f"{method_label(first)} minus the method, means over what both have. Intervals: "
        f"images drawn anew; *p*: sign-flip test over images, {holm_note(p_values)}.",
    )  # fmt: skip


def _cells(method: str, rows: Sequence[Row]) -> list[Any]:
    fits = {
        name: [row.values[name] for row in rows]
        for name in (*QUALITIES, f"{JOINT}pearson", f"{JOINT}spearman")
    }
    of_r = bootstrap_interval(fits["r_squared"], [row.cluster for row in rows])
    phrases = counted(rows)
    energy = [phrase["pge"] for phrase in phrases]
    of_energy = bootstrap_interval(energy, [phrase["cluster"] for phrase in phrases])
    passes = [
        mean(row.values[side][way] for row in rows) or 0.0
        for side in ("image", "text")
        for way in ("forward", "backward")
    ]
    return [
        method, len(rows), median(fits["r_squared"]), *of_r,
        *(median(values) for name, values in fits.items() if name != "r_squared"),
        median(energy), *of_energy, mean(p["pga"] for p in phrases),
        mean(p["defined"] for p in phrases), *passes, sum(passes),
    ]  # fmt: skip


def _figure(cells: Sequence[Sequence[Any]], chance: float | None) -> Figure:
    """Both qualities against all passes; budgets of one method are joined by a line."""
    groups: dict[str, list[Sequence[Any]]] = {}
    for row in sorted(cells, key=lambda row: float(row[-1])):
        groups.setdefault(_family(row[0]), []).append(row)
    names = sorted(groups)
    figure, axes = new_chart(5.0 + 0.19 * len(names), 2, 1, sharex=True)
    of_axes = (
        (_SPEARMAN, "correlation with true scores"), (_ENERGY, "attribution in the region")
    )  # fmt: skip
    for ax, (column, label) in zip(axes.flat, of_axes, strict=True):
        for place, name in enumerate(names):
            own = [row for row in groups[name] if row[column] is not None]
            colour, mark, fill = line_style(place)
            ax.plot(
                [row[-1] for row in own], [row[column] for row in own], label=method_label(name),
                color=colour, marker=mark, fillstyle=fill, markersize=5, linewidth=1,
                linestyle="-" if fill == "full" else "--",
            )  # fmt: skip
        ax.set(xscale="log", ylabel=label)
    axes[0, 0].axhline(0.0, color="0.5", linestyle=":", linewidth=1)
    if chance is not None:
        axes[1, 0].axhline(chance, color="0.5", linestyle=":", linewidth=1)
    axes[1, 0].set_xlabel("encoder passes for one pair (image and text)")
    add_legend(figure, axes[0, 0])
    set_heading(figure, "Faithfulness and localisation against cost (dotted: chance)")
    return figure


def _family(method: str) -> str:
    """A method without its budget, which is what a line joins."""
    name, _, rest = method.partition(":")
    kept = [one for one in rest.split(",") if one and one.partition("=")[0] not in _BUDGETS]
    return name + (":" + ",".join(kept) if kept else "")


_BUDGETS = ("n_steps", "n_samples")
