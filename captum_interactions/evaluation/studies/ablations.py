"""What do the settings of second-order integrated gradients change?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from captum_interactions.datasets import Record
from captum_interactions.encoders import DualEncoderWrapper
from captum_interactions.evaluation.lines import Line, panels
from captum_interactions.evaluation.phrases import counted, paired, pointing, unread_notes
from captum_interactions.evaluation.rows import Row, by_variant
from captum_interactions.evaluation.statistics import (
    bootstrap_interval,
    holm,
    holm_note,
    mean,
    median,
    notes_of_few,
)
from captum_interactions.evaluation.studies.phrase_study import no_ground_truth
from captum_interactions.evaluation.studies.text_paths import (
    PATHS,
    check_text_path,
    compared,
    explain_along,
    table_of_paths,
)
from captum_interactions.evaluation.study import Map, Study, parse_method
from captum_interactions.evaluation.summary import Summary, Table
from captum_interactions.explanation import check_options, explain
from captum_interactions.functional.quadrature import METHODS as RULES
from captum_interactions.maps.interaction_map import InteractionMap

if TYPE_CHECKING:
    from matplotlib.figure import Figure

METHOD = "second_order_integrated_gradients"
DEFAULT = "default"
"""The variant with the wrapper's own settings."""
BASELINE = "baseline_a"
"""An option of this study: what the image is held against."""
TEXT_PATH = "text_path"
"""An option of this study: the path of the text, see ``text_paths``."""
_TABLES = {
    "steps": ("n_steps", "method"),
    "layers": ("layers",),
    "baselines": (BASELINE,),
    "normalization": ("normalization",),
    "text_paths": (TEXT_PATH,),
}
_COLUMNS = (
    "setting", "steps", "rule", "layers", "records", "error, thousandths", "95 % from", "to",
    "relative error", "PGE median", "PGE from", "PGE to", "PGA", "chance median", "seconds",
)  # fmt: skip


def _node_settings() -> tuple[str, ...]:
    rules = ("gausslegendre", "riemann_middle", "riemann_right", "riemann_trapezoid")
    return tuple(f"n_steps={n},method={rule}" for rule in rules for n in (2, 4, 8, 16, 32))


@dataclass(frozen=True)
class Ablations(Study):
    """Settings of second-order integrated gradients, each varied by itself around the defaults.

    A setting is written as the options of a method are: ``n_steps=8,method=riemann_right``,
    ``layers=[-1,-1]``, ``normalization=frozen``. ``baseline_a`` is one more option: the image's
    baseline as a constant of its normalised pixels (0 is the mean colour that the model was
    trained with), ``blurred``, or a list of those, over which products are averaged. ``text_path``
    is another: the path of the text, see
    :data:`~captum_interactions.evaluation.studies.text_paths.PATHS`; the maps of phrases are also
    compared with those along the straight path.

    There are 38 settings unless told otherwise: the defaults, four rules with 2 to 32 steps each,
    four pairs of layers (the embeddings, the second blocks, the last ones, and raw pixels), four
    baselines, two normalisations and seven paths of the text.

    Not varied: baselines of the text, for which there is one natural choice (padding), and how
    hidden units are pooled to tokens, because the map is defined as their signed sum, and no other
    pooling is complete.

    Source: the method of Möller, Tilli, Vu and Padó, TMLR 2025 (arXiv 2408.14153); its authors'
    program takes ``method=riemann_right``, the last blocks and frozen norms.

    Raises:
        ValueError: If a setting is written in no such way, or a baseline is of no such kind.
        TypeError: If the method has no such option.
    """

    name: ClassVar[str] = "ablations"
    title: ClassVar[str] = "Ablations: what do settings change?"
    question: ClassVar[str] = "steps, rules, layers, baselines and normalisation of one method"

    varied: tuple[str, ...] = (
        DEFAULT,
        *_node_settings(),
        "layers=[0,0]",
        "layers=[1,1]",
        "layers=[-1,-1]",
        'layers=["input",0]',
        f"{BASELINE}=-1.5",
        f"{BASELINE}=1.5",
        f"{BASELINE}=blurred",
        f"{BASELINE}=[-1.5,0.0,1.5]",
        "normalization=frozen",
        "normalization=none",
        *(f"{TEXT_PATH}={name}" for name in PATHS if name != "straight"),
    )
    """What is tried; others may be added to the results of earlier runs."""

    _apart: ClassVar[tuple[str, ...]] = ("varied",)

    def __post_init__(self) -> None:
        for text in self.varied:
            options = parse_setting(text)
            for one in _each(options.pop(BASELINE, None)):
                _check_baseline(one)
            if TEXT_PATH in options:
                check_text_path(options.pop(TEXT_PATH), options)
            check_options(METHOD, options)

    @property
    def variants(self) -> Mapping[str, Mapping[str, Any]]:
        return {text: {"options": parse_setting(text)} for text in self.varied}

    def declines(self, record: Record) -> str | None:
        return no_ground_truth(record)

    def measure(
        self, wrapper: DualEncoderWrapper, variant: str, records: Sequence[Record]
    ) -> list[Mapping[str, Any]]:
        options = parse_setting(variant)
        baseline, path = options.pop(BASELINE, None), options.pop(TEXT_PATH, None)
        found = []
        for record in records:
            own = dict(options)
            if baseline is not None:
                own["baselines"] = (_baseline(wrapper, record, baseline), None)
            if path is None:
                imap = explain(
                    wrapper, record.image, record.caption, METHOD, truncation=True, **own
                )
                found.append(_values(imap, record))
            else:
                along, straight = explain_along(wrapper, record, path, **own)
                changes = compared(along, straight, record)
                found.append({**_values(along, record), "changes": changes})
        return found

    def summarise(self, rows: Sequence[Row], records: Sequence[Record]) -> Summary:
        by_setting = by_variant(rows)
        tables: dict[str, Table] = {}
        for name, own in _sorted(by_setting).items():
            chosen = {setting: by_setting[setting] for setting in own}
            tables[name] = (table_of_paths if name == "text_paths" else _table)(chosen)
        if DEFAULT in by_setting and len(by_setting) > 1:
            tables["differences"] = _differences(by_setting)
        few = notes_of_few({setting: len(own) for setting, own in by_setting.items()})
        return Summary(tables, _figures(by_setting), [*few, *unread_notes(rows)])


_CAPTION = (
    "Error: how much all parts of a map miss the score by (median, in thousandths), and relative "
    "to what the baselines leave of the score (median). Phrases on which a map is undefined count "
    "as chance. Intervals: images drawn anew."
)


def _table(by_setting: Mapping[str, Sequence[Row]]) -> Table:
    rows = [_cells(*one) for one in by_setting.items()]
    settings = [(name, _COLUMNS.index(name)) for name in ("steps", "rule", "layers")]
    same = tuple(name for name, at in settings if len({row[at] for row in rows}) == 1)
    return Table(_COLUMNS, rows, _CAPTION, details=same)


def _differences(by_setting: Mapping[str, Sequence[Row]]) -> Table:
    """Each setting minus the default, on the records and phrases that both have."""
    errors = {
        setting: [
            {"key": row.record, "cluster": row.cluster, "error": 1000 * abs(row.values["delta"])}
            for row in rows
        ]
        for setting, rows in by_setting.items()
    }
    others = [setting for setting in by_setting if setting != DEFAULT]
    gaps = [
        (
            paired(errors[setting], errors[DEFAULT], "error"),
            paired(counted(by_setting[setting]), counted(by_setting[DEFAULT])),
        )
        for setting in others
    ]
    p_values = holm([energy.p for _, energy in gaps])
    return Table(
        ("setting", "common records", "error difference", "95 % from", "to", "common phrases",
         "PGE difference", "PGE from", "PGE to", "p"),
        [
            [setting, *error[:4], *energy[:4], p]
            for setting, (error, energy), p in zip(others, gaps, p_values, strict=True)
        ],
        "The setting minus the default, means over what both have; errors in thousandths. "
        "Intervals: images drawn anew; *p*: sign-flip test over images for PGE, "
        f"{holm_note(p_values)}.",
    )  # fmt: skip


def parse_setting(text: str) -> dict[str, Any]:
    """Options of a setting.

    Examples:
        >>> parse_setting("layers=[0,-1],normalization=none"), parse_setting("default")
        ({'layers': (0, -1), 'normalization': 'none'}, {})
    """
    return {} if text == DEFAULT else parse_method(f"{METHOD}:{text}")[1]


def _each(baseline: Any) -> tuple[Any, ...]:
    if baseline is None:
        return ()
    return baseline if isinstance(baseline, tuple) else (baseline,)


def _check_baseline(baseline: Any) -> None:
    is_number = isinstance(baseline, (int, float)) and not isinstance(baseline, bool)
    if not is_number and baseline != "blurred":
        raise ValueError(
            f"{BASELINE} must be a number, blurred, or a list of these, but got {baseline!r}"
        )


def _baseline(wrapper: DualEncoderWrapper, record: Record, baseline: Any) -> Any:
    found = [
        blurred(wrapper, record) if one == "blurred" else float(one) for one in _each(baseline)
    ]
    return found if isinstance(baseline, tuple) else found[0]


def blurred(wrapper: DualEncoderWrapper, record: Record) -> Tensor:
    """A record's image as the model takes it, (1, C, H, W), without anything small.

    It is blurred by a Gaussian of a tenth of its longer side (its standard deviation), with
    mirrored borders.

    Raises:
        ValueError: If the model takes no pixels.
    """
    pixels = wrapper.prepare(record.image, record.caption, truncation=True).inputs[0]
    if pixels.dim() != 4 or not pixels.is_floating_point():
        raise ValueError(
            f"only pixels of shape (1, C, H, W) can be blurred, but the image comes as "
            f"{pixels.dtype} of shape {tuple(pixels.shape)}"
        )
    sigma = max(pixels.shape[2:]) / 10
    for axis in (2, 3):
        radius = min(int(3 * sigma), pixels.shape[axis] - 1)
        steps = torch.arange(-radius, radius + 1.0)
        kernel = torch.exp(-0.5 * (steps / sigma) ** 2)
        kernel = (kernel / kernel.sum()).to(pixels)
        padding = (0, 0, radius, radius) if axis == 2 else (radius, radius, 0, 0)
        padded = F.pad(pixels, padding, mode="reflect")
        pixels = (padded.unfold(axis, len(kernel), 1) * kernel).sum(-1)
    return pixels


def _values(imap: Map, record: Record) -> Mapping[str, Any]:
    assert isinstance(imap, InteractionMap)
    found = pointing(imap, record)
    return {
        "delta": imap.convergence_delta,
        "score": imap.score,
        "constant": imap.constant,
        "phrases": found,
        "unread": len(record.grounded) - len(found),
        "n_steps": imap.settings["n_steps"],
        "rule": imap.settings.get("method", RULES[0]),
        "layers": imap.settings["layers"],
    }


def _sorted(settings: Mapping[str, Any]) -> dict[str, list[str]]:
    """Settings by the table that they belong to; the default one belongs to all of them."""
    found: dict[str, list[str]] = {name: [] for name in (*_TABLES, "others")}
    for text in settings:
        keys = parse_setting(text).keys()
        if keys:
            fitting = [name for name, own in _TABLES.items() if keys <= set(own)]
            found[fitting[0] if fitting else "others"].append(text)
    default = [DEFAULT] if DEFAULT in settings else []
    if not any(found.values()):
        return {"others": default}
    return {name: default + own for name, own in found.items() if own}


def _cells(setting: str, rows: Sequence[Row]) -> list[Any]:
    errors = [1000 * abs(row.values["delta"]) for row in rows]
    phrases = counted(rows)
    energy = [phrase["pge"] for phrase in phrases]
    first = rows[0].values
    layers = ", ".join(str(layer) for layer in first["layers"])
    return [
        setting, first["n_steps"], first["rule"], layers, len(rows), median(errors),
        *bootstrap_interval(errors, [row.cluster for row in rows]), relative_error(rows),
        median(energy), *bootstrap_interval(energy, [phrase["cluster"] for phrase in phrases]),
        mean(phrase["pga"] for phrase in phrases),
        median(phrase["chance"] for phrase in phrases), mean(row.seconds for row in rows),
    ]  # fmt: skip


def relative_error(rows: Sequence[Row]) -> float | None:
    """Median error over what the baselines leave of the score, ``|delta / (score - constant)|``.

    Pairs whose score is that of their baselines have none.
    """
    return median(
        abs(values["delta"] / values["score_range"]) if values["score_range"] else None
        for values in (
            {**row.values, "score_range": row.values["score"] - row.values["constant"]}
            for row in rows
        )
    )


def _figures(by_setting: Mapping[str, Sequence[Row]]) -> dict[str, Figure]:
    """Error and PGE against the number of steps, a line for each rule."""
    found: dict[str, dict[int, Sequence[Row]]] = {}
    for text, rows in by_setting.items():
        keys = parse_setting(text).keys()
        if keys and keys <= set(_TABLES["steps"]):
            found.setdefault(rows[0].values["rule"], {})[rows[0].values["n_steps"]] = rows
    if not found:
        return {}
    curves = {rule: dict(sorted(by_n.items())) for rule, by_n in found.items()}

    def lines(value: Any) -> list[Line]:
        return [
            Line(rule, list(by_n), [_or_nan(value(rows)) for rows in by_n.values()], rule)
            for rule, by_n in curves.items()
        ]

    def phrases(rows: Sequence[Row], key: str) -> float | None:
        return median(phrase[key] for phrase in counted(rows))

    every = [row for by_n in curves.values() for rows in by_n.values() for row in rows]
    return {
        "error": panels(
            {"": lines(relative_error)}, ("steps", "relative error, median"),
            title="Error of completeness of each quadrature rule",
            log_x=True, log_y=True, markers=True,
        ),
        "energy": panels(
            {"": lines(lambda rows: phrases(rows, "pge"))},
            ("steps", "share of positive attribution in the region, median"),
            title="Localisation by each quadrature rule (dotted: chance)",
            log_x=True, markers=True, reference=phrases(every, "chance"),
        ),
    }  # fmt: skip


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else value
